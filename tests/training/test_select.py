"""The guard: chance is no gain, a making that loses is heard, forgetting is bounded, and signs of trouble are said."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_ft import Passage, QADataset, Query
from rag_ft.embedding.encoding import encode
from rag_ft.embedding.loading import load_sentence_transformer
from rag_ft.evaluation.significance import Difference
from rag_ft.training.selection.dev_score import FEWEST, dev_score, gain_of, parts_of, weights_of
from rag_ft.training.selection.dev_set import DevQuestions, copy_weights
from rag_ft.training.selection.diagnostics import (
    check_level,
    check_losses,
    check_questions,
    check_sources,
    check_vectors,
)
from rag_ft.training.selection.forgetting import ForgettingProbe
from rag_ft.training.selection.select import gain_to_dict, select
from rag_ft.training.selection.uncovered import UncoveredDocuments


@dataclass
class Told:
    """A dev measure that says what it was told, by how far the weights are from the base's."""

    by_share: dict[float, np.ndarray]
    sources: list[str]
    base: torch.Tensor
    tuned: torch.Tensor
    name: str
    metric: str = "ndcg@10"
    groups: list[object] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    def values(self, model: Any) -> np.ndarray:
        weight = model.state_dict()[self.name].cpu()
        share = float(((weight - self.base) / (self.tuned - self.base)).nanmedian())
        return self.by_share[min(self.by_share, key=lambda known: abs(known - share))]

    def passages(self) -> list[str]:
        return []


@cache
def weights() -> tuple[Any, Any, Any]:
    """(a model, its weights, the same with noise)."""
    model = load_sentence_transformer("local")
    base = copy_weights(model)
    torch.manual_seed(0)
    return (
        model,
        base,
        {
            name: weight + 0.02 * torch.randn_like(weight) if weight.is_floating_point() else weight
            for name, weight in base.items()
        },
    )


def choice(
    by_share: dict[float, np.ndarray],
    sources: list[str] | None = None,
    forgetting: float = 1.0,
    kinds: list[str] | None = None,
    uncovered: dict[float, np.ndarray] | None = None,
    unlike: float = 0.0,
) -> Any:
    model, base, tuned = weights()
    name = next(name for name, weight in base.items() if weight.is_floating_point() and weight.ndim == 2)
    units = len(by_share[0.0])
    dev = Told(by_share, sources or ["other"] * units, base[name], tuned[name], name, "ndcg@10", list(range(units)))
    dev.kinds = kinds or []
    rest = None
    if uncovered is not None:
        count = len(uncovered[0.0])
        rest = UncoveredDocuments(
            Told(uncovered, ["other"] * count, base[name], tuned[name], name, groups=list(range(count))), unlike
        )
    return select(model, base, tuned, (1.0, 0.5), dev, forgetting, by_share[0.0], by_share[1.0], rest)


def dev_of(sources: list[str], kinds: list[str]) -> Told:
    nothing = torch.zeros(0)
    return Told({}, sources, nothing, nothing, "", groups=list(range(len(sources))), kinds=kinds)


def noise(mean: float, units: int = 100, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 0.3, units).clip(0, 1)


def test_a_clear_gain_is_taken() -> None:
    base = noise(0.4)
    chosen = choice({0.0: base, 0.5: base + 0.1, 1.0: base + 0.05})
    assert chosen.share == 0.5
    assert chosen.gain.mean == pytest.approx(0.1, abs=1e-6)
    assert set(chosen.scores) == {"base", "share 1", "share 0.5"}


def test_a_gain_that_may_be_chance_is_not() -> None:
    chosen = choice({0.0: noise(0.4), 0.5: noise(0.4, seed=1) + 0.002, 1.0: noise(0.2, seed=2)})
    assert chosen.share == 0.0
    assert chosen.scores["share 1"] < chosen.scores["base"]


def test_one_making_that_loses_is_heard() -> None:
    base = np.full(100, 0.5) + np.tile([0.01, -0.01], 50)
    gain = np.concatenate([np.full(50, 0.2), np.full(50, -0.05) + np.tile([0.01, -0.01], 25)])
    chosen = choice({0.0: base, 0.5: base + gain, 1.0: base + gain}, ["key phrases"] * 50 + ["real"] * 50)
    assert chosen.share == 0.0
    assert "loses on the dev questions of one making (real" in chosen.refused["share 0.5"]
    by_document = choice({0.0: base, 0.5: base + gain, 1.0: base + gain}, kinds=["known"] * 50 + ["new"] * 50)
    assert "loses on the dev questions on new documents" in by_document.refused["share 0.5"]


def test_what_loses_on_documents_that_nobody_asks_about_is_not_taken() -> None:
    base, rest = noise(0.4), noise(0.5, seed=1)
    dev = {0.0: base, 0.5: base + 0.1, 1.0: base + 0.2}
    assert choice(dev, uncovered={0.0: rest, 0.5: rest, 1.0: rest}).share == 1.0
    lost = rest - 0.05 + noise(0.0, seed=2) / 10
    chosen = choice(dev, uncovered={0.0: rest, 0.5: rest, 1.0: lost})
    assert chosen.share == 0.5
    assert chosen.gain.mean == pytest.approx(0.1, abs=1e-6)
    assert "loses on the documents that neither train nor dev asks about" in chosen.refused["share 1"]
    assert choice(dev, uncovered={0.0: rest, 0.5: lost, 1.0: lost}).share == 0.0


def test_documents_unlike_those_asked_about_must_gain() -> None:
    base, rest = noise(0.4), noise(0.5, seed=1)
    dev = {0.0: base, 0.5: base + 0.1, 1.0: base + 0.2}
    same = choice(dev, uncovered={0.0: rest, 0.5: rest, 1.0: rest}, unlike=0.9)
    assert same.share == 0.0
    assert "may not gain" in same.refused["share 0.5"]
    assert choice(dev, uncovered={0.0: rest, 0.5: rest + 0.02, 1.0: rest}, unlike=0.9).share == 0.5


@pytest.mark.slow
def test_forgetting_is_bounded() -> None:
    base = noise(0.4)
    told = {0.0: base, 0.5: base + 0.1, 1.0: base + 0.2}
    free = choice(told)
    assert free.share == 1.0
    fall = {name: free.general["base"] - value for name, value in free.general.items()}
    assert fall["share 1"] > fall["share 0.5"]
    assert choice(told, forgetting=(fall["share 0.5"] + fall["share 1"]) / 2).share == 0.5
    strict = choice(told, forgetting=min(fall["share 0.5"], 0) - 0.01)
    assert strict.share == 0.0
    assert "forgets" in strict.refused["share 1"]


def test_the_general_questions_are_found_by_a_general_model() -> None:
    probe = ForgettingProbe.shipped()
    assert len(set(probe.queries)) == len(set(probe.passages)) == len(probe.queries) >= 50
    model = load_sentence_transformer("local")
    similarity = encode(model, probe.queries, "query") @ encode(model, probe.passages, "document").T
    assert (similarity.argmax(axis=1) == np.arange(len(similarity))).mean() > 0.8


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(FEWEST, 60), min_size=1, max_size=3), st.integers(0, FEWEST - 1), st.integers(0, 9))
def test_each_making_counts_as_much_and_a_few_questions_count_with_the_most(
    sizes: list[int], few: int, seed: int
) -> None:
    sources = [str(place) for place, size in enumerate(sizes) for _ in range(size)]
    values = np.random.default_rng(seed).random(len(sources) + few)
    most = str(max(range(len(sizes)), key=sizes.__getitem__))
    counted = np.array([*sources, *[most] * few])
    means = [values[counted == source].mean() for source in set(sources)]
    assert dev_score(values, dev_of([*sources, *["real"] * few], [])) == pytest.approx(np.mean(means))


def test_one_question_of_another_making_decides_nothing() -> None:
    """Three hundred key phrases gain, and the one real question falls from the first place to none."""
    base, gain = np.full(301, 0.5), np.append(np.full(300, 0.06), -0.5) + np.tile([0.02, -0.02], 151)[:301]
    chosen = choice({0.0: base, 0.5: base + gain, 1.0: base + gain}, ["key phrases"] * 300 + ["real"])
    assert chosen.share == 1.0


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 60), st.integers(0, 9))
def test_known_and_new_documents_count_as_much_where_there_are_enough(
    known: int, new: int, real: int, seed: int
) -> None:
    sources, kinds = ["other"] * (known + new) + ["real"] * real, ["known"] * known + ["new"] * (new + real)
    values = np.random.default_rng(seed).random(known + new + real)
    dev = dev_of(sources, kinds)
    assert weights_of(dev).sum() == pytest.approx(1)
    halves = [values[:known], values[known : known + new]]
    enough = min(known, new) >= FEWEST
    other = np.mean([half.mean() for half in halves]) if enough else values[: known + new].mean() if known + new else 0
    if min(known + new, real) >= FEWEST:
        assert dev_score(values, dev) == pytest.approx((other + values[known + new :].mean()) / 2)
    expected = dev_score(values, dev)
    assert gain_of(values, dev).mean == pytest.approx(expected)
    if real >= FEWEST:
        assert ("other, known documents" in parts_of(dev)) == enough


def test_signs_of_trouble_are_said() -> None:
    assert "did not move" in check_losses([1.0] * 20)[0]
    assert check_losses([1.0] * 10 + [0.5] * 10) == []
    assert "not a number" in check_losses([1.0, float("nan")])[0]
    draw = np.random.default_rng(0)
    base = draw.normal(size=(50, 16)).astype(np.float32)
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    assert "hardly changed" in check_vectors(base, base)[0]
    one = np.tile(base[:1], (50, 1))
    assert "collapsed" in check_vectors(base, one)[0]
    assert check_vectors(base, base[:, ::-1]) == []
    assert "hardly more than chance" in check_level(0.02, 0.01)[0]
    assert check_level(0.5, 0.01) == []
    sources = ["real"] * 20 + ["key phrases"] * 20
    assert "are not like them" in check_sources(np.array([-0.01] * 20 + [0.1] * 20), sources)[0]
    assert check_sources(np.array([0.01] * 20 + [0.1] * 20), sources) == []


def test_repeated_training_questions_are_said() -> None:
    passages = {f"p{n}": Passage(f"p{n}", f"Passage {n}") for n in range(20)}
    queries = {f"q{n}": Query(f"q{n}", "Where do I book leave for the summer?") for n in range(20)}
    dataset = QADataset(passages, queries, {"train": {f"q{n}": {f"p{n}": 1} for n in range(20)}})
    assert "95% of the training questions" in check_questions(dataset)[0]


def test_dev_knows_what_chance_would_find(dataset: QADataset) -> None:
    dev = DevQuestions.of(dataset)
    draws = [np.random.default_rng(seed).permutation(len(dev.passage_ids)) for seed in range(20)]
    found = []
    for order in draws:
        place = {dev.passage_ids[p]: rank for rank, p in enumerate(order)}
        for relevant in dev.qrels.values():
            gains = [1 / np.log2(place[p] + 2) for p in relevant if place[p] < 10]
            ideal = sum(1 / np.log2(rank + 2) for rank in range(min(10, len(relevant))))
            found.append(sum(gains) / ideal)
    assert dev.chance() == pytest.approx(np.mean(found), rel=0.5)


def test_weights_that_are_no_numbers_are_never_shipped() -> None:
    model, base, _ = weights()
    broken = {name: weight * float("nan") if weight.is_floating_point() else weight for name, weight in base.items()}
    name = next(name for name, weight in base.items() if weight.is_floating_point())
    values = {0.0: noise(0.5, 60), 1.0: np.full(60, np.nan)}
    dev = Told(values, ["other"] * 60, base[name], base[name] + 1, name, groups=list(range(60)))
    chosen = select(model, base, broken, (1.0,), dev, 0.1, values[0.0], values[1.0])
    assert chosen.share == 0.0


def test_a_bound_that_is_not_known_is_null() -> None:
    assert gain_to_dict(None) is None
    assert gain_to_dict(Difference(0.12341, (0.01, 0.2), 0.01)) == {"mean": 0.1234, "ci95": [0.01, 0.2]}
    assert gain_to_dict(Difference(0.3, (float("-inf"), float("inf")), 0.1)) == {"mean": 0.3, "ci95": [None, None]}
