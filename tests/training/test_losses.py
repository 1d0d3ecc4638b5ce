"""Each loss trains a real model on a small dataset; caching changes memory and not gradients."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from rag_ft import (
    InputError,
    Passage,
    QADataset,
    Query,
    Recipe,
    cut_into_nodes,
    generate_qa_dataset,
    read_documents,
    train_model,
)
from rag_ft.dataset import ScoredPair
from rag_ft.embedding.encoding import encode
from rag_ft.embedding.loading import load_sentence_transformer
from rag_ft.retrieval.bm25 import BM25
from rag_ft.training.examples.pairs import pair_examples
from rag_ft.training.loop.losses import check_dimensions, loss_for
from rag_ft.training.loop.rotation import add_rotation, realign_rotation, remove_rotation
from rag_ft.training.loop.trainer import run_trainer
from rag_ft.training.loop.trainer_contexts import without_dropout
from rag_ft.training.selection.dev_set import DevQuestions

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SMALL = Recipe(epochs=2, batch_size=32, alphas=(1.0,))


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="mnr", marks=pytest.mark.slow),
        pytest.param({"loss": "gist"}, id="gist", marks=pytest.mark.slow),
        pytest.param({"inner_batch": 8}, id="cached mnr", marks=pytest.mark.slow),
        pytest.param({"loss": "gist", "inner_batch": 8}, id="cached gist", marks=pytest.mark.slow),
        pytest.param({"mine": "both", "negatives": 1}, id="mnr with mined negatives", marks=pytest.mark.slow),
        pytest.param({"mine": "dense", "rounds": 2, "epochs": 1}, id="two rounds", marks=pytest.mark.slow),
        pytest.param({"lora": 8, "learning_rate": 1e-3}, id="lora", marks=pytest.mark.slow),
        pytest.param({"dimensions": (128, 64)}, id="matryoshka", marks=pytest.mark.slow),
    ],
)
def test_a_loss_raises_the_dev_score(dataset: QADataset, tmp_path: Path, settings: dict[str, object]) -> None:
    trained = train_model(
        dataset, tmp_path / "m", "local", recipe=SMALL, max_length=64, max_pairs=160, settings=settings
    )
    epochs = [score for name, score in trained.dev.items() if "epoch" in name]
    assert max(epochs) > trained.dev["base"] + 0.005
    recorded = trained.record["recipe"]
    if trained.is_base:  # the gain may be chance; the base's vectors are not trained to be cut
        settings = {name: value for name, value in settings.items() if name != "dimensions"}
    assert recorded | {name: _plain(value) for name, value in settings.items()} == recorded
    # The saved model is a plain one; a model whose vectors may be cut ends with a rotation.
    saved = set(load_sentence_transformer(str(trained.folder)).state_dict())
    assert saved - set(load_sentence_transformer("local").state_dict()) == (
        {"2.linear.weight"} if "dimensions" in settings else set()
    )


@pytest.mark.slow
def test_vectors_cut_to_128_numbers_retrieve_nearly_as_well(dataset: QADataset) -> None:
    model = load_sentence_transformer("local", max_length=64)
    recipe = SMALL.with_settings({"dimensions": (128,), "epochs": 4})
    pairs = pair_examples(dataset, recipe)
    test_questions = DevQuestions.of(dataset.with_qrels({"dev": dataset.qrels["test"]}))

    def ndcg_of(dimension: int | None) -> float:
        vectors = (
            encode(model, test_questions.query_texts, "query", dimension=dimension),
            encode(model, test_questions.passage_texts, "document", dimension=dimension),
        )
        return float(test_questions.values_of(*vectors).mean())

    whole, cut = ndcg_of(None), ndcg_of(128)
    rotation = add_rotation(model, [pair.anchor for pair in pairs], [pair.positive for pair in pairs])
    assert rotation is not None
    assert add_rotation(model, ["who"], ["he"]) is None
    assert ndcg_of(None) == pytest.approx(whole, abs=0.01)
    assert ndcg_of(128) > cut
    run_trainer(model, pairs, recipe)
    assert ndcg_of(None) > whole + 0.05
    tuned, tuned_cut = ndcg_of(None), ndcg_of(128)
    assert tuned_cut >= 0.95 * tuned
    dev = DevQuestions.of(dataset)
    turned = realign_rotation(model, list(dataset.passage_texts.values()), dev, (128,))
    assert ndcg_of(None) == pytest.approx(tuned, abs=0.01)
    if turned:
        assert ndcg_of(128) >= tuned_cut - 0.02
    assert not realign_rotation(model, list(dataset.passage_texts.values()), None, (128,))
    remove_rotation(model, rotation)
    assert set(model.state_dict()) == set(load_sentence_transformer("local").state_dict())


def test_vectors_are_realigned_if_that_raises_the_dev_score_of_cut_vectors() -> None:
    """With the least important axes first a cut keeps little, until the vectors are realigned."""
    model = load_sentence_transformer("local", max_length=32)
    subjects = [
        "leave",
        "a ferry",
        "a desk",
        "a crane",
        "a badge",
        "petty cash",
        "a boat",
        "a locker",
        "a meal",
        "a tent",
    ]
    texts = {f"p{n}": f"How {what} is booked: ask the porter." for n, what in enumerate(subjects)}
    queries = {f"q{n}": Query(f"q{n}", f"How do I book {what}?") for n, what in enumerate(subjects)}
    rows = {f"q{n}": {f"p{n}": 1} for n in range(len(subjects))}
    passages = {key: Passage(key, text) for key, text in texts.items()}
    dev = DevQuestions.of(QADataset(passages, queries, {"dev": rows}))

    def cut_to_8() -> float:
        queries = encode(model, dev.query_texts, "query", dimension=8)
        return float(dev.values_of(queries, encode(model, dev.passage_texts, "document", dimension=8)).mean())

    assert not realign_rotation(model, list(texts.values()), dev, (8,))  # it does not end with a linear map
    rotation = add_rotation(model, dev.query_texts, dev.passage_texts)
    assert rotation is not None
    with torch.no_grad():
        rotation.linear.weight.copy_(rotation.linear.weight.flip(0))
    before = encode(model, dev.passage_texts, "document")
    cut = cut_to_8()
    assert realign_rotation(model, list(texts.values()), dev, (8,))
    after = encode(model, dev.passage_texts, "document")
    assert np.allclose(before @ before.T, after @ after.T, atol=0.01)
    assert cut_to_8() > cut + 0.1


@pytest.mark.slow
def test_triplets_raise_the_dev_score(acme: Path, tmp_path: Path) -> None:
    """A loss with a margin needs small steps (`MARGIN_RATE`) and hard negatives."""
    nodes = cut_into_nodes(read_documents(acme / "documents"), 96)[:60]
    dataset = generate_qa_dataset(nodes, use_llm=False).dataset
    recipe = SMALL.with_settings({"loss": "triplet", "mine": "dense", "learning_rate": 2e-5, "epochs": 3})
    trained = train_model(dataset, tmp_path / "m", "local", recipe=recipe, max_length=64)
    epochs = [score for name, score in trained.dev.items() if "epoch" in name]
    assert max(epochs) > trained.dev["base"] + 0.01


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.slow
@pytest.mark.parametrize("loss", [None, "cosine"])
def test_scored_pairs_raise_the_correlation(dataset: QADataset, tmp_path: Path, loss: str | None) -> None:
    """Queries with their passage (1), another one of its document (.5), and one of another document (0)."""
    draw = random.Random(0)
    texts, pairs = dataset.passage_texts, []
    for query, passage in dataset.pairs("train")[:80]:
        text = dataset.queries[query].text
        document = dataset.passages[passage].document
        near = [p for p in dataset.documents[document] if p != passage]
        far = [p for p in dataset.passages if dataset.passages[p].document != document]
        pairs += [ScoredPair(text, texts[passage], 1.0), ScoredPair(text, texts[draw.choice(far)], 0.0)]
        pairs += [ScoredPair(text, texts[draw.choice(near)], 0.5)] if near else []
    assert_correlation_rises(pairs, dataset, tmp_path, loss, "cosent", SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [None, "contrastive"])
def test_clicks_raise_the_correlation(acme: Path, tmp_path: Path, loss: str | None) -> None:
    """Queries with their passage (1), and with one that shares words with it (0)."""
    nodes = cut_into_nodes(read_documents(acme / "documents"), 96)[:150]
    dataset = generate_qa_dataset(nodes, use_llm=False).dataset
    texts, pairs = dataset.passage_texts, []
    bm25 = BM25(texts)
    for query, passage in dataset.pairs("train")[:140]:
        text = dataset.queries[query].text
        pairs.append(ScoredPair(text, texts[passage], 1.0))
        pairs += [ScoredPair(text, texts[p], 0.0) for p in bm25.rank([text], 6)[0] if p != passage][:1]
    # A loss with a margin needs small steps (`MARGIN_RATE`).
    assert_correlation_rises(
        pairs, dataset, tmp_path, loss, "online-contrastive", SMALL.with_settings({"learning_rate": 5e-5, "epochs": 4})
    )


def assert_correlation_rises(
    pairs: list[ScoredPair], dataset: QADataset, folder: Path, loss: str | None, default: str, recipe: Recipe
) -> None:
    scored = QADataset(dataset.passages, {}, {}, scored_pairs=pairs)
    settings: dict[str, Any] = {} if loss is None else {"loss": loss}
    trained = train_model(scored, folder / "m", "local", recipe=recipe, max_length=64, settings=settings)
    assert trained.record["recipe"]["loss"] == (loss or default)
    epochs = [score for name, score in trained.dev.items() if "epoch" in name]
    assert max(epochs) > trained.dev["base"] + 0.02
    assert "dev_spearman" in trained.record["training"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "kl"}, "the loss 'kl' learns from another model: choose one with --teacher"),
        ({"loss": "cosent"}, "has no scored_pairs.jsonl"),
        ({"loss": "triplet"}, "needs negatives, and the dataset has none"),
        ({"loss": "triplet", "mine": "bm25", "negatives": 0}, "negatives is 0"),
        ({"mine": "magic"}, "mine is 'magic': choose one of dense, bm25, both"),
        ({"lora": -1}, "lora is -1"),
        ({"rounds": 2}, "rounds is 2: a later round differs"),
        ({"warmup": "much"}, "warmup is 'much': use a number from 0 to 1"),
        ({"forgetting": -0.1}, "forgetting is -0.1: use a number from 0 to 1"),
        ({"dropout": 0.1}, "dropout is 0.1: use True or False"),
        ({"alphas": (0.5, 2)}, r"alphas are \(0.5, 2\): use a list of numbers above 0 and at most 1"),
        ({"dimensions": ("128",)}, r"dimensions are \('128',\): use a list of whole numbers"),
    ],
)
def test_a_setting_that_does_not_fit_the_data_is_refused(
    dataset: QADataset, tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train_model(dataset, tmp_path / "m", "local", settings=settings)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher": "local", "settings": {"loss": "mnr"}}, "the loss 'mnr' does not learn from a teacher"),
        ({"report_to": ["nothing"]}, "there is no tracker 'nothing'"),
        ({"report_to": ["comet_ml"]}, "--report-to comet_ml needs its package"),
        ({"device": "cuda:1"}, "device is 'cuda:1'"),
    ],
)
def test_an_option_that_cannot_work_is_refused_before_training(
    dataset: QADataset, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train_model(dataset, tmp_path / "m", "local", **options)
    assert not (tmp_path / "m").exists()


def features(model: SentenceTransformer) -> list[dict[str, torch.Tensor]]:
    queries = [f"Who signs form {n} of harbour {n * 7 % 13}?" for n in range(12)]
    passages = [f"Form {n} is signed by the master of harbour {n * 7 % 13} within {n} days." for n in range(12)]
    return [model.preprocess(texts) for texts in (queries, passages)]


def gradients(recipe: Recipe) -> dict[str, torch.Tensor]:
    model = load_sentence_transformer("local", max_length=32)
    with without_dropout(model, keep=False):
        model.train()
        loss_for(model, recipe)(features(model), None).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("loss", ["mnr", "gist"])
def test_a_cached_loss_has_the_gradients_of_the_whole_batch(loss: str) -> None:
    whole = gradients(Recipe(batch_size=12, inner_batch=12, loss=loss))  # type: ignore[arg-type]
    cached = gradients(Recipe(batch_size=12, inner_batch=4, loss=loss))  # type: ignore[arg-type]
    assert whole.keys() == cached.keys()
    for name, gradient in whole.items():
        assert torch.allclose(gradient, cached[name], atol=1e-4), name


def test_with_dimensions_the_loss_is_the_sum_over_cut_vectors() -> None:
    model = load_sentence_transformer("local", max_length=32)
    values = {}
    for dimensions in ((), (16,), (16, 64)):
        with torch.no_grad():
            values[dimensions] = float(loss_for(model, Recipe(dimensions=dimensions))(features(model), None))
        queries, passages = (model(part)["sentence_embedding"].detach() for part in features(model))
    expected = values[()]
    for size, dimensions in ((16, (16,)), (64, (16, 64))):
        scores = 20 * torch.nn.functional.cosine_similarity(queries[:, None, :size], passages[None, :, :size], dim=-1)
        in_both_directions = torch.logsumexp(torch.cat([scores, scores.T], dim=1), dim=1)
        expected += float((in_both_directions - scores.diagonal()).mean())
        assert values[dimensions] == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "magic"}, "loss is 'magic': choose one of mnr, gist, triplet"),
        ({"batch_size": 1}, "batch_size is 1: use a whole number, 2 or more"),
        ({"epochs": "3"}, "epochs is '3'"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"dimensions": 128}, "dimensions are 128"),
        ({"dimensions": (0,)}, r"dimensions are \(0,\)"),
        ({"momentum": 1}, "the recipe has no 'momentum'"),
    ],
)
def test_an_invalid_setting_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe().with_settings(settings)


def test_more_dimensions_than_the_model_has_are_refused() -> None:
    with pytest.raises(InputError, match="the model's vectors have 384"):
        check_dimensions(load_sentence_transformer("local"), Recipe(dimensions=(512,)))
