"""Whether fine-tuning is worth it: each answer with its reason."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rag_ft import (
    FineTunedEmbedding,
    InputError,
    Passage,
    QADataset,
    Query,
    check,
    compare,
    cut_into_nodes,
    read_documents,
    train_model,
)
from rag_ft.checkup import _decide
from rag_ft.cli import app
from rag_ft.dataset import read_questions, write_beir
from rag_ft.dataset.text.sketch import sketch_of
from rag_ft.embedding.loading import load_sentence_transformer
from rag_ft.embedding.saving import save_model

SYLLABLES = ["ka", "lo", "mi", "ten", "ru", "sa", "vo", "pli", "gar", "nu"]


def jargon(pairs: int, hard: bool, train: int = 0) -> QADataset:
    """Passages about invented things; hard questions use other invented names."""
    draw = random.Random(0)
    passages, queries = {}, {}
    for n in range(pairs):
        name = "".join(draw.choices(SYLLABLES, k=4))
        other = "".join(draw.choices(SYLLABLES, k=4)) if hard else name
        passages[f"p{n}"] = Passage(f"p{n}", f"The {name} number {n * 7919 % 1000} is kept by the team of {name}s.")
        queries[f"q{n}"] = Query(f"q{n}", f"Who looks after the {other}?")
    rows = {f"q{n}": {f"p{n}": 1} for n in range(pairs)}
    items = list(rows.items())
    return QADataset(passages, queries, {"train": dict(items[:train]), "test": dict(items[train:])})


def test_tuning_is_worth_it_if_the_base_model_does_badly() -> None:
    found = check(jargon(700, hard=True, train=600), "local")
    assert found.answer == "worth it"
    assert found.figures["base"]["ndcg@10"] < 0.3
    assert found.minutes is not None
    assert "retrieval does badly here" in str(found)
    assert found.questions == 100


def test_tuning_is_not_worth_it_if_the_base_model_does_well() -> None:
    found = check(jargon(120, hard=False), "local")
    assert found.answer == "not worth it"
    assert "already does well here" in found.reasons[0]
    assert found.figures["bm25"]["ndcg@10"] > 0.9


def test_thirty_questions_cannot_tell() -> None:
    found = check(jargon(30, hard=True), "local")
    assert found.answer == "cannot tell"
    assert "30 questions are too few" in found.reasons[0]


def test_a_model_that_was_tuned_on_the_corpus_is_recognised(tmp_path: Path) -> None:
    dataset = jargon(700, hard=True, train=600)
    training = {"share": 1.0, "pairs": 600, "seconds": 1.0, "corpus": sketch_of(dataset.passage_texts.values())}
    save_model(load_sentence_transformer("local"), tmp_path / "m", "local", {"training": training})
    found = check(dataset, str(tmp_path / "m"))
    assert found.answer == "not worth it"
    assert "already tuned on this corpus (100%" in found.reasons[0]
    assert check(jargon(120, hard=True), str(tmp_path / "m")).answer != "not worth it"


@pytest.mark.parametrize(
    ("base_ndcg", "questions", "pairs", "answer"),
    [(0.4, 100, 600, "worth it"), (0.4, 100, 90, "perhaps"), (0.4, 100, 0, "worth it"), (0.8, 100, 600, "perhaps"),
     (0.9, 100, 600, "not worth it"), (0.4, 49, 600, "cannot tell")],
)  # fmt: skip
def test_the_rules(base_ndcg: float, questions: int, pairs: int, answer: str) -> None:
    figures = {"base": {"ndcg@10": base_ndcg, "recall@10": base_ndcg + 0.05}}
    decided, reasons = _decide(figures, "base", questions, pairs, 0.0)
    assert decided == answer
    assert reasons


def test_tuning_is_not_worth_it_if_bm25_does_well() -> None:
    figures = {"base": {"ndcg@10": 0.6, "recall@10": 0.7}, "bm25": {"ndcg@10": 0.984, "recall@10": 1.0}}
    assert _decide(figures, "bm25", 500, 2000, 0.0)[0] == "not worth it"


def test_a_check_up_has_the_figures_and_the_choice_of_a_comparison() -> None:
    dataset = jargon(700, hard=False, train=500)
    found = check(dataset, "local")
    comparison = compare(dataset, FineTunedEmbedding.load("local"), "bm25")
    for role, name in (("baseline", "base"), ("candidate", "bm25"), ("hybrid-baseline", "hybrid")):
        assert found.figures[name] == pytest.approx(comparison.models[role])
    assert comparison.conclusion is not None
    assert comparison.conclusion.kind == {"base": "embedding"}.get(found.use, found.use)
    assert str(found).startswith("Use ")


def test_real_questions_are_the_test_questions(acme: Path) -> None:
    nodes = cut_into_nodes(read_documents(acme / "documents"))
    asked = read_questions(acme / "questions.jsonl")
    found = check(nodes, "local", questions=asked)
    assert found.questions > 100
    assert found.generated == 0
    with pytest.raises(InputError, match="together with a dataset"):
        check(jargon(60, hard=True), "local", questions=asked)


def test_a_check_up_plans_the_training_that_it_foresees(tmp_path: Path) -> None:
    dataset = jargon(700, hard=True, train=600)
    minutes = check(dataset, "local").minutes
    assert minutes is not None
    trained = train_model(dataset, tmp_path / "m", "local")
    # The time itself belongs to the benchmark. Here the unit and the order of magnitude are tested.
    assert 0.2 < minutes * 60 / trained.record["training"]["seconds"] < 5


def test_the_command_takes_documents_and_datasets(tmp_path: Path) -> None:
    data = write_beir(jargon(60, hard=True), tmp_path / "data")
    figures = tmp_path / "check.json"
    result = CliRunner().invoke(app, ["check", str(data), "--base-model", "local", "--json", str(figures), "--quiet"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert result.output.startswith("Not decided")
    assert "Fine-tuning: worth it" in result.output
    assert '"answer": "worth it"' in figures.read_text()
    docs = tmp_path / "docs"
    docs.mkdir()
    for n in range(40):
        text = f"The crane at quay {n} is greased by keeper {n * 7}. Keepers of crane {n} log at pier {n + 3}."
        (docs / f"{n}.md").write_text(f"# Machine {n}\n\n{text}")
    result = CliRunner().invoke(app, ["check", str(docs), "--base-model", "local", "--quiet"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert "generated" in result.output
