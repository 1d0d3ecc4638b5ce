"""A teacher into a smaller student, of its own family and of another one; and going on from a tuned model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rag_ft import InputError, QADataset, cut_into_nodes, generate_qa_dataset, read_documents, train_model
from rag_ft.embedding.encoding import encode
from rag_ft.embedding.loading import load_sentence_transformer, local_model_folder
from rag_ft.generation import read_questions
from rag_ft.training.examples.distillation import RANDOM_NEGATIVES, ranking_examples, vector_examples
from rag_ft.training.examples.training_example import TrainingExample
from rag_ft.training.loop.principal_axes import onto_principal_axes
from rag_ft.training.selection.dev_set import DevQuestions


@pytest.fixture(scope="module")
def policies(acme: Path) -> QADataset:
    """Questions about all policies of the demo: a student that knows nothing needs more than a few of them."""
    nodes = cut_into_nodes(read_documents(acme / "documents"))
    questions = read_questions(acme / "questions.jsonl")
    return generate_qa_dataset(nodes, use_llm=False, questions=questions).dataset


@pytest.fixture(scope="module")
def two_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first two of MiniLM's six layers: a third of the work, and hardly a model yet."""
    model = load_sentence_transformer("local")
    inner = model[0].auto_model
    inner.encoder.layer = torch.nn.ModuleList(list(inner.encoder.layer)[:2])
    inner.config.num_hidden_layers = 2
    folder = tmp_path_factory.mktemp("student") / "two"
    model.save(str(folder), create_model_card=False)
    return folder


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another family, without a transformer: the mean of one vector of 128 numbers for each token."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    torch.manual_seed(0)
    tokenizer = Tokenizer.from_file(str(local_model_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    folder = tmp_path_factory.mktemp("student") / "static"
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=128)]).save(
        str(folder), create_model_card=False
    )
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("loss", [None, "kl", "margin-mse"])
def test_a_student_comes_nearer_to_its_teacher(
    policies: QADataset, two_layers: Path, tmp_path: Path, loss: str | None
) -> None:
    settings = {} if loss is None else {"loss": loss}
    trained = train_model(policies, tmp_path / "m", str(two_layers), teacher="local", max_length=64, settings={"epochs": 2, "batch_size": 32, "learning_rate": 3e-4, **settings})  # fmt: skip
    assert trained.record["recipe"]["loss"] == (loss or "mse")
    beside = trained.record["training"]["teacher"]
    assert trained.dev["base"] + 0.01 < max(trained.dev.values())
    assert beside["student"] >= trained.dev["base"]
    assert beside["dev_ndcg@10"] > trained.dev["base"]
    assert beside["times_faster"] > 1.2


@pytest.mark.slow
def test_a_student_of_another_family_and_dimension_learns(policies: QADataset, static: Path, tmp_path: Path) -> None:
    trained = train_model(
        policies,
        tmp_path / "m",
        str(static),
        teacher="local",
        settings={"epochs": 20, "batch_size": 32, "learning_rate": 0.05},
    )
    assert max(trained.dev.values()) > trained.dev["base"] + 0.05
    assert trained.record["dimension"] == 128
    assert trained.record["training"]["teacher"]["times_faster"] > 5


def test_longer_vectors_keep_their_cosines_on_fewer_axes() -> None:
    draw = np.random.default_rng(0)
    inner = draw.normal(size=(200, 8)) @ draw.normal(size=(8, 64))
    vectors = (inner / np.linalg.norm(inner, axis=1, keepdims=True)).astype(np.float32)
    queries, passages = onto_principal_axes(vectors[:50], vectors[50:], 8)
    assert passages.shape == (150, 8)
    assert np.allclose(queries @ passages.T, vectors[:50] @ vectors[50:].T, atol=1e-3)


def test_every_passage_that_training_may_see_is_taught(dataset: QADataset) -> None:
    teacher = load_sentence_transformer("local", max_length=32)
    found = vector_examples(dataset, teacher, 384)
    documents = dataset.documents_of(dataset.qrels["train"], "train")
    texts = {text for key, text in dataset.passage_texts.items() if dataset.passages[key].document in documents}
    assert {pair.positive for pair in found} == texts
    assert {pair.anchor for pair in found} == {dataset.queries[query].text for query in dataset.qrels["train"]}
    label = np.asarray(found[0].label)
    assert label.shape == (2, 384)
    assert np.allclose(label[1], encode(teacher, [found[0].positive], "document")[0], atol=0.02)


def test_a_teacher_ranks_some_far_passages_too() -> None:
    pairs = [
        TrainingExample(f"Who signs form {n}?", f"Form {n} is signed in harbour {n}.", negatives=("near",))
        for n in range(5)
    ]
    teacher = load_sentence_transformer("local", max_length=32)
    found = ranking_examples(pairs, teacher)
    for pair in found:
        assert pair.negatives[0] == "near"
        assert len(pair.negatives) == 1 + RANDOM_NEGATIVES == len(pair.label) - 1
        assert pair.positive not in pair.negatives
    assert found == ranking_examples(pairs, teacher)
    assert len(ranking_examples(pairs[:2], teacher)[0].negatives) == 1  # there are no others


def half(dataset: QADataset, which: int) -> QADataset:
    """Every second document, with the questions on it."""
    documents = set(list(dataset.documents)[which::2])
    qrels = {
        split: {q: grades for q, grades in part.items() if dataset.passages[next(iter(grades))].document in documents}
        for split, part in dataset.qrels.items()
    }
    return dataset.with_qrels(qrels)


@pytest.mark.slow
def test_a_tuned_model_goes_on_with_new_questions_and_knows_its_past(dataset: QADataset, tmp_path: Path) -> None:
    quick = {"epochs": 1, "batch_size": 32, "max_length": 64, "shares": (1.0,)}
    earlier, later = half(dataset, 0), half(dataset, 1)
    first = train_model(earlier, tmp_path / "first", "local", max_pairs=32, settings=quick)  # type: ignore[arg-type]
    second = train_model(
        later, tmp_path / "second", continue_from=tmp_path / "first", earlier=earlier, max_pairs=32, settings=quick
    )
    record = json.loads((tmp_path / "second" / "rag_ft.json").read_text())
    assert record["base_model"] == first.record["base_model"]
    assert [each["weights_sha256"] for each in record["generations"]] == [first.record["weights_sha256"]]
    assert any(source.startswith("earlier ") for source in second.record["training"]["dev_makings"])
    third = train_model(later, tmp_path / "third", continue_from=tmp_path / "second", max_pairs=32, settings=quick)
    assert len(third.record["generations"]) == 2


@pytest.mark.slow
def test_going_on_learns_the_new_and_keeps_the_old(dataset: QADataset, tmp_path: Path) -> None:
    earlier, later = half(dataset, 0), half(dataset, 1)
    settings = {"max_length": 128, "epochs": 3, "batch_size": 32, "shares": (1.0, 0.5)}
    first = train_model(earlier, tmp_path / "first", "local", settings=settings)  # type: ignore[arg-type]
    trained = train_model(
        later, tmp_path / "second", continue_from=tmp_path / "first", earlier=earlier, settings=settings
    )
    epochs = [score for name, score in trained.dev.items() if name.startswith("epoch")]
    assert max(epochs) > trained.dev["base"]
    folders = ("local", str(first.folder), str(trained.folder))
    models = [load_sentence_transformer(name, max_length=128) for name in folders]
    asked = [DevQuestions.of(side.with_qrels({"dev": side.qrels["test"]})) for side in (earlier, later)]
    old, new = ([float(questions.values(model).mean()) for model in models] for questions in asked)
    assert old[2] > max(old[:2]) - 0.02
    assert new[2] > max(new[:2]) + 0.01


def test_only_a_model_of_ours_can_be_gone_on_from(dataset: QADataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="was not tuned by rag_ft"):
        train_model(dataset, tmp_path / "m", continue_from=local_model_folder())
