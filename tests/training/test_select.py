"""Selection: chance is no gain, a source that loses counts, forgetting is bounded, signs of trouble are reported."""

from __future__ import annotations

from collections.abc import Callable
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
from rag_ft.training.record import gain_to_dict
from rag_ft.training.selection.dev_score import MIN_PART, dev_gain, dev_parts, dev_score, unit_weights
from rag_ft.training.selection.dev_set import DevQuestions
from rag_ft.training.selection.diagnostics import (
    check_base_score,
    check_losses,
    check_questions,
    check_sources,
    check_vectors,
)
from rag_ft.training.selection.forgetting import ForgettingProbe
from rag_ft.training.selection.select import Candidate, Policy, Rule, Selection, select
from rag_ft.training.selection.select_weights import Tuned, WeightSelection
from rag_ft.training.selection.uncovered import UncoveredDocuments
from rag_ft.training.selection.weights import copy_weights


@dataclass
class GivenDev:
    """A dev set whose values are given for each alpha; the alpha is read off the model's weights."""

    by_alpha: dict[float, np.ndarray]
    sources: list[str]
    alpha_of: Callable[[Any], float] = lambda model: 0.0
    documents: list[Any] = field(default_factory=list)
    metric: str = "ndcg@10"

    @property
    def groups(self) -> list[object]:
        return list(range(len(self.sources)))

    def values(self, model: Any) -> np.ndarray:
        alpha = self.alpha_of(model)
        return self.by_alpha[min(self.by_alpha, key=lambda known: abs(known - alpha))]

    def passages(self) -> list[str]:
        return []

    def texts(self) -> list[str]:
        return []


@cache
def weights() -> tuple[Any, Any, Any]:
    """(a model, its weights, the same with noise)."""
    model = load_sentence_transformer("local")
    base = copy_weights(model)
    torch.manual_seed(0)
    noisy = {
        name: weight + 0.02 * torch.randn_like(weight) if weight.is_floating_point() else weight
        for name, weight in base.items()
    }
    return model, base, noisy


def alpha_of(model: Any) -> float:
    """How far a model's weights are from the base's, on the way to the noisy ones."""
    _, base, tuned = weights()
    name = next(name for name, weight in base.items() if weight.is_floating_point() and weight.ndim == 2)
    weight = model.state_dict()[name].cpu()
    return float(((weight - base[name]) / (tuned[name] - base[name])).nanmedian())


def selected(
    by_alpha: dict[float, np.ndarray],
    sources: list[str] | None = None,
    max_forgetting: float = 1.0,
    documents: list[str] | None = None,
    uncovered: dict[float, np.ndarray] | None = None,
    out_of_domain: float = 0.0,
    rule: Rule = "significant",
) -> Selection:
    model, base, tuned = weights()
    dev = GivenDev(by_alpha, sources or ["other"] * len(by_alpha[0.0]), alpha_of, documents or [])
    rest = None
    if uncovered is not None:
        questions: Any = GivenDev(uncovered, ["other"] * len(uncovered[0.0]), alpha_of)
        rest = UncoveredDocuments(questions=questions, out_of_domain=out_of_domain)
    return WeightSelection(model, base, dev, rest).select(
        by_alpha[0.0],
        [Tuned(weights=tuned, values=by_alpha[1.0], alphas=(1.0, 0.5))],
        Policy(rule=rule, max_forgetting=max_forgetting),
    )


def dev_of(sources: list[str], documents: list[str]) -> GivenDev:
    return GivenDev({}, sources, documents=documents)


def noise(mean: float, units: int = 100, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 0.3, units).clip(0, 1)


def test_a_clear_gain_is_taken() -> None:
    base = noise(0.4)
    chosen = selected({0.0: base, 0.5: base + 0.1, 1.0: base + 0.05})
    assert chosen.alpha == 0.5
    assert chosen.gain.mean == pytest.approx(0.1, abs=1e-6)
    assert set(chosen.scores) == {"base", "alpha 1", "alpha 0.5"}


def test_a_gain_that_may_be_chance_is_not() -> None:
    chosen = selected({0.0: noise(0.4), 0.5: noise(0.4, seed=1) + 0.002, 1.0: noise(0.2, seed=2)})
    assert chosen.alpha == 0.0
    assert chosen.scores["alpha 1"] < chosen.scores["base"]


def test_a_source_that_loses_rejects_a_candidate() -> None:
    base = np.full(100, 0.5) + np.tile([0.01, -0.01], 50)
    gain = np.concatenate([np.full(50, 0.2), np.full(50, -0.05) + np.tile([0.01, -0.01], 25)])
    chosen = selected({0.0: base, 0.5: base + gain, 1.0: base + gain}, ["key phrases"] * 50 + ["real"] * 50)
    assert chosen.alpha == 0.0
    assert "loses on the dev questions from source 'real'" in chosen.refused["alpha 0.5"]
    by_document = selected({0.0: base, 0.5: base + gain, 1.0: base + gain}, documents=["seen"] * 50 + ["unseen"] * 50)
    assert "loses on the dev questions about unseen documents" in by_document.refused["alpha 0.5"]


def test_a_candidate_that_loses_on_uncovered_documents_is_refused() -> None:
    base, rest = noise(0.4), noise(0.5, seed=1)
    dev = {0.0: base, 0.5: base + 0.1, 1.0: base + 0.2}
    assert selected(dev, uncovered={0.0: rest, 0.5: rest, 1.0: rest}).alpha == 1.0
    lost = rest - 0.05 + noise(0.0, seed=2) / 10
    chosen = selected(dev, uncovered={0.0: rest, 0.5: rest, 1.0: lost})
    assert chosen.alpha == 0.5
    assert chosen.gain.mean == pytest.approx(0.1, abs=1e-6)
    assert "loses on the documents without a train or dev question" in chosen.refused["alpha 1"]
    assert selected(dev, uncovered={0.0: rest, 0.5: lost, 1.0: lost}).alpha == 0.0


def test_out_of_domain_documents_must_gain() -> None:
    base, rest = noise(0.4), noise(0.5, seed=1)
    dev = {0.0: base, 0.5: base + 0.1, 1.0: base + 0.2}
    same = selected(dev, uncovered={0.0: rest, 0.5: rest, 1.0: rest}, out_of_domain=0.9)
    assert same.alpha == 0.0
    assert "may not gain" in same.refused["alpha 0.5"]
    assert selected(dev, uncovered={0.0: rest, 0.5: rest + 0.02, 1.0: rest}, out_of_domain=0.9).alpha == 0.5


def test_what_is_rejected_is_reported_with_its_gain_on_dev() -> None:
    base, rest = noise(0.4), noise(0.5, seed=1)
    dev = {0.0: base, 0.5: base + 0.1, 1.0: base + 0.2}
    lost = {0.0: rest, 0.5: rest - 0.2, 1.0: rest - 0.2}
    chosen = selected(dev, uncovered=lost)
    assert chosen.alpha == 0.0
    assert chosen.refused.keys() == chosen.refused_gains.keys() == {"alpha 1", "alpha 0.5"}
    assert chosen.refused_gains["alpha 1"].mean == pytest.approx(0.2, abs=1e-6)
    taken = selected(dev, rule="dev")
    assert (taken.alpha, taken.refused) == (1.0, {})
    assert taken.gain is not None
    assert selected({0.0: base, 0.5: base, 1.0: base - 0.1}, rule="dev").alpha == 0.0


@pytest.mark.slow
def test_forgetting_is_bounded() -> None:
    base = noise(0.4)
    told = {0.0: base, 0.5: base + 0.1, 1.0: base + 0.2}
    free = selected(told)
    assert free.alpha == 1.0
    fall = {name: free.general["base"] - value for name, value in free.general.items()}
    assert fall["alpha 1"] > fall["alpha 0.5"]
    assert selected(told, max_forgetting=(fall["alpha 0.5"] + fall["alpha 1"]) / 2).alpha == 0.5
    strict = selected(told, max_forgetting=min(fall["alpha 0.5"], 0) - 0.01)
    assert strict.alpha == 0.0
    assert "forgets" in strict.refused["alpha 1"]


def test_the_general_questions_are_found_by_a_general_model() -> None:
    probe = ForgettingProbe.shipped()
    assert len(set(probe.queries)) == len(set(probe.passages)) == len(probe.queries) >= 50
    model = load_sentence_transformer("local")
    similarity = encode(model, probe.queries, "query") @ encode(model, probe.passages, "document").T
    assert (similarity.argmax(axis=1) == np.arange(len(similarity))).mean() > 0.8


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(MIN_PART, 60), min_size=1, max_size=3), st.integers(0, MIN_PART - 1), st.integers(0, 9))
def test_sources_count_equally_and_small_ones_count_with_the_largest(sizes: list[int], few: int, seed: int) -> None:
    sources = [str(place) for place, size in enumerate(sizes) for _ in range(size)]
    values = np.random.default_rng(seed).random(len(sources) + few)
    most = str(max(range(len(sizes)), key=sizes.__getitem__))
    counted = np.array([*sources, *[most] * few])
    means = [values[counted == source].mean() for source in set(sources)]
    assert dev_score(values, dev_of([*sources, *["real"] * few], [])) == pytest.approx(np.mean(means))


def test_one_question_of_another_source_decides_nothing() -> None:
    """Three hundred key phrases gain, and the one real question falls from the first place to none."""
    base, gain = np.full(301, 0.5), np.append(np.full(300, 0.06), -0.5) + np.tile([0.02, -0.02], 151)[:301]
    chosen = selected({0.0: base, 0.5: base + gain, 1.0: base + gain}, ["key phrases"] * 300 + ["real"])
    assert chosen.alpha == 1.0


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 60), st.integers(0, 9))
def test_seen_and_unseen_documents_count_equally_if_both_are_many(seen: int, unseen: int, real: int, seed: int) -> None:
    sources = ["other"] * (seen + unseen) + ["real"] * real
    documents = ["seen"] * seen + ["unseen"] * (unseen + real)
    values = np.random.default_rng(seed).random(seen + unseen + real)
    dev = dev_of(sources, documents)
    assert unit_weights(dev).sum() == pytest.approx(1)
    halves = [values[:seen], values[seen : seen + unseen]]
    enough = min(seen, unseen) >= MIN_PART
    other = (
        np.mean([half.mean() for half in halves]) if enough else values[: seen + unseen].mean() if seen + unseen else 0
    )
    if min(seen + unseen, real) >= MIN_PART:
        assert dev_score(values, dev) == pytest.approx((other + values[seen + unseen :].mean()) / 2)
    expected = dev_score(values, dev)
    assert dev_gain(values, dev).mean == pytest.approx(expected)
    if real >= MIN_PART:
        assert ("other, seen documents" in dev_parts(dev)) == enough


def test_signs_of_trouble_are_reported() -> None:
    assert "did not decrease" in check_losses([1.0] * 20)[0]
    assert check_losses([1.0] * 10 + [0.5] * 10) == []
    assert "NaN or infinite" in check_losses([1.0, float("nan")])[0]
    draw = np.random.default_rng(0)
    base = draw.normal(size=(50, 16)).astype(np.float32)
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    assert "hardly changed" in check_vectors(base, base)[0]
    one = np.tile(base[:1], (50, 1))
    assert "collapsed" in check_vectors(base, one)[0]
    assert check_vectors(base, base[:, ::-1]) == []
    assert "hardly better than chance" in check_base_score(0.02, 0.01)[0]
    assert check_base_score(0.5, 0.01) == []
    sources = ["real"] * 20 + ["key phrases"] * 20
    assert "are unlike real ones" in check_sources(np.array([-0.01] * 20 + [0.1] * 20), sources)[0]
    assert check_sources(np.array([0.01] * 20 + [0.1] * 20), sources) == []


def test_repeated_training_questions_are_reported() -> None:
    passages = {f"p{n}": Passage(f"p{n}", f"Passage {n}") for n in range(20)}
    queries = {f"q{n}": Query(f"q{n}", "Where do I book leave for the summer?") for n in range(20)}
    dataset = QADataset(passages, queries, {"train": {f"q{n}": {f"p{n}": 1} for n in range(20)}})
    assert "95% of the training questions" in check_questions(dataset.texts("train"))[0]


def test_chance_is_that_of_random_rankings(dataset: QADataset) -> None:
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


def test_weights_that_are_not_numbers_are_never_shipped() -> None:
    model, base, _ = weights()
    broken = {name: weight * float("nan") if weight.is_floating_point() else weight for name, weight in base.items()}
    values = {0.0: noise(0.5, 60), 1.0: np.full(60, np.nan)}
    dev = GivenDev(values, ["other"] * 60)
    for rule in ("significant", "not-worse"):
        tuned = [Tuned(weights=broken, values=values[1.0], alphas=(1.0,))]
        assert WeightSelection(model, base, dev).select(values[0.0], tuned, Policy(rule=rule)).alpha == 0.0


def test_not_worse_takes_a_gain_that_may_be_chance_and_no_loss() -> None:
    base = noise(0.4)
    better = {0.0: base, 0.5: base + 0.001 * np.sign(noise(0.0, seed=1) - 0.1), 1.0: base - 0.1}
    assert dev_score(better[0.5], dev_of(["other"] * 100, [])) != dev_score(base, dev_of(["other"] * 100, []))
    assert selected({0.0: base, 0.5: base, 1.0: base}, rule="not-worse").alpha == 1.0
    assert selected({0.0: base, 0.5: base - 0.01, 1.0: base - 0.1}, rule="not-worse").alpha == 0.0


def test_several_tries_are_corrected_for_chance() -> None:
    """A gain that would do for one candidate is what chance gives one of twenty."""
    base = Candidate(name="base", alpha=0.0, values=np.full(100, 0.4))
    noise = np.random.default_rng(0).normal(0, 0.2, (20, 100))
    gains = noise - noise.mean(axis=1, keepdims=True) + np.array([0.045, *[0.0] * 19])[:, None]
    tries = [Candidate(name=f"pull {n}", alpha=1.0, values=base.values + gain) for n, gain in enumerate(gains)]
    dev = dev_of(["other"] * 100, [])
    assert select(base, tries, dev).name == "pull 0"
    corrected = select(base, tries, dev, Policy(correct_for_multiple=True))
    assert corrected.name == "base"
    assert "20 candidates were tried" in corrected.refused["pull 0"]


def test_the_reason_for_a_refusal_is_the_strongest_one() -> None:
    """A candidate that loses on one source is refused for that, also if its gain may be chance."""
    base = Candidate(name="base", alpha=0.0, values=np.full(80, 0.4))
    gain = np.concatenate([np.full(40, 0.2), np.full(40, -0.1)]) + np.tile([0.02, -0.02], 40)
    tries = [Candidate(name=f"pull {n}", alpha=1.0, values=base.values + gain) for n in range(2)]
    found = select(base, tries, dev_of(["real"] * 40 + ["other"] * 40, []), Policy(correct_for_multiple=True))
    assert found.name == "base"
    assert all("loses on the dev questions from source 'other'" in reason for reason in found.refused.values())


def test_an_unknown_bound_is_null() -> None:
    assert gain_to_dict(None) is None
    assert gain_to_dict(Difference(0.12341, (0.01, 0.2), 0.01)) == {"mean": 0.1234, "ci95": [0.01, 0.2]}
    assert gain_to_dict(Difference(0.3, (float("-inf"), float("inf")), 0.1)) == {"mean": 0.3, "ci95": [None, None]}
