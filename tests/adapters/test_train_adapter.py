"""Adapters: they learn what can be learned, change nothing otherwise, and belong to one embedding."""

from __future__ import annotations

import asyncio
import json
import pickle
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest
import torch
from fakes.datasets import jargon_dataset
from fakes.openai_server import DIMENSION, vector_of
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core import Settings
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import TextNode

from rag_ft import ContractError, FineTunedEmbedding, InputError, compare, open_index, rebuild_index
from rag_ft.adapters import AdapterRecipe, train_adapter
from rag_ft.adapters.fitting import AdapterExamples, fit_path
from rag_ft.embedding import AdapterEmbedding
from rag_ft.embedding.adapter import is_adapter
from rag_ft.embedding.adapter_maps import apply_map, make_map
from rag_ft.embedding.marked_vector import mark_of
from rag_ft.index.nodes import nodes_from_texts
from rag_ft.training.selection.dev_set import DevQuestions
from rag_ft.training.selection.select import Candidate, Policy, select


class Words(BaseEmbedding):
    """Vectors that follow from the words of a text."""

    _version: int = PrivateAttr(default=0)

    @classmethod
    def class_name(cls) -> str:
        return "Words"

    def _get_text_embedding(self, text: str) -> list[float]:
        return vector_of(text, self._version)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def words(version: int = 0) -> Words:
    model = Words(model_name="words")
    model._version = version
    return model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return train_adapter(jargon_dataset(), words(), tmp_path_factory.mktemp("adapter") / "adapter", cache=False)


@pytest.mark.parametrize("map_passages", [False, True])
def test_an_adapter_learns_words_of_another_language(map_passages: bool, tmp_path: Path) -> None:
    dataset = jargon_dataset()
    recipe = AdapterRecipe(map_passages=map_passages)
    trained = train_adapter(dataset, words(), tmp_path / "a", recipe=recipe, cache=False)
    assert not trained.is_base, trained.record["training"]
    assert max(trained.dev.values()) > trained.dev["base"] + 0.1
    comparison = compare(dataset, words(), trained.embed_model())
    assert comparison.differences["candidate"]["ndcg@10"].ci95[0] > 0.05
    assert trained.record["training"]["gain"]["mean"] > 0.1
    assert trained.record["adapter"]["kind"] == "linear"
    assert trained.record["adapter"]["both_sides"] == map_passages
    assert "dev questions" in (tmp_path / "a" / "README.md").read_text()


@pytest.mark.parametrize("kind", ["low-rank", "residual"])
def test_adapters_of_a_removed_kind_still_load(kind: str, trained: Any, tmp_path: Path) -> None:
    """Folders that version 0.1.0 wrote."""
    import hashlib

    from safetensors.torch import save_file

    folder = tmp_path / kind
    folder.mkdir()
    for file in Path(trained.folder).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    module = make_map(kind, DIMENSION, 8)
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, folder / "adapter.safetensors")
    record = json.loads((folder / "rag_ft.json").read_text())
    digest = hashlib.sha256((folder / "adapter.safetensors").read_bytes()).hexdigest()
    record["adapter"] |= {"kind": kind, "rank": 8, "share": 1.0, "sha256": digest}
    (folder / "rag_ft.json").write_text(json.dumps(record))
    model = AdapterEmbedding.load(folder, words())
    np.testing.assert_allclose(model.get_query_embedding("word1"), vector_of("word1"), atol=1e-6)


def test_the_embedding_stays_if_there_is_nothing_to_learn(tmp_path: Path) -> None:
    trained = [
        train_adapter(jargon_dataset(noise=True, seed=seed), words(), tmp_path / str(seed), cache=False)
        for seed in range(8)
    ]
    kept = [each for each in trained if each.is_base]
    assert len(kept) >= 6  # chance gets one in ten
    model = kept[0].embed_model()
    np.testing.assert_allclose(model.get_query_embedding("word1 word2"), vector_of("word1 word2"), atol=1e-6)
    card = (kept[0].folder / "README.md").read_text()
    assert f"leaves the vectors of {kept[0].record['base_model']} unchanged, because " in card
    assert "changes queries" not in card
    assert str(kept[0]).startswith("The embedding is kept unchanged: ")


def test_an_adapter_that_loses_on_unseen_documents_is_refused() -> None:
    ids = [f"q{n}" for n in range(60)]
    dev = DevQuestions(
        query_ids=ids, query_texts=ids, passage_ids=ids, passage_texts=ids, qrels={key: {key: 1} for key in ids},
        sources=["real"] * 60, groups=list(range(60)), documents=["seen"] * 30 + ["unseen"] * 30,
    )  # fmt: skip
    noise = np.random.default_rng(0).normal(0, 0.1, 60)
    differences = np.repeat([0.2, -0.01], 30) + noise - np.repeat([noise[:30].mean(), noise[30:].mean()], 30)
    base = Candidate(name="base", alpha=0.0, values=np.full(60, 0.4))
    policy = Policy(reject_any_loss=True, correct_for_multiple=True)
    one = select(base, [Candidate(name="pull 3", alpha=1.0, values=base.values + differences)], dev, policy)
    assert one.refused == {"pull 3": "it loses on one part of the dev questions (real, unseen documents: -0.010)"}
    other = select(base, [Candidate(name="pull 3", alpha=1.0, values=base.values + differences + 0.02)], dev, policy)
    assert other.name == "pull 3"


def test_the_same_seed_gives_the_same_adapter(tmp_path: Path, trained: Any) -> None:
    again = train_adapter(jargon_dataset(), words(), tmp_path / "a", cache=False)
    assert again.dev == trained.dev
    assert again.record["adapter"]["sha256"] == trained.record["adapter"]["sha256"]


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(["linear", "low-rank", "residual"]),
    dimension=st.integers(1, 40),
    rank=st.integers(1, 50),
    alpha=st.floats(0, 1),
    length=st.floats(0.01, 100),
)
def test_every_map_starts_as_the_identity(kind: str, dimension: int, rank: int, alpha: float, length: float) -> None:
    vectors = torch.randn(5, dimension) * length
    torch.testing.assert_close(make_map(kind, dimension, rank)(vectors), vectors)
    torch.testing.assert_close(apply_map(make_map(kind, dimension, rank), vectors, alpha), vectors)


@settings(max_examples=10, deadline=None)
@given(pairs=st.integers(1, 8), passages=st.integers(1, 12), seed=st.integers(0, 100), both=st.booleans())
def test_a_fit_ends_in_finite_numbers(pairs: int, passages: int, seed: int, both: bool) -> None:
    draw = np.random.default_rng(seed)

    def unit(rows: int) -> np.ndarray:
        found = draw.normal(size=(rows, 6)).astype(np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    # All passages may answer a question, so that nothing is left to compare with.
    answers = [(row, place) for row in range(pairs) for place in range(passages) if draw.random() < 0.7]
    examples = AdapterExamples(
        queries=unit(pairs),
        passages=unit(passages),
        positives=draw.integers(passages, size=pairs),
        answers=np.asarray(answers, dtype=np.int64).reshape(-1, 2),
    )
    recipe = AdapterRecipe(pulls=(1.0, 0.0), map_passages=both, seed=seed)
    for _, module in fit_path(make_map("linear", 6), examples, recipe):
        assert all(torch.isfinite(value).all() for value in module.state_dict().values())


def test_an_answer_is_never_its_own_negative() -> None:
    # One passage, that answers: its score is no part of the comparison, so the map does not move.
    vector = np.eye(1, 6, dtype=np.float32)
    examples = AdapterExamples(queries=vector, passages=vector, positives=np.array([0]), answers=np.array([[0, 0]]))
    ((_, module),) = fit_path(make_map("linear", 6), examples, AdapterRecipe(pulls=(0.0,)))
    torch.testing.assert_close(module(torch.eye(6)), torch.eye(6))


def test_the_old_index_goes_on_serving(trained: Any) -> None:
    dataset, client = jargon_dataset(), chromadb.EphemeralClient()
    nodes = nodes_from_texts(dataset.passage_texts, {key: p.document for key, p in dataset.passages.items()})
    rebuild_index(nodes, words(), client, "adapters")
    adapter = trained.embed_model()
    retriever = open_index(adapter, client, "adapters").as_retriever(similarity_top_k=5)
    before = open_index(words(), client, "adapters").as_retriever(similarity_top_k=5)

    def hits(found: Any) -> float:
        asked = dataset.qrels["test"]
        return np.mean([
            any(node.node_id in relevant for node in found.retrieve(dataset.queries[query].text))
            for query, relevant in asked.items()
        ])  # fmt: skip

    assert hits(retriever) > hits(before) + 0.2
    # Passages are those of the embedding, so that an insert through the adapter is one of its own.
    index = open_index(adapter, client, "adapters")
    index.insert_nodes([TextNode(id_="new", text="word1 word2 word3")])
    assert len(asyncio.run(index.as_retriever(similarity_top_k=2).aretrieve("jargon1 jargon2"))) == 2


def test_an_index_refuses_the_adapter_of_another_embedding(trained: Any, tmp_path: Path) -> None:
    client = chromadb.EphemeralClient()
    nodes = nodes_from_texts(jargon_dataset().passage_texts, {})
    other = FineTunedEmbedding.load("local")
    rebuild_index([TextNode(text="A Kittiwake is an expenses claim.")], other, client, "others")
    with pytest.raises(ContractError, match=r"holds vectors of .*MiniLM.*, but the model is Words words"):
        open_index(trained.embed_model(), client, "others")
    recipe = AdapterRecipe(map_passages=True)
    both = train_adapter(jargon_dataset(), words(), tmp_path / "both", recipe=recipe, cache=False).embed_model()
    rebuild_index(nodes, words(), client, "plain")
    with pytest.raises(ContractError, match=r"they differ in adapter '' and '[0-9a-f]{12}'"):
        open_index(both, client, "plain")
    rebuild_index(nodes, both, client, "both")
    with pytest.raises(ContractError, match="they differ in adapter"):
        open_index(trained.embed_model(), client, "both")
    assert open_index(both, client, "both").as_retriever().retrieve("jargon1 jargon2 jargon3")
    # Nor does a vector of the wrong side pass at a query.
    index = open_index(trained.embed_model(), client, "plain")
    index._embed_model = both
    with pytest.raises(ContractError, match="adapter"):
        index.as_retriever().retrieve("jargon1")


def test_an_adapter_belongs_to_one_embedding(trained: Any) -> None:
    with pytest.raises(ContractError, match=r"belongs to Words words, but the embedding is Words words: they differ"):
        AdapterEmbedding.load(trained.folder, words(version=1))
    with pytest.raises(ContractError, match=r"the embedding is FineTunedEmbedding .*MiniLM-L6-v2: they differ in"):
        AdapterEmbedding.load(trained.folder, FineTunedEmbedding.load("local"))
    adapter = trained.embed_model()
    adapter.embed_model = FineTunedEmbedding.load("local")  # behind its back
    with pytest.raises(ContractError, match=r"was loaded over Words words, but a vector comes from .*MiniLM"):
        adapter.get_query_embedding("jargon1")


def test_it_is_a_llama_index_component(trained: Any) -> None:
    adapter = trained.embed_model()
    query = adapter.get_query_embedding("jargon1 jargon2")
    assert len(query) == DIMENSION
    assert mark_of(query) == adapter.contract
    assert query != vector_of("jargon1 jargon2")
    np.testing.assert_allclose(adapter.get_text_embedding("word1"), vector_of("word1"), atol=1e-6)
    many = adapter.get_text_embedding_batch(["word1", "word2"])
    np.testing.assert_allclose(many, [vector_of("word1"), vector_of("word2")], atol=1e-6)

    async def asked() -> Any:
        return (
            await adapter.aget_query_embedding("jargon1 jargon2"),
            await adapter.aget_text_embedding("word1"),
            await adapter.aget_text_embedding_batch(["word1", "word2"]),
            await adapter.aget_agg_embedding_from_queries(["jargon1 jargon2"]),
        )

    one, text, texts, mean = asyncio.run(asked())
    assert (one, text, texts) == (query, adapter.get_text_embedding("word1"), many)
    assert mean == query == adapter.get_agg_embedding_from_queries(["jargon1 jargon2"])
    values = adapter.to_dict()
    assert values["class_name"] == AdapterEmbedding.class_name() == "AdapterEmbedding"
    assert json.loads(adapter.to_json())["model_name"] == str(trained.folder)
    again = AdapterEmbedding.from_dict(values, embed_model=words())
    assert again.get_query_embedding("jargon1 jargon2") == query
    assert pickle.loads(pickle.dumps(adapter)).get_query_embedding("jargon1 jargon2") == query


def test_settings_name_the_embedding_below(trained: Any) -> None:
    before = Settings._embed_model
    try:
        Settings.embed_model = words()
        adapter = AdapterEmbedding.load(trained.folder)
        Settings.embed_model = adapter
        assert len(adapter.get_query_embedding("jargon1")) == DIMENSION
        Settings.embed_model = lost = AdapterEmbedding(model_name=str(trained.folder))
        with pytest.raises(InputError, match="has no underlying embedding"):
            lost.get_query_embedding("jargon1")
    finally:
        Settings._embed_model = before


class TwoLayers(torch.nn.Module):
    def __init__(self, dimension: int = DIMENSION) -> None:
        super().__init__()
        self.one, self.two = torch.nn.Linear(dimension, 40), torch.nn.Linear(40, dimension)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return vectors + self.two(torch.relu(self.one(vectors)))


def test_a_module_of_the_users_own(tmp_path: Path) -> None:
    recipe = AdapterRecipe(module=TwoLayers())
    trained = train_adapter(jargon_dataset(), words(), tmp_path / "a", recipe=recipe, cache=False)
    assert trained.record["adapter"]["kind"] == "custom"
    assert trained.record["adapter"]["module"].endswith("TwoLayers")
    found = trained.embed_model().get_query_embedding("jargon1")
    again = AdapterEmbedding.load(tmp_path / "a", words(), module=TwoLayers())
    assert again.get_query_embedding("jargon1") == found
    with pytest.raises(InputError, match=r"your own module \(test_train_adapter.TwoLayers\): pass it"):
        AdapterEmbedding.load(tmp_path / "a", words())
    with pytest.raises(InputError, match="does not fit the adapter"):
        AdapterEmbedding.load(tmp_path / "a", words(), module=torch.nn.Linear(3, 3))
    recipe = AdapterRecipe(module=torch.nn.Linear(DIMENSION, 3))
    with pytest.raises(InputError, match="turns 64 numbers into 3: keep the dimension"):
        train_adapter(jargon_dataset(), words(), tmp_path / "b", recipe=recipe, cache=False)
    assert not (tmp_path / "b").exists()


def test_folders_without_an_adapter_are_refused(trained: Any, tmp_path: Path) -> None:
    assert is_adapter(trained.folder)
    assert not is_adapter(tmp_path)
    with pytest.raises(InputError, match="is not an adapter"):
        AdapterEmbedding.load(tmp_path, words())
    with pytest.raises(InputError, match="is an adapter: load it with AdapterEmbedding"):
        FineTunedEmbedding.load(trained.folder)
    for name, content, said in (
        ("rag_ft.json", "{", "not valid JSON"),
        ("rag_ft.json", '{"adapter": {}}', "does not describe the adapter"),
        ("adapter.safetensors", "rubbish", "does not hold the expected weights"),
        ("probe.safetensors", "rubbish", "cannot be read"),
    ):
        folder = tmp_path / f"broken-{name}-{len(content)}"
        folder.mkdir()
        for file in Path(trained.folder).iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        (folder / name).write_text(content)
        with pytest.raises(InputError, match=said):
            AdapterEmbedding.load(folder, words())


@pytest.mark.parametrize("pulls", [(), (-1.0,)])
def test_pulls_that_make_no_sense_are_refused(pulls: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="pulls are"):
        AdapterRecipe(pulls=pulls)


def test_bad_input_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is in the way"):
        train_adapter(jargon_dataset(), words(), tmp_path / "mine", cache=False)
    with pytest.raises(InputError, match="no questions in split 'train'"):
        train_adapter(jargon_dataset().with_qrels({}), words(), tmp_path / "a", cache=False)
