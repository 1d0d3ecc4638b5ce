"""Distillation into smaller students, and continuing from a tuned model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rag_ft import InputError, QADataset, cut_into_nodes, generate_qa_dataset, read_documents, train_model
from rag_ft.dataset import read_questions
from rag_ft.embedding.encoding import encode
from rag_ft.embedding.loading import load_sentence_transformer, local_model_folder
from rag_ft.training.examples.distillation import RANDOM_NEGATIVES, ranking_examples
from rag_ft.training.examples.training_example import TrainingExample
from rag_ft.training.loop.principal_axes import onto_principal_axes
from rag_ft.training.plan import examples_for
from rag_ft.training.prepare import Choices, prepare
from rag_ft.training.selection.dev_set import DevQuestions


@pytest.fixture(scope="module")
def policies(acme: Path) -> QADataset:
    """Questions about all policies of the demo, because an untrained student needs many."""
    nodes = cut_into_nodes(read_documents(acme / "documents"))
    questions = read_questions(acme / "questions.jsonl")
    return generate_qa_dataset(nodes, use_llm=False, questions=questions).dataset


@pytest.fixture(scope="module")
def two_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first two of MiniLM's six layers, which retrieve badly without training."""
    model = load_sentence_transformer("local")
    inner = model[0].auto_model
    inner.encoder.layer = torch.nn.ModuleList(list(inner.encoder.layer)[:2])
    inner.config.num_hidden_layers = 2
    folder = tmp_path_factory.mktemp("student") / "two"
    model.save(str(folder), create_model_card=False)
    return folder


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static embedding, which is another family: the mean of one vector of 128 numbers for each token."""
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
def test_a_student_improves_with_each_distillation_loss(
    policies: QADataset, two_layers: Path, tmp_path: Path, loss: str | None
) -> None:
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 32, "learning_rate": 3e-4, "loss": loss}
    trained = train_model(policies, tmp_path / "m", str(two_layers), teacher="local", max_length=64, settings=settings)
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


def test_longer_vectors_keep_their_cosines_on_their_principal_axes() -> None:
    draw = np.random.default_rng(0)
    inner = draw.normal(size=(200, 8)) @ draw.normal(size=(8, 64))
    vectors = (inner / np.linalg.norm(inner, axis=1, keepdims=True)).astype(np.float32)
    queries, passages = onto_principal_axes(vectors[:50], vectors[50:], 8)
    assert passages.shape == (150, 8)
    assert np.allclose(queries @ passages.T, vectors[:50] @ vectors[50:].T, atol=1e-3)


def test_vector_examples_cover_every_passage_of_training_documents(dataset: QADataset) -> None:
    teacher = load_sentence_transformer("local", max_length=32)
    model = load_sentence_transformer("local", max_length=32)
    job = prepare(dataset, model, Choices(settings={"loss": "mse"}), teacher=teacher)
    found = examples_for(job)
    documents = dataset.documents_of(job.dataset.qrels["train"], "train")
    texts = {text for key, text in dataset.passage_texts.items() if dataset.passages[key].document in documents}
    assert {each.positive for each in found} == texts
    assert {each.anchor for each in found} == {dataset.queries[query].text for query in job.dataset.qrels["train"]}
    label = np.asarray(found[0].label)
    assert label.shape == (2, 384)
    assert np.allclose(label[1], encode(teacher, [found[0].positive], "document")[0], atol=0.02)


def test_a_teacher_scores_random_passages_too() -> None:
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
    assert len(ranking_examples(pairs[:2], teacher)[0].negatives) == 1  # too few positives to draw from


def every_second_document(dataset: QADataset, which: int) -> QADataset:
    """Every second document, with the questions on it."""
    documents = set(list(dataset.documents)[which::2])
    qrels = {
        split: {q: grades for q, grades in part.items() if dataset.passages[next(iter(grades))].document in documents}
        for split, part in dataset.qrels.items()
    }
    return dataset.with_qrels(qrels)


@pytest.mark.slow
def test_continuing_from_a_tuned_model_records_its_generations(dataset: QADataset, tmp_path: Path) -> None:
    quick = {"epochs": 1, "batch_size": 32, "alphas": (1.0,)}
    limits: dict[str, Any] = {"max_length": 64, "max_pairs": 32}
    earlier, later = every_second_document(dataset, 0), every_second_document(dataset, 1)
    first = train_model(earlier, tmp_path / "first", "local", settings=quick, **limits)
    second = train_model(
        later, tmp_path / "second", continue_from=tmp_path / "first", earlier=earlier, settings=quick, **limits
    )
    record = json.loads((tmp_path / "second" / "rag_ft.json").read_text())
    assert record["base_model"] == first.record["base_model"]
    assert [each["weights_sha256"] for each in record["generations"]] == [first.record["weights_sha256"]]
    assert any(source.startswith("earlier ") for source in second.record["training"]["dev_makings"])
    third = train_model(later, tmp_path / "third", continue_from=tmp_path / "second", settings=quick, **limits)
    assert len(third.record["generations"]) == 2


@pytest.mark.slow
def test_continuing_learns_new_questions_and_keeps_old_ones(dataset: QADataset, tmp_path: Path) -> None:
    earlier, later = every_second_document(dataset, 0), every_second_document(dataset, 1)
    settings = {"epochs": 3, "batch_size": 32, "alphas": (1.0, 0.5)}
    first = train_model(earlier, tmp_path / "first", "local", max_length=128, settings=settings)
    trained = train_model(
        later, tmp_path / "second", continue_from=tmp_path / "first", earlier=earlier, max_length=128, settings=settings
    )
    epochs = [score for name, score in trained.dev.items() if name.startswith("epoch")]
    assert max(epochs) > trained.dev["base"]
    folders = ("local", str(first.folder), str(trained.folder))
    models = [load_sentence_transformer(name, max_length=128) for name in folders]
    tests = [DevQuestions.of(part.with_qrels({"dev": part.qrels["test"]})) for part in (earlier, later)]
    old, new = ([float(questions.values(model).mean()) for model in models] for questions in tests)
    assert old[2] > max(old[:2]) - 0.02
    assert new[2] > max(new[:2]) + 0.01


def test_continuing_needs_a_model_that_rag_ft_tuned(dataset: QADataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="was not tuned by rag_ft"):
        train_model(dataset, tmp_path / "m", continue_from=local_model_folder())
