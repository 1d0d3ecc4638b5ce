"""The hybrid of an embedding and BM25 over a real Chroma: what it finds, and that both stay in step."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import chromadb
import pytest
from fakes.chroma_server import chroma_server
from fakes.embeddings import Hashed
from llama_index.core import VectorStoreIndex
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

from rag_ft import HybridRetriever, InputError, open_index, rebuild_index, update_index
from rag_ft.index import rollback_index
from rag_ft.index.live_store import LiveChromaStore
from rag_ft.retrieval import Fusion, keep_fusion
from rag_ft.retrieval.keyword_index import KeywordIndex

MODEL = Hashed(model_name="hashed")
WORDS = Fusion("zscore", 0.0)


def nodes(count: int = 40, version: str = "v1") -> list[TextNode]:
    return [
        TextNode(
            id_=f"n{place}",
            text=f"Form T-{place} is signed at desk {place % 5}, {version}.",
            metadata={"desk": place % 5},
        )
        for place in range(count)
    ]


def found(retriever: HybridRetriever, question: str) -> list[str]:
    return [node.node.node_id for node in retriever.retrieve(question)]


def test_it_finds_by_words_and_returns_the_nodes(tmp_path: Path) -> None:
    index = rebuild_index(nodes(), MODEL, tmp_path, "acme")
    retriever = HybridRetriever(index, Fusion("zscore", 0.1), similarity_top_k=3)
    answer = retriever.retrieve("Who signs T-17?")
    assert answer[0].node.node_id == "n17"
    assert answer[0].node.metadata == {"desk": 2}
    assert [node.score for node in answer] == sorted((node.score for node in answer), reverse=True)
    assert found(retriever, "Who signs T-17?") == [
        node.node.node_id for node in asyncio.run(retriever.aretrieve("Who signs T-17?"))
    ]


def test_the_embedding_alone_is_the_vector_retriever(tmp_path: Path) -> None:
    index = rebuild_index(nodes(), MODEL, tmp_path, "acme")
    question = "Form T-9 is signed at desk 4, v1."
    dense = [node.node.node_id for node in index.as_retriever(similarity_top_k=5).retrieve(question)]
    assert found(HybridRetriever(index, Fusion("zscore", 1.0), 5), question) == dense


def test_filters_apply_to_both_rankings(tmp_path: Path) -> None:
    index = rebuild_index(nodes(), MODEL, tmp_path, "acme")
    at_desk_3 = MetadataFilters(filters=[MetadataFilter(key="desk", value=3)])
    answer = HybridRetriever(index, similarity_top_k=20, filters=at_desk_3).retrieve("Who signs form T-17?")
    assert len(answer) == 8
    assert {node.node.metadata["desk"] for node in answer} == {3}


@pytest.mark.parametrize("asked", [1, 3, 1000])
def test_filters_that_few_passages_pass_find_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int) -> None:
    """All passages have the words of the question, and one passes; Chroma is queried in small batches."""
    from rag_ft.index import live_store
    from rag_ft.retrieval import hybrid

    index = rebuild_index(nodes(60), MODEL, tmp_path, "acme")
    few = MetadataFilters(filters=[MetadataFilter(key="file_id", value="n17")])
    index.insert_nodes([TextNode(id_="n17", text="Form T-17 is signed at desk 2.", metadata={"file_id": "n17"})])
    monkeypatch.setattr(hybrid, "MAX_FILTERED", asked)
    monkeypatch.setattr(live_store, "batch_size_of", lambda client: 7)
    retriever = HybridRetriever(index, Fusion("zscore", 0.0, depth=1), 1, filters=few)
    assert found(retriever, "Which form is signed at which desk?") == ["n17"]
    nobody = MetadataFilters(filters=[MetadataFilter(key="file_id", value="nobody")])
    assert found(HybridRetriever(index, WORDS, 1, filters=nobody), "Which form is signed?") == []


def test_deleted_passages_are_replaced_by_the_next_while_the_words_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rag_ft.retrieval import keyword_index

    same = [TextNode(id_=f"n{place}", text="The heliograph blinks.") for place in range(6)]
    index = rebuild_index(same, MODEL, tmp_path, "acme")
    retriever = HybridRetriever(index, WORDS, 3)
    first = found(retriever, "heliograph")
    monkeypatch.setattr(keyword_index, "MAX_BLOCKING_PASSAGES", 0)
    monkeypatch.setattr(KeywordIndex, "refresh", lambda self: None)  # it takes long
    index.delete_nodes(first)
    assert sorted([*first, *found(retriever, "heliograph")]) == [f"n{place}" for place in range(6)]


def test_a_query_engine_accepts_it(tmp_path: Path) -> None:
    from llama_index.core.llms import MockLLM

    index = rebuild_index(nodes(), MODEL, tmp_path, "acme")
    engine = RetrieverQueryEngine.from_args(HybridRetriever(index, WORDS, 2), llm=MockLLM(max_tokens=20))
    assert engine.query("Who signs T-17?").source_nodes[0].node.node_id == "n17"


def test_the_words_follow_inserts_changes_and_deletions(tmp_path: Path) -> None:
    index = rebuild_index(nodes(), MODEL, tmp_path, "acme")
    retriever = HybridRetriever(index, WORDS, 1)
    assert found(retriever, "heliograph") == []
    index.insert_nodes([TextNode(id_="new", text="The heliograph stands on the roof.")])
    assert found(retriever, "heliograph") == ["new"]
    index.insert_nodes([TextNode(id_="new", text="The semaphore stands on the roof.")])
    assert found(retriever, "heliograph") == []
    assert found(retriever, "semaphore") == ["new"]
    index.delete_nodes(["new"])
    assert found(retriever, "semaphore") == []


def test_the_words_follow_other_processes_and_rebuilds(tmp_path: Path) -> None:
    """Another client changes the index, as another process would, and this one sees it within a second."""
    with chroma_server(tmp_path / "server") as url:
        retriever = HybridRetriever(rebuild_index(nodes(), MODEL, url, "acme"), WORDS, 1)
        assert found(retriever, "T-17") == ["n17"]
        update_index([*nodes(30), TextNode(id_="new", text="The heliograph stands on the roof.")], MODEL, url, "acme")
        time.sleep(1.1)
        assert found(retriever, "heliograph") == ["new"]
        assert "n35" not in retriever.keywords.bm25().ids
        rebuild_index(nodes(50, "v2"), MODEL, url, "acme")
        time.sleep(1.1)
        assert found(retriever, "T-45") == ["n45"]
        assert found(retriever, "heliograph") == []


def test_the_next_start_reads_only_what_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rag_ft")
    index = rebuild_index(nodes(), MODEL, tmp_path, "acme")
    assert found(HybridRetriever(index, WORDS, 1), "T-17") == ["n17"]
    caplog.clear()
    index.insert_nodes([TextNode(id_="new", text="The heliograph stands on the roof.")])
    again = HybridRetriever(open_index(MODEL, tmp_path, "acme"), WORDS, 1)
    assert found(again, "heliograph") == ["new"]
    assert found(again, "T-17") == ["n17"]
    assert "1 passages read, 0 removed" in caplog.text


def test_the_next_start_finds_the_same(tmp_path: Path) -> None:
    """Nothing changed: the saved word index answers as before."""
    first = HybridRetriever(rebuild_index(nodes(), MODEL, tmp_path, "acme"), similarity_top_k=5)
    question = "Who signs T-17 at desk 3?"
    answer = [(node.node.node_id, node.score) for node in first.retrieve(question)]
    again = HybridRetriever(open_index(MODEL, tmp_path, "acme"), similarity_top_k=5)
    assert [(node.node.node_id, node.score) for node in again.retrieve(question)] == answer


def test_a_folder_that_cannot_be_written_does_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    index = rebuild_index(nodes(), MODEL, tmp_path, "acme")
    (tmp_path / "file").write_text("in the way")
    keywords = KeywordIndex(LiveChromaStore("acme", index.vector_store._client, MODEL), folder=tmp_path / "file" / "x")
    assert found(HybridRetriever(index, WORDS, 1, keywords=keywords), "T-17") == ["n17"]
    assert "could not be saved" in caplog.text


def test_a_killed_writer_is_followed_until_its_lease_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It announced its writing, changed a passage after others had checked, and never announced its end."""
    from rag_ft.index import revision

    index = rebuild_index(nodes(), MODEL, tmp_path, "acme")
    retriever = HybridRetriever(index, WORDS, 1)
    store = retriever.store
    revision.WriteNotice(store._client, "acme").mark()
    assert found(retriever, "heliograph") == []
    with monkeypatch.context() as silent:
        silent.setattr(revision.WriteNotice, "mark", lambda self: None)
        index.insert_nodes([TextNode(id_="n3", text="The heliograph stands on the roof.")])
    monkeypatch.setattr(revision, "LEASE_SECONDS", -1.0)  # later
    assert found(retriever, "heliograph") == ["n3"]
    assert retriever.keywords._revision is not None


def test_a_killed_writer_that_nobody_noticed_is_followed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It changed a passage in place and was killed, and the next query comes after its lease."""
    from rag_ft.index import revision

    index = rebuild_index(nodes(), MODEL, tmp_path, "acme")
    retriever = HybridRetriever(index, WORDS, 1)
    assert found(retriever, "heliograph") == []
    with monkeypatch.context() as killed:
        killed.setattr(revision.WriteNotice, "end", lambda self: None)
        index.insert_nodes([TextNode(id_="n3", text="The heliograph stands on the roof.")])
    monkeypatch.setattr(revision, "LEASE_SECONDS", -1.0)  # later
    assert found(retriever, "heliograph") == ["n3"]


def test_another_language_is_detected_after_a_rebuild(tmp_path: Path) -> None:
    german = ["Der Ausweis öffnet alle Türen des Hauses.", "Der Urlaub wird beim Vorgesetzten beantragt."]
    english = ["The badge opens all of the doors of the house.", "Holidays are asked for at the desk of the master."]
    index = rebuild_index([TextNode(id_=text, text=text) for text in english], MODEL, tmp_path, "acme")
    retriever = HybridRetriever(index, WORDS, 1)
    retriever.retrieve("doors")
    rebuild_index([TextNode(id_=text, text=text) for text in german], MODEL, tmp_path, "acme")
    time.sleep(1.1)
    assert retriever.keywords.bm25().language == "de"
    assert found(retriever, "offene Tür") == [german[0]]


def test_more_passages_than_the_depth_can_be_returned(tmp_path: Path) -> None:
    index = rebuild_index(nodes(), MODEL, tmp_path, "acme")
    assert len(HybridRetriever(index, Fusion(depth=5), similarity_top_k=30).retrieve("Who signs form T-3?")) == 30


def test_a_damaged_word_index_is_built_again(tmp_path: Path) -> None:
    index = rebuild_index(nodes(), MODEL, tmp_path, "acme")
    found(HybridRetriever(index, WORDS, 1), "T-17")
    for file in sorted((tmp_path / "rag_ft_bm25" / "acme").iterdir()):
        file.write_bytes(b"nothing")
        assert found(HybridRetriever(open_index(MODEL, tmp_path, "acme"), WORDS, 1), "T-17") == ["n17"]


def test_a_learned_fusion_stays_with_its_model(tmp_path: Path) -> None:
    index = rebuild_index(nodes(), MODEL, tmp_path, "acme")
    assert HybridRetriever(index).fusion == Fusion()
    keep_fusion(index, Fusion("min_max", 0.3))
    assert HybridRetriever(open_index(MODEL, tmp_path, "acme")).fusion == Fusion("min_max", 0.3)
    index.insert_nodes([TextNode(id_="new", text="The heliograph.")])
    rebuild_index(nodes(20), MODEL, tmp_path, "acme")
    assert HybridRetriever(open_index(MODEL, tmp_path, "acme")).fusion == Fusion("min_max", 0.3)
    other = Hashed(model_name="another")
    index = rebuild_index(nodes(20), other, tmp_path, "acme")
    assert HybridRetriever(open_index(other, tmp_path, "acme")).fusion == Fusion()
    keep_fusion(index, Fusion("zscore", 0.6))
    rollback_index(tmp_path, "acme")
    assert HybridRetriever(open_index(MODEL, tmp_path, "acme")).fusion == Fusion("min_max", 0.3)


def test_another_index_and_no_passages_are_refused() -> None:
    with pytest.raises(InputError, match="rebuild_index"):
        HybridRetriever(VectorStoreIndex(nodes(2), embed_model=MODEL))
    index = rebuild_index(nodes(2), MODEL, chromadb.EphemeralClient(), "hybrid-refused")
    with pytest.raises(InputError, match="similarity_top_k is 0"):
        HybridRetriever(index, similarity_top_k=0)


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from random import Random
from fakes.embeddings import Hashed
from llama_index.core.schema import TextNode
from rag_ft import open_index, update_index
draw = Random({seed})
MODEL = Hashed(model_name="hashed")
url = {url!r}
index = open_index(MODEL, url, "acme")
print("writing", flush=True)
while True:
    key = draw.randrange(60)
    turn = draw.random()
    if turn < 0.4:
        index.insert_nodes([TextNode(id_=f"n{{key}}", text=f"Desk {{key}} has word{{draw.randrange(10**6)}}.")])
    elif turn < 0.7:
        index.delete_nodes([f"n{{key}}"])
    else:
        update_index(
            [TextNode(id_=f"n{{draw.randrange(60)}}", text=f"Desk {{draw.randrange(10**6)}}") for key in range(1)],
            MODEL, url, "acme", delete_missing=False,
        )
"""


def in_step(retriever: HybridRetriever) -> bool:
    """Whether the word index holds exactly the passages and texts of the collection."""
    collection = retriever.store.collection
    rows = collection.get(include=["documents"])
    truth = dict(zip(rows["ids"], rows["documents"], strict=True))
    bm25 = retriever.keywords.refresh()
    if set(bm25.ids) != set(truth):
        return False
    return all(key in bm25.rank([text], 3)[0] for key, text in truth.items())


@pytest.mark.parametrize("kills", [1, pytest.param(15, marks=pytest.mark.slow)])
def test_words_and_vectors_are_in_step_after_kills(tmp_path: Path, kills: int) -> None:
    draw = Random(kills)
    with chroma_server(tmp_path / "server") as url:
        index = rebuild_index(nodes(), MODEL, url, "acme")
        reader = HybridRetriever(index, WORDS, 3)
        for turn in range(kills):
            script = WRITER.format(tests=str(Path(__file__).parents[1]), seed=turn, url=url)
            writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
            assert writer.stdout is not None
            assert writer.stdout.readline() == "writing\n"
            until = time.monotonic() + draw.uniform(0.1, 1.5)
            while time.monotonic() < until:
                reader.retrieve("Who signs T-17 at desk 3?")  # no error during writes
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            assert in_step(reader)  # the retriever that was open all the time
            fresh = HybridRetriever(open_index(MODEL, url, "acme"), WORDS, 3)
            fresh.keywords = KeywordIndex(fresh.store, folder=tmp_path / f"fresh-{turn}")
            assert in_step(fresh)  # and one of a new start
