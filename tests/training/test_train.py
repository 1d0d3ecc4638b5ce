"""Training on a small set: it learns, is reproducible, keeps the base if that is better, and never sees test."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rag_ft import FineTunedEmbedding, InputError, Passage, QADataset, Query, Recipe, TrainedModel, train_model
from rag_ft.dataset import ScoredPair
from rag_ft.dataset.text.cloze import copied_span
from rag_ft.embedding.contract import weights_sha256
from rag_ft.embedding.loading import LOCAL_NAME, load_sentence_transformer
from rag_ft.training.examples.pairs import pair_examples, without_held_out
from rag_ft.training.examples.training_example import TrainingExample
from rag_ft.training.loop.trainer_contexts import without_dropout
from rag_ft.training.max_length import fitting_max_length
from rag_ft.training.plan import fingerprint_of, scale_alphas
from rag_ft.training.prepare import Budget, Choices, Job, hold_out, prepare
from rag_ft.training.recipe import recipe_for
from rag_ft.training.selection.dev_pairs import DevPairs
from rag_ft.training.selection.dev_set import POOL_SIZE, DevQuestions
from rag_ft.training.selection.headroom import headroom

QUICK = Recipe(epochs=1, batch_size=16, learning_rate=5e-5, alphas=(1.0, 0.5))


def train(dataset: QADataset, output: Path, recipe: Recipe = QUICK, max_minutes: float | None = None) -> TrainedModel:
    return train_model(dataset, output, "local", recipe=recipe, max_length=64, max_pairs=48, max_minutes=max_minutes)


def test_a_model_is_trained_and_saved_with_its_prefixes_and_record(dataset: QADataset, tmp_path: Path) -> None:
    trained = train_model(
        dataset,
        tmp_path / "m",
        "local",
        recipe=QUICK,
        max_length=64,
        max_pairs=64,
        query_prefix="q: ",
        passage_prefix="p: ",
    )
    assert {"base", "epoch 1", "alpha 1", "alpha 0.5"} == set(trained.dev)
    assert {"base", "epoch 1", "share 1", "share 0.5"} == set(trained.record["training"]["dev_ndcg@10"])
    embedding = FineTunedEmbedding.load(trained.folder)
    assert (embedding.query_prefix, embedding.passage_prefix, embedding.max_length) == ("q: ", "p: ", 64)
    assert trained.record["training"]["pairs"] == 64
    assert trained.record["recipe"]["batch_size"] == 16
    assert trained.record["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert embedding.contract.weights_sha256 == trained.record["weights_sha256"]
    assert not list(trained.folder.rglob("*.bin"))


@pytest.mark.slow
def test_one_seed_gives_one_model_and_test_questions_change_nothing(dataset: QADataset, tmp_path: Path) -> None:
    first = train(dataset, tmp_path / "first")
    without_test = dataset.with_qrels({key: value for key, value in dataset.qrels.items() if key != "test"})
    second = train(without_test, tmp_path / "second")
    assert first.record["weights_sha256"] == second.record["weights_sha256"]
    assert first.dev == second.dev


def test_the_base_stays_if_nothing_beats_it(dataset: QADataset, tmp_path: Path) -> None:
    ruinous = replace(QUICK, learning_rate=5e-2, alphas=(1.0,))
    trained = train(dataset, tmp_path / "m", ruinous)
    assert trained.is_base
    base = load_sentence_transformer("local").state_dict()
    saved = load_sentence_transformer(str(tmp_path / "m")).state_dict()
    assert all(torch.equal(base[name], saved[name]) for name in base)
    card = (tmp_path / "m" / "README.md").read_text()
    reason = "no candidate beat the base model on dev"
    assert f"These are the unchanged weights of {LOCAL_NAME}, because {reason}." in card
    assert trained.summary.decided == f"The base model is kept: {reason}."


def test_nothing_is_trained_if_nothing_can_be_held_out(tmp_path: Path) -> None:
    passages = {f"p{n}": Passage(f"p{n}", f"Rule {n} is kept in drawer {n}.", doc_id="rules") for n in range(4)}
    queries = {f"q{n}": Query(f"q{n}", f"Where is rule {n}?") for n in range(4)}
    few = QADataset(passages, queries, {"train": {f"q{n}": {f"p{n}": 1} for n in range(4)}})
    scored = QADataset({}, {}, {}, scored_pairs=[ScoredPair(f"question {n}", f"text {n}", n % 2) for n in range(20)])
    for number, dataset in enumerate((few, scored)):
        trained = train_model(dataset, tmp_path / str(number), "local", max_length=32)
        assert trained.is_base
        assert "too few questions can be held out" in trained.record["training"]["base_stays_because"]
        assert "add questions, scored pairs" in trained.findings[-1]
        card = (trained.folder / "README.md").read_text()
        assert f"unchanged weights of {LOCAL_NAME}, because too few questions can be held out" in card
        assert "No candidate was trained: " in card


def test_scored_pairs_do_not_select_for_questions() -> None:
    passages = {f"p{n}": Passage(f"p{n}", f"Rule {n} is kept in drawer {n}.", doc_id="rules") for n in range(4)}
    queries = {f"q{n}": Query(f"q{n}", f"Where is rule {n}?") for n in range(4)}
    scored = [ScoredPair(f"question {n} on {n % 9}", f"text {n}", n % 2) for n in range(200)]
    dataset = QADataset(passages, queries, {"train": {f"q{n}": {f"p{n}": 1} for n in range(4)}}, scored_pairs=scored)
    assert hold_out(dataset, False, 0, ())[0] is None
    dev, _ = hold_out(QADataset({}, {}, {}, scored_pairs=scored), True, 0, ())
    assert isinstance(dev, DevPairs)
    with pytest.raises(InputError, match="200 scored pairs and no training questions, but the earlier one has"):
        train_model(QADataset({}, {}, {}, scored_pairs=scored), "never", "local", earlier=dataset)


def test_the_fingerprint_covers_the_dev_pool() -> None:
    model = load_sentence_transformer("local")
    passages = {f"p{n}": Passage(f"p{n}", f"Rule {n} is kept in drawer {n}.") for n in range(4)}
    dataset = QADataset(passages, {"q": Query("q", "Where is rule 1?")}, {"dev": {"q": {"p1": 1}}})
    more = QADataset(passages | {"x": Passage("x", "Rule 1 is new.")}, dataset.queries, dataset.qrels)
    jobs = [
        Job(
            model=model, teacher=None, dataset=each, dev=DevQuestions.of(each, 0), uncovered=None, recipe=Recipe(),
            generated=False, budget=Budget(), rule="significant",
        )
        for each in (dataset, more, dataset)
    ]  # fmt: skip
    prints = [fingerprint_of(job, [TrainingExample("Who?", "He.")]) for job in jobs]
    assert prints[0] == prints[2] != prints[1]


def test_only_checkpoints_within_a_model_folder_are_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-1" / "model"
    (folder / "checkpoint-2").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    found = weights_sha256(folder)
    (folder / "checkpoint-2" / "model.safetensors").write_bytes(b"others")
    assert weights_sha256(folder) == found


@given(count=st.integers(0, 120), repeats=st.integers(1, 40), seed=st.integers(0, 3))
def test_scored_pairs_are_held_out_with_their_near_duplicates(count: int, repeats: int, seed: int) -> None:
    names = ["leave", "badges", "boats", "pay", "gates", "storms", "bells", "ropes", "tolls", "fog"]
    pairs = [
        ScoredPair(
            f"{'How do I' if n % 2 else 'how do i'} ask for {names[n % repeats % 10]} no {n % repeats}?", f"t{n}", n % 2
        )
        for n in range(count)
    ]
    dev, rest = DevPairs.hold_out(pairs, seed)
    if dev is None:
        assert rest == pairs
        return
    assert len(dev.pairs) >= 30
    assert sorted(map(repr, dev.pairs + rest)) == sorted(map(repr, pairs))
    assert not {pair.query.lower() for pair in dev.pairs} & {pair.query.lower() for pair in rest}


def test_the_dev_pool_holds_ten_answers_of_very_many() -> None:
    passages = {f"p{n}": Passage(f"p{n}", f"text {n}") for n in range(900)}
    qrels = {"dev": {f"q{n}": {f"p{(n * 20 + k) % 900}": 1 + (k == 29) for k in range(30)} for n in range(30)}}
    dev = DevQuestions.of(QADataset(passages, {f"q{n}": Query(f"q{n}", f"question {n}") for n in range(30)}, qrels))
    assert len(dev.passage_ids) <= POOL_SIZE
    for query, grades in dev.qrels.items():
        assert len(grades) >= 10
        assert max(grades.values()) == 2  # the best ones stay
        assert set(dev.passage_ids) & set(qrels["dev"][query]) == set(grades)


def test_a_base_model_that_does_well_is_not_trained_on_generated_questions(tmp_path: Path) -> None:
    subjects = ["whales", "volcanoes", "violins", "cheese", "comets", "glaciers", "bees", "trains", "coffee", "chess",
                "tulips", "deserts", "vaccines", "castles", "pianos", "sharks", "bridges", "opera", "rice", "wolves",
                "mirrors", "clocks", "paper", "silk", "salt", "diamonds", "owls", "tea", "maps", "soap"]  # fmt: skip
    passages = {subject: Passage(subject, f"Nobody knows who first wrote about {subject}.") for subject in subjects}
    queries = {
        f"{subject} {style}": Query(f"{subject} {style}", f"{subject} books museums", style)
        for subject in subjects
        for style in ("sentence", "key-phrases")
    }
    qrels = {
        split: {f"{subject} {style}": {subject: 1} for subject in chosen}
        for split, style, chosen in (("train", "sentence", subjects[:20]), ("dev", "key-phrases", subjects[20:]))
    }
    generated = QADataset(passages, queries, qrels)
    started = time.monotonic()
    trained = train_model(generated, tmp_path / "m", "local", max_length=64)
    assert trained.is_base
    assert trained.record["training"]["level"] > 0.85
    assert trained.record["recipe"]["shares"] == []
    assert set(trained.dev) == {"base"}
    assert time.monotonic() - started < 60  # nothing was trained


def test_the_best_dev_score_is_taken_if_that_is_asked_for(dataset: QADataset, tmp_path: Path) -> None:
    """`dev` asks for no proof, looks at no uncovered documents, and does not cap alpha."""
    with pytest.raises(InputError, match="select is 'best': choose one of safe, dev"):
        train_model(dataset, tmp_path / "m", "local", select="best")  # type: ignore[arg-type]
    assert not (tmp_path / "m").exists()
    trained = train_model(dataset, tmp_path / "m", "local", recipe=QUICK, max_length=64, max_pairs=48, select="dev")
    training = trained.record["training"]
    assert (training["select"], training["refused"]) == ("dev", {})
    scores = {name: score for name, score in trained.dev.items() if not name.startswith("epoch")}
    best = max(scores, key=scores.__getitem__)
    assert scores[best] == scores[trained.summary.selected]
    job = prepare(dataset, load_sentence_transformer("local"), Choices(rule="dev"))
    assert (job.uncovered, job.generated) == (None, False)


@given(base_ndcg=st.floats(0, 1))
def test_the_headroom_shrinks_as_the_base_is_better(base_ndcg: float) -> None:
    assert 0 <= headroom(base_ndcg) <= 1
    assert headroom(base_ndcg) >= headroom(min(1.0, base_ndcg + 0.05))
    assert scale_alphas((0.75, 0.5), headroom(base_ndcg)) == () or base_ndcg < 0.85


def test_a_dev_split_is_held_out_if_there_is_none(dataset: QADataset, tmp_path: Path) -> None:
    trained = train(dataset.with_qrels({"train": dataset.qrels["train"]}), tmp_path / "m")
    assert trained.record["training"]["dev_questions"] > 10


@pytest.mark.slow
def test_training_fits_a_time_limit(dataset: QADataset, tmp_path: Path) -> None:
    trained = train(dataset, tmp_path / "m", replace(QUICK, epochs=50), max_minutes=0.1)
    assert trained.record["recipe"]["epochs"] < 50


def test_dropout_is_off_in_training_and_back_afterwards() -> None:
    model = load_sentence_transformer("local")
    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Dropout)]
    before = [layer.p for layer in layers]
    with without_dropout(model, keep=False):
        assert not any(layer.p for layer in layers)
    assert [layer.p for layer in layers] == before
    assert any(before)


def test_the_maximum_length_follows_the_passages() -> None:
    model = load_sentence_transformer("local")
    assert fitting_max_length(model, ["one short passage"] * 20) == 256
    assert fitting_max_length(model, ["word " * 700] * 20) == 512
    assert fitting_max_length(model, ["word " * 300] * 20) == 256
    # Some very long ones do not decide for all.
    assert fitting_max_length(model, ["one short passage"] * 16 + ["word " * 4000] * 4) == 256


@pytest.mark.parametrize(
    ("device", "pairs", "batch", "epochs"),
    [
        ("cpu", 100, 32, 3),
        ("cpu", 1_000, 64, 3),
        ("cpu", 60_000, 64, 1),
        ("cuda", 1_000, 64, 3),
        ("cuda", 60_000, 256, 1),
    ],
)
def test_the_recipe_follows_the_amount_of_data_and_the_device(
    monkeypatch: pytest.MonkeyPatch, device: str, pairs: int, batch: int, epochs: int
) -> None:
    model = load_sentence_transformer("local")
    monkeypatch.setattr(type(model), "device", torch.device(device))
    recipe = recipe_for(model, pairs, generated=False)
    assert (recipe.batch_size, recipe.epochs) == (batch, epochs)
    assert recipe.inner_batch >= min(batch, 64)


def test_a_question_copied_from_its_passage_is_taken_out() -> None:
    passage = "Leave is booked\n  in HELM. A Kittiwake is a claim."
    start, end = copied_span("Leave is booked in HELM.", passage) or (0, 0)
    assert passage[:start] + passage[end:] == " A Kittiwake is a claim."
    assert copied_span("Leave is asked for.", passage) is None


def test_near_duplicates_of_a_positive_are_not_negatives() -> None:
    long = "Leave is booked in HELM two weeks before it begins, and the harbourmaster signs it. "
    passages = {key: Passage(key, text) for key, text in {"a": long * 3, "b": long * 3 + "!", "c": "Badges."}.items()}
    queries = {key: Query(key, f"question {key}") for key in "abc"}
    dataset = QADataset(passages, queries, {"train": {key: {key: 1} for key in "abc"}})
    keys = {pair.anchor: pair.positive_ids for pair in pair_examples(dataset, QUICK)}
    assert keys["question a"] & keys["question b"]
    assert not keys["question a"] & keys["question c"]


def test_dev_has_about_a_thousand_questions_at_most_from_every_source() -> None:
    passages = {f"p{n}": Passage(f"p{n}", f"Item {n}.") for n in range(3_000)}
    styles = ["", "key phrases", *["question"] * 8]
    queries = {f"q{n}": Query(f"q{n}", f"What is item {n}?", styles[n % 10]) for n in range(3_000)}
    queries |= {f"h{n}": Query(f"h{n}", f"Where is item {n}?", "human") for n in range(20)}
    dev = {f"q{n}": {f"p{n}": 1} for n in range(3_000)} | {f"h{n}": {f"p{n}": 1} for n in range(20)}
    asked = DevQuestions.of(QADataset(passages, queries, {"dev": dev}))
    assert 990 <= len(asked.query_ids) <= 1_020
    assert asked.sources.count("real") == 20
    assert len(asked.passage_ids) == len({f"p{query[1:]}" for query in asked.query_ids})


def test_dev_and_test_passages_are_neither_negatives_nor_scored_pairs() -> None:
    texts = {"a": "The rule of a.", "b": "Wardens enter.", "c": "It freezes in March.", "d": "Cranes are greased."}
    passages = {key: Passage(key, text) for key, text in texts.items()}
    asked = {"a": "What is the rule of a?", "b": "Who may enter at night?", "c": "When does the harbour freeze over?"}
    queries = {key: Query(key, text) for key, text in asked.items()}
    qrels = {"train": {"a": {"a": 1}}, "dev": {"b": {"b": 1}}, "test": {"c": {"c": 1}}}
    scored = [ScoredPair(queries[key].text, f"The rule of {key}.", 1.0) for key in ("a", "b", "c")]
    dataset = QADataset(passages, queries, qrels, negatives={"a": ["b", "c", "d"]}, scored_pairs=scored)
    (pair,) = pair_examples(dataset, Recipe(negatives=3, cloze=0.0))
    assert pair.negatives == ("Cranes are greased.",)
    kept = without_held_out(scored, [*dataset.texts("dev"), *dataset.texts("test")])
    assert [pair.query for pair in kept] == ["What is the rule of a?"]


def test_a_seed_among_the_settings_is_refused(dataset: QADataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="seed is not a setting of the recipe: pass it"):
        train_model(dataset, tmp_path / "m", "local", settings={"seed": 1})
    assert not (tmp_path / "m").exists()
