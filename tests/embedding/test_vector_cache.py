"""The vector cache: stored vectors are found by several processes, within a maximum size, and after a kill."""

from __future__ import annotations

import pickle
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fakes.openai_server import vector_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from llama_index.core import MockEmbedding
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr

from rag_ft.embedding import CachedEmbedding, VectorCache
from rag_ft.embedding.client import EmbeddingClient
from rag_ft.embedding.contract import MIN_SAME_MODEL_COSINE
from rag_ft.embedding.identity import identity_of
from rag_ft.embedding.marked_vector import mark_of
from rag_ft.errors import InputError, OutsideError

vectors_of_any_kind = st.dictionaries(
    st.binary(min_size=1, max_size=32),
    arrays.arrays(np.float32, st.integers(1, 20), elements=st.floats(-1e6, 1e6, width=32)),
    max_size=30,
)


class Counting(BaseEmbedding):
    """Embeds by words, records its texts, and has a query prefix."""

    query_instruction: str = ""
    _version: int = PrivateAttr(default=0)
    _asked: list[str] = PrivateAttr(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "Counting"

    def _get_text_embedding(self, text: str) -> list[float]:
        self._asked.append(text)
        return vector_of(text, self._version)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(self.query_instruction + query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


@settings(max_examples=30, deadline=None)
@given(first=vectors_of_any_kind, second=vectors_of_any_kind)
def test_the_last_stored_vectors_are_found(first: dict, second: dict, tmp_path_factory: pytest.TempPathFactory) -> None:
    cache = VectorCache(tmp_path_factory.mktemp("cache") / "vectors.sqlite")
    cache.put(first)
    cache.put(second)
    found = VectorCache(cache.path).get([*first, *second, b"nothing of that name, surely, and longer than 32"])
    assert set(found) == set(first) | set(second)
    for key, vector in (first | second).items():
        np.testing.assert_array_equal(found[key], vector)
    assert cache.has(list(first)) == set(first)


def test_threads_and_processes_write_at_once(tmp_path: Path) -> None:
    file = tmp_path / "vectors.sqlite"
    program = (
        "import sys, numpy as np; from rag_ft.embedding import VectorCache; cache = VectorCache(sys.argv[1])\n"
        "for n in range(100): cache.put({f'{sys.argv[2]} {n}'.encode(): np.full(8, n)})"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(file), str(number)]) for number in range(3)]
    cache = VectorCache(file)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: cache.put({f"here {n}".encode(): np.full(8, n)}), range(100)))
    assert [each.wait() for each in running] == [0, 0, 0]
    assert len(cache) == 400
    found = cache.get([f"{who} {n}".encode() for who in ("0", "1", "2", "here") for n in range(100)])
    assert all(vector[0] == int(key.split()[1]) for key, vector in found.items())


def test_stored_vectors_survive_a_kill(tmp_path: Path) -> None:
    file = tmp_path / "vectors.sqlite"
    program = (
        "import sys, numpy as np; from rag_ft.embedding import VectorCache; cache = VectorCache(sys.argv[1])\n"
        "for n in range(10**6): cache.put({str(n).encode(): np.full(8, n)}); print(n, flush=True)"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(file)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    said = [int(writer.stdout.readline()) for _ in range(50)]
    writer.send_signal(signal.SIGKILL)
    said += [int(line) for line in writer.stdout if line.endswith("\n")]
    writer.wait()
    assert set(VectorCache(file).get([str(n).encode() for n in said])) == {str(n).encode() for n in said}


def test_the_least_recently_used_vectors_are_evicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag_ft.embedding.vector_cache.USE_RESOLUTION", 0.0)
    cache = VectorCache(tmp_path / "vectors.sqlite", max_bytes=400_000)
    for n in range(100):
        cache.put({str(n).encode(): np.zeros(250)})
    for n in range(100, 600):
        cache.get([b"0", b"1"])  # in use all the time
        cache.put({str(n).encode(): np.zeros(250)})
    kept = cache.has([str(n).encode() for n in range(600)])
    assert {b"0", b"1", b"599"} <= kept
    assert not kept & {b"2", b"50", b"100"}
    assert 200 <= len(kept) <= 400
    cache.close()
    assert cache.path.stat().st_size <= 450_000


def test_a_wrong_file_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("No database. " * 200)
    with pytest.raises(InputError, match=r"notes\.txt is not a vector cache"):
        VectorCache(file).get([b"a"])
    assert file.read_text() == "No database. " * 200
    with pytest.raises(InputError, match="in the way"):
        VectorCache(file / "vectors.sqlite").get([b"a"])
    with pytest.raises(OutsideError, match="cannot be used"):
        VectorCache(tmp_path).get([b"a"])
    with pytest.raises(InputError, match="max_bytes is 0"):
        VectorCache(file, max_bytes=0)


def test_damaged_rows_are_skipped(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path / "vectors.sqlite")
    cache.put({b"good": np.ones(4), b"short": np.ones(4), b"text": np.ones(4), b"nan": np.ones(4)})
    cache.close()
    with sqlite3.connect(cache.path) as connection:
        connection.execute("UPDATE vectors SET vector = x'000102' WHERE key = ?", (b"short",))
        connection.execute("UPDATE vectors SET vector = 'text' WHERE key = ?", (b"text",))
        connection.execute("UPDATE vectors SET vector = ? WHERE key = ?", (np.full(4, np.nan, "<f4").tobytes(), b"nan"))
    connection.close()
    assert set(cache.get([b"good", b"short", b"text", b"nan"])) == {b"good"}


def test_a_text_is_embedded_once_for_each_role_and_prefix(tmp_path: Path) -> None:
    model = Counting(model_name="words")
    cached = CachedEmbedding(model, tmp_path / "vectors.sqlite")
    texts = ["a lantern", "a kittiwake", "a lantern"]
    first = cached.get_text_embedding_batch(texts)
    np.testing.assert_allclose(first, [vector_of(text) for text in texts], atol=1e-6)
    assert model._asked.count("a lantern") == 1
    assert cached.get_query_embedding("a lantern") == first[0]  # of another role: asked again
    assert model._asked.count("a lantern") == 2
    again = CachedEmbedding(other := Counting(model_name="words"), tmp_path / "vectors.sqlite")
    assert again.get_text_embedding_batch(texts) == first
    assert len(other._asked) == 4  # the reference texts, to know that the model is the same
    prefixed = Counting(model_name="words", query_instruction="query: ")
    with_prefix = CachedEmbedding(prefixed, tmp_path / "vectors.sqlite")
    assert with_prefix.get_query_embedding("a lantern") != first[0]
    assert "query: a lantern" in prefixed._asked
    assert mark_of(with_prefix.get_query_embedding("a lantern")).query_prefix == "query: "


def test_other_weights_under_the_same_name_are_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "vectors.sqlite"
    CachedEmbedding(Counting(model_name="words"), file).get_text_embedding("a lantern")
    (other := Counting(model_name="words"))._version = 1
    changed = CachedEmbedding(other, file)
    np.testing.assert_allclose(changed.get_text_embedding("a lantern"), vector_of("a lantern", 1), atol=1e-6)
    assert "has changed since the cache was filled" in caplog.text


def test_settings_that_change_vectors_change_the_identity_and_keys_do_not() -> None:
    pytest.importorskip("llama_index.embeddings.openai")
    from llama_index.embeddings.openai import OpenAIEmbedding

    def identity(**settings: object) -> str:
        return identity_of(OpenAIEmbedding(**{"model_name": "small", "api_key": "sk-one", **settings}), "passage")

    assert identity() == identity(api_key="sk-two", max_retries=3, timeout=5.0, embed_batch_size=7)
    assert len({identity(), identity(model_name="large"), identity(dimensions=64), identity(api_base="http://h")}) == 4


def test_estimates_count_only_what_is_missing(tmp_path: Path) -> None:
    pytest.importorskip("llama_index.embeddings.openai")
    from llama_index.embeddings.openai import OpenAIEmbedding

    model = OpenAIEmbedding(model_name="text-embedding-3-small", api_key="sk-none", embed_batch_size=100)
    vectors = EmbeddingClient(model, VectorCache(tmp_path / "vectors.sqlite"))
    whole = vectors.estimate(["a question"], ["a passage of five words"] * 3 + [f"passage {n}" for n in range(999)])
    assert whole.calls == 1 + 10
    assert 0.00001 < (whole.dollars or 0) < 0.001
    assert "tokens, about $0.00" in str(whole)
    assert EmbeddingClient(MockEmbedding(embed_dim=4)).estimate(["a"], ["b"]).dollars == 0.0


def test_a_pickle_holds_the_path_of_the_cache(tmp_path: Path) -> None:
    cached = CachedEmbedding(Counting(model_name="words"), tmp_path / "vectors.sqlite")
    vector = cached.get_text_embedding("a lantern")
    again = pickle.loads(pickle.dumps(cached))
    assert again.get_text_embedding("a lantern") == vector
    assert "embed_model" not in cached.to_dict()
    assert CachedEmbedding.from_dict(cached.to_dict(), embed_model=cached.embed_model).cache_path == cached.cache_path


def test_a_model_whose_vectors_change_gets_a_new_version(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path / "vectors.sqlite")
    draw = np.random.default_rng(0)
    reference = draw.normal(size=64)
    assert cache.last_version(b"model") == 0
    assert cache.version_of(b"model", reference, MIN_SAME_MODEL_COSINE) == 1
    assert cache.version_of(b"model", reference + draw.normal(scale=1e-3, size=64), MIN_SAME_MODEL_COSINE) == 1
    assert cache.version_of(b"model", draw.normal(size=64), MIN_SAME_MODEL_COSINE) == 2
    assert cache.version_of(b"model", draw.normal(size=32), MIN_SAME_MODEL_COSINE) == 3
    assert cache.last_version(b"model") == 3
