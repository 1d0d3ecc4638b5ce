"""Candidates of every kind on the same questions: embeddings, BM25, hybrids, LlamaIndex retrievers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakes.embeddings import Hashed
from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from typer.testing import CliRunner

from rag_ft import FineTunedEmbedding, InputError, OutsideError, Passage, QADataset, Query, compare
from rag_ft.cli import app
from rag_ft.dataset.text.sketch import QUESTION_SKETCH_SIZE, sketch_of
from rag_ft.evaluation import CompareOptions, Comparison, Hybrid
from rag_ft.evaluation.runs.dev_fusion import learn_fusion_of, question_hash
from rag_ft.retrieval import Fusion, RerankedRetriever, exact
from rag_ft.retrieval.exact import passage_vectors

MODEL = Hashed(model_name="hashed")
ALONE = CompareOptions(hybrids=False)


@pytest.fixture(scope="module")
def harbour() -> QADataset:
    """60 documents of one passage each; questions name its form: 60 in dev, and in other words in test."""
    passages = {f"p{n}": Passage(f"p{n}", f"Form T-{n} is signed by master {n}.", "", f"d{n}") for n in range(60)}
    queries = {f"q{n}": Query(f"q{n}", f"Where is T-{n} signed?") for n in range(60)}
    queries |= {f"v{n}": Query(f"v{n}", f"Which desk signs T-{n}?") for n in range(60)}
    return QADataset(passages, queries, {
        "dev": {f"v{n}": {f"p{n}": 1} for n in range(60)}, "test": {f"q{n}": {f"p{n}": 1} for n in range(60)},
    })  # fmt: skip


def test_every_comparison_has_bm25_and_hybrids(harbour: QADataset, tmp_path: Path) -> None:
    """Vectors without meaning: the fusion that is learned on dev prefers BM25."""
    found = compare(harbour, MODEL, Hashed(model_name="other"))
    assert list(found.models) == ["baseline", "candidate", "hybrid-baseline", "hybrid-candidate", "bm25"]
    assert found.models["bm25"]["ndcg@10"] > 0.9
    fusion = found.details["hybrid-candidate"]["fusion"]
    assert fusion["weight"] <= 0.5
    assert found.details["hybrid-candidate"]["fusion_learned_on"] == 60
    assert found.models["hybrid-candidate"]["ndcg@10"] > found.models["candidate"]["ndcg@10"] + 0.3
    assert found.conclusion is not None
    assert found.conclusion.role == "bm25"
    assert found.candidates == ["candidate"]  # only the given candidates get a verdict
    file = found.save(tmp_path / "comparison.json")
    assert Comparison.load(file).conclusion == found.conclusion
    assert json.loads(file.read_text())["models"]["bm25"]["index_megabytes"] >= 0


def test_any_retriever_is_a_candidate(harbour: QADataset) -> None:
    nodes = [TextNode(id_=key, text=text) for key, text in harbour.passage_texts.items()]
    retriever = VectorStoreIndex(nodes, embed_model=MODEL).as_retriever(similarity_top_k=10)
    found = compare(harbour, "bm25", [retriever, Hybrid(MODEL, Fusion("zscore", 0.0))], options=ALONE)
    assert list(found.models) == ["baseline", "candidate", "candidate-2"]
    assert found.models["candidate-2"]["ndcg@10"] == pytest.approx(found.models["baseline"]["ndcg@10"])
    assert found.names["candidate-2"] == "hybrid:hashed"
    assert found.names["baseline"] == "bm25"


class ByName(BaseNodePostprocessor):
    """Ranks the passage first that names the question's form."""

    @classmethod
    def class_name(cls) -> str:
        return "ByName"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        words = set(query_bundle.query_str.rstrip("?").split()) if query_bundle else set()
        return sorted(nodes, key=lambda node: -len(words & set(node.node.get_content().split())))


def test_a_reranker_is_a_candidate_with_its_latency(harbour: QADataset) -> None:
    nodes = [TextNode(id_=key, text=text) for key, text in harbour.passage_texts.items()]
    plain = VectorStoreIndex(nodes, embed_model=MODEL).as_retriever(similarity_top_k=60)
    found = compare(harbour, plain, RerankedRetriever(plain, [ByName()]), options=ALONE)
    assert found.names["candidate"] == "VectorIndexRetriever > ByName"
    assert found.models["candidate"]["hit_rate@1"] > found.models["baseline"]["hit_rate@1"] + 0.5
    assert found.details["candidate"]["query_milliseconds"] > 0
    assert found.verdict == "ship"


class Wrong(BaseRetriever):
    """Finds a node that is in no dataset, or fails."""

    def __init__(self, fails: bool) -> None:
        self.fails = fails
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if self.fails:
            raise ConnectionError("no answer")
        return [NodeWithScore(node=TextNode(id_="elsewhere", text="x"))]


def test_a_retriever_over_other_nodes_is_refused(harbour: QADataset) -> None:
    with pytest.raises(InputError, match="'elsewhere', which is not a passage"):
        compare(harbour, MODEL, Wrong(fails=False))
    with pytest.raises(OutsideError, match="the retriever Wrong failed"):
        compare(harbour, MODEL, Wrong(fails=True))


def test_a_fusion_is_never_learned_on_the_compared_questions(harbour: QADataset) -> None:
    only_test = harbour.with_qrels({"test": harbour.qrels["test"]})
    assert compare(only_test, MODEL, MODEL).details["hybrid-candidate"]["fusion"] == Fusion().to_dict()
    assert compare(harbour, MODEL, MODEL, split="dev").details["hybrid-candidate"]["fusion"] == Fusion().to_dict()
    with pytest.raises(InputError, match="0 dev questions"):
        learn_fusion_of(only_test, MODEL)


def test_a_stored_fusion_that_was_chosen_on_the_compared_questions_is_not_used(harbour: QADataset) -> None:
    class Remembering(Hashed):
        @property
        def fusion(self) -> dict:
            asked = [question_hash(harbour.queries["q3"].text)]
            return Fusion("min_max", 0.1).to_dict() | {"asked": asked}

    found = compare(harbour, MODEL, Remembering(model_name="remembering"))
    assert found.details["hybrid-candidate"]["fusion_learned_on"] == 60


def test_the_fusion_of_a_model_folder_is_used(harbour: QADataset, tmp_path: Path) -> None:
    """`rag-ft fuse` writes it, `compare --candidate hybrid:MODEL` reads it; the contract is the same as before."""
    from rag_ft import FineTunedEmbedding
    from rag_ft.dataset import write_beir
    from rag_ft.embedding.loading import load_sentence_transformer
    from rag_ft.embedding.saving import save_model

    folder, data = tmp_path / "model", tmp_path / "data"
    model = load_sentence_transformer("local")
    model.prompts |= {"query": "", "document": ""}
    save_model(model, folder, "local")
    write_beir(harbour, data)
    contract = FineTunedEmbedding.load(folder).contract
    run = CliRunner().invoke(app, ["fuse", str(data), "--model", str(folder), "--quiet"])
    assert run.exit_code == 0, run.output
    assert "on 60 dev questions" in run.output
    embedding = FineTunedEmbedding.load(folder)
    assert embedding.contract == contract
    assert embedding.fusion is not None
    written = tmp_path / "comparison.json"
    sides = ["--baseline", "bm25", "--candidate", f"hybrid:{folder}"]
    run = CliRunner().invoke(app, ["compare", str(data), *sides, "--json", str(written), "--quiet"])
    assert run.exit_code == 0, run.output
    assert (
        json.loads(written.read_text())["models"]["candidate"]["fusion"] == Fusion.from_dict(embedding.fusion).to_dict()
    )


def test_passages_embedded_in_batches_have_the_same_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"Form T-{n} is signed by master {n}." for n in range(10)]
    whole = passage_vectors(MODEL, texts)
    monkeypatch.setattr(exact, "PASSAGE_BATCH_SIZE", 3)
    assert (passage_vectors(MODEL, texts, show_progress=True) == whole).all()
    assert passage_vectors(MODEL, []).shape == (0, 0)


class Tuned(Hashed):
    """An embedding that tells what it was trained on, as a model folder does."""

    questions: list[str]
    share: float = 1.0
    base_model: str = ""
    gain: float = 0.0

    @property
    def record(self) -> dict[str, Any]:
        training: dict[str, Any] = {"questions": sketch_of(self.questions, QUESTION_SKETCH_SIZE), "share": self.share}
        if self.gain:
            training |= {"gain": {"mean": self.gain}, "dev_makings": {"key phrases": 70}, "dev_ndcg@10": {}}
        return {"training": training, "base_model": self.base_model}


def test_a_model_is_not_tested_on_what_it_was_trained_on(harbour: QADataset) -> None:
    texts = [harbour.queries[query].text for query in harbour.qrels["test"]]
    with pytest.raises(InputError, match=r"tuned was trained on 20% of the test questions"):
        compare(harbour, MODEL, Tuned(model_name="tuned", questions=texts[:12]), options=ALONE)
    with pytest.raises(InputError, match=r"tuned was trained on 100% of the test questions"):
        compare(harbour, MODEL, Hybrid(Tuned(model_name="tuned", questions=texts), Fusion()), options=ALONE)
    few = compare(harbour, MODEL, Tuned(model_name="tuned", questions=[*texts[:3], "another"]), options=ALONE)
    assert "The candidate (tuned) was trained on 5.0% of these questions." in few.notes
    base = compare(harbour, MODEL, Tuned(model_name="tuned", questions=texts, share=0.0), options=ALONE)
    assert not any("trained on" in note for note in base.notes)


def test_a_gain_on_dev_that_does_not_show_is_noted(harbour: QADataset) -> None:
    name = "sentence-transformers/all-MiniLM-L6-v2"
    baseline = FineTunedEmbedding.load("local")
    gained = Tuned(model_name="tuned", questions=[], gain=0.08, base_model=name)
    found = compare(harbour, baseline, gained, options=ALONE)
    difference = found.differences["candidate"]["ndcg@10"].mean
    assert difference < 0
    note_start = (
        f"The candidate (tuned) gained +0.080 on its dev questions (70 key phrases) and {difference:+.3f} on these"
    )
    assert any(note.startswith(note_start) for note in found.notes)
    hardly = gained.model_copy(update={"gain": 0.01})
    for before, after in (
        (baseline, hardly),
        (MODEL, gained),
        (gained, gained),
    ):  # a small gain, or another starting point: no note
        notes = compare(harbour, before, after, options=ALONE).notes
        assert not any("on its dev questions" in note for note in notes)


def test_a_change_of_the_base_model_is_noted(harbour: QADataset) -> None:
    baseline = FineTunedEmbedding.load("local")
    other = Tuned(model_name="tuned", questions=[], base_model="BAAI/bge-small-en-v1.5")
    notes = compare(harbour, baseline, other, options=ALONE).notes
    note_part = "was tuned from BAAI/bge-small-en-v1.5, and the baseline is sentence-transformers/all-MiniLM-L6-v2"
    assert sum(note_part in note for note in notes) == 1
    for name in ("sentence-transformers/all-MiniLM-L6-v2", "models/all-MiniLM-L6-v2"):
        same = Tuned(model_name="tuned", questions=[], base_model=name)
        assert not any("tuned from" in note for note in compare(harbour, baseline, same, options=ALONE).notes)
