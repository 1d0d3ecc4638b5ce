"""A verdict is right as often as it claims: simulated comparisons with a known truth."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
from fakes.comparisons import runs_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rag_ft.dataset.qa_dataset import Passage, QADataset, Query
from rag_ft.evaluation import CompareOptions, score_runs
from rag_ft.evaluation.resampling import resampling_groups
from rag_ft.evaluation.serialisation import difference_from_dict, difference_to_dict
from rag_ft.evaluation.significance import Difference, paired_bootstrap, paired_randomisation, smallest_effect
from rag_ft.evaluation.verdict import Costs, VerdictRules, decide
from rag_ft.training.selection.dev_score import dev_gain

UNKNOWN = Difference(0.03, (-1.0, 1.0), 1.0)


def simulated(
    gain: float, deviation: float, questions: int, documents: int, correlation: float, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Differences of questions that share part of their noise with their document (the intraclass correlation)."""
    draw = np.random.default_rng(seed)
    groups = np.arange(questions) % documents
    shared = draw.normal(0, deviation * correlation**0.5, documents)[groups]
    return gain + shared + draw.normal(0, deviation * (1 - correlation) ** 0.5, questions), groups


def corpus(documents: int, passages: int, tested: int | None = None) -> QADataset:
    """A corpus with a test question about each passage of the first documents."""
    draw = random.Random(0)
    found = {
        f"d{document}#{place}": Passage(
            f"d{document}#{place}", " ".join(f"{draw.random():.12f}" for _ in range(8)), "", f"d{document}"
        )
        for document in range(documents)
        for place in range(passages)
    }
    asked = [key for key, passage in found.items() if int(passage.doc_id[1:]) < (tested or documents)]
    queries = {f"q {key}": Query(f"q {key}", f"what is {key}") for key in asked}
    return QADataset(found, queries, {"test": {f"q {key}": {key: 1} for key in asked}})


def rankings(dataset: QADataset, hits: float, seed: int) -> list[list[str]]:
    """A retriever that ranks the right passage first for a share of the questions, and else finds nothing."""
    draw = random.Random(seed)
    return [[passage] if draw.random() < hits else [] for _, passage in dataset.pairs("test")]


@pytest.mark.parametrize(("documents", "passages"), [(60, 2), (12, 10), (3, 40), (1, 100)])
@pytest.mark.parametrize("hits", [0.0, 0.5, 1.0])
def test_a_copy_of_itself_is_never_shipped(documents: int, passages: int, hits: float) -> None:
    dataset = corpus(documents, passages)
    found = rankings(dataset, hits, seed=1)
    names = {"baseline": "a", "candidate": "a", "bm25": "bm25"}
    result = score_runs(dataset, "test", runs_of({"baseline": found, "candidate": found, "bm25": found}, names))
    assert result.verdict == "keep-baseline"
    assert result.differences["candidate"]["ndcg@10"] == Difference(0.0, (0.0, 0.0), 1.0)


@pytest.mark.parametrize(("documents", "questions"), [(12, 120), (40, 200)])
@pytest.mark.parametrize("correlation", [0.0, 0.3])
def test_chance_is_shipped_in_few_of_200_comparisons(documents: int, questions: int, correlation: float) -> None:
    """The interval's upper end is wrong in 2.5 of 100; 14 of 200 would be seen by chance once in 1,000 times."""
    shipped = 0
    for seed in range(200):
        differences, groups = simulated(0.0, 0.25, questions, documents, correlation, seed)
        shipped += decide(paired_bootstrap(differences, groups, resamples=1000), questions)[0] == "ship"
    assert shipped <= 13


def test_chance_is_rarely_shipped_if_most_questions_do_not_change() -> None:
    """nDCG differences are mostly 0, and the others are large and of few values; documents differ in size."""
    shipped = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        groups = draw.choice(40, 200, p=(weights := draw.dirichlet(np.ones(40) * 2)) / weights.sum())
        differences = draw.choice([-1, -0.37, 0, 0.37, 1], 200, p=[0.03, 0.12, 0.7, 0.12, 0.03])
        shipped += decide(paired_bootstrap(differences, groups, resamples=1000), 200)[0] == "ship"
    assert shipped <= 13


@pytest.mark.parametrize("documents", [1, 5, 10, 29, 60])
def test_chance_is_rarely_shipped_whatever_is_resampled(documents: int) -> None:
    """With under 10 documents groups of neighbours are resampled, as `compare` does."""
    groups, note = resampling_groups(corpus(documents, 240 // documents), "test")
    assert bool(note) == (documents < 10)
    _, member = np.unique([str(group) for group in groups], return_inverse=True)
    shipped = 0
    for seed in range(100):
        draw = np.random.default_rng(seed)
        shared = draw.normal(0, 0.08, member.max() + 1)[member]
        differences = shared + draw.normal(0, 0.24, len(member))
        shipped += decide(paired_bootstrap(differences, groups, seed, resamples=400), len(groups))[0] == "ship"
    assert shipped <= 9  # 2.5 of 100 are expected; 10 would be seen by chance less than once in 1,000 times


@pytest.mark.parametrize("documents", [10, 30])
def test_many_small_gains_and_rare_losses_that_60_questions_may_miss_are_rarely_shipped(documents: int) -> None:
    """A third of the questions gain a little, and one in 20 loses as much as all of these gain."""
    significant = shipped = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        differences = draw.choice([-0.667, 0.0, 0.095], 60, p=[0.05, 0.6, 0.35])
        found = paired_bootstrap(differences, [n % documents for n in range(60)], resamples=400)
        significant += found.ci95[0] > 0
        shipped += decide(found, 60)[0] == "ship"
    assert shipped <= 9 < significant


def test_a_small_gain_needs_more_questions() -> None:
    gain = Difference(0.033, (0.02, 0.046), 0.001)
    assert "60 questions may show no rare large loss" in decide(gain, 60)[1]
    assert (decide(gain, 60)[0], decide(gain, 400)[0]) == ("inconclusive", "ship")


def test_a_real_gain_is_shipped_in_most_of_100_comparisons() -> None:
    shipped = 0
    for seed in range(100):
        differences, groups = simulated(0.05, 0.25, questions=400, documents=60, correlation=0.1, seed=seed)
        shipped += decide(paired_bootstrap(differences, groups, resamples=1000), 400)[0] == "ship"
    assert shipped >= 75


def test_the_interval_holds_the_true_gain_in_about_95_of_100() -> None:
    held = 0
    for seed in range(200):
        differences, groups = simulated(0.03, 0.25, questions=240, documents=30, correlation=0.2, seed=seed)
        low, high = paired_bootstrap(differences, groups, resamples=1000).ci95
        held += low <= 0.03 <= high
    assert 180 <= held <= 200


def test_the_same_seed_gives_the_same_interval() -> None:
    differences, groups = simulated(0.02, 0.25, 100, 20, 0.1, seed=0)
    assert paired_bootstrap(differences, groups, seed=4) == paired_bootstrap(differences, groups, seed=4)
    assert paired_bootstrap(differences, groups, seed=4) != paired_bootstrap(differences, groups, seed=5)


def test_shared_documents_widen_the_interval() -> None:
    differences, groups = simulated(0.05, 0.25, 400, 20, 0.3, seed=1)
    low, high = paired_bootstrap(differences, groups).ci95
    alone = paired_bootstrap(differences, range(400)).ci95
    assert high - low > 1.5 * (alone[1] - alone[0])


@pytest.mark.parametrize("hits", [0.2, 1.0])
def test_under_50_questions_the_verdict_is_inconclusive(hits: float) -> None:
    dataset = corpus(49, 1)
    before, after = rankings(dataset, 0.0, 1), rankings(dataset, hits, 1)
    result = score_runs(dataset, "test", runs_of({"baseline": before, "candidate": after}))
    assert result.verdict == "inconclusive"
    assert "49" in result.reasons["candidate"]


def test_50_questions_are_enough() -> None:
    sure = Difference(0.2, (0.1, 0.3), 0.0)
    assert decide(sure, 49)[0] == "inconclusive"
    assert decide(sure, 50)[0] == "ship"


@pytest.mark.parametrize(
    ("mean", "interval", "verdict"),
    [
        (0.05, (0.01, 0.09), "ship"),
        (-0.05, (-0.09, -0.01), "keep-baseline"),
        (-0.01, (-0.05, 0.03), "keep-baseline"),
        (0.002, (-0.003, 0.007), "keep-baseline"),
        (0.03, (-0.01, 0.07), "inconclusive"),
        (0.03, UNKNOWN.ci95, "inconclusive"),
    ],
)
def test_the_verdict_follows_from_the_interval(mean: float, interval: tuple[float, float], verdict: str) -> None:
    assert decide(Difference(mean, interval, 0.5), 200)[0] == verdict


def test_questions_are_resampled_by_document() -> None:
    groups, note = resampling_groups(corpus(12, 3), "test")
    assert len(set(groups)) == 12
    assert note == ""


def test_questions_on_one_document_are_resampled_by_neighbours_and_a_note_says_so() -> None:
    groups, note = resampling_groups(corpus(1, 60), "test")
    assert len(set(groups)) == 12
    assert all(len({groups[place] for place in range(start, start + 5)}) == 1 for start in range(0, 60, 5))
    assert "1 document:" in note
    assert "5 neighbouring passages" in note


def test_questions_on_few_of_many_documents_are_resampled_by_neighbours_too() -> None:
    groups, note = resampling_groups(corpus(20, 10, tested=3), "test")
    assert len(set(groups)) == 6
    assert "3 documents" in note


@pytest.mark.parametrize("differences", [[], [0.5], [0.5] * 60])
def test_one_group_proves_nothing(differences: list[float]) -> None:
    found = paired_bootstrap(np.array(differences), ["only"] * len(differences))
    assert (found.ci95, found.p_value, found.is_unknown) == ((-1.0, 1.0), 1.0, True)
    verdict, reason = decide(found, 60)
    assert verdict == "inconclusive"
    assert "too few documents" in reason


def test_two_groups_that_agree_by_accident_prove_nothing() -> None:
    gains = np.array([1.0] + [0.0] * 29 + [1.0] + [0.0] * 29)
    difference = paired_bootstrap(gains, [0] * 30 + [1] * 30)
    assert difference.ci95[0] < 0 < difference.mean < difference.ci95[1]
    assert difference.p_value > 0.05


@pytest.mark.parametrize(("groups", "sure"), [(2, False), (5, False), (6, True), (60, True)])
def test_equal_gains_on_few_documents_prove_nothing(groups: int, sure: bool) -> None:
    found = paired_bootstrap(np.full(60, 0.37), [number % groups for number in range(60)])
    assert found.p_value == 2.0 ** (1 - groups)  # of the sign test
    assert (decide(found, 60)[0] == "ship") is sure
    assert (found.ci95[0] > 0) is (found.p_value < 0.05)


@st.composite
def differences_of_groups(draw: st.DrawFn) -> tuple[NDArray[np.float64], list[int]]:
    """Differences between -1 and 1, some of them typical of nDCG, in groups of any sizes."""
    values = st.floats(-1, 1, allow_subnormal=False) | st.sampled_from([-1.0, -0.37, 0.0, 0.13, 1.0])
    pairs = draw(st.lists(st.tuples(values, st.integers(0, draw(st.integers(0, 40)))), max_size=80))
    return np.array([value for value, _ in pairs]), [group for _, group in pairs]


@given(differences_of_groups())
@settings(deadline=None)
def test_an_interval_contains_possible_differences_and_the_mean(drawn: tuple[NDArray[np.float64], list[int]]) -> None:
    differences, groups = drawn
    found = paired_bootstrap(differences, groups, resamples=200)
    low, high = found.ci95
    assert -1 <= low <= high <= 1
    assert low - 1e-9 <= found.mean <= high + 1e-9
    assert 0 <= found.p_value <= 1
    assert not found.is_unknown or len(set(groups)) < 2 or found.p_value > 0.05
    effect = smallest_effect(differences, groups) if groups else None
    assert effect is None or 0 <= effect <= 1


@given(differences_of_groups())
@settings(deadline=None)
def test_the_opposite_differences_have_the_opposite_interval(drawn: tuple[NDArray[np.float64], list[int]]) -> None:
    differences, groups = drawn
    found, opposite = (paired_bootstrap(each, groups, resamples=200) for each in (differences, -differences))
    assert opposite.mean == pytest.approx(-found.mean, abs=1e-12)
    assert opposite.ci95 == pytest.approx((-found.ci95[1], -found.ci95[0]), abs=1e-6)
    assert opposite.p_value == pytest.approx(found.p_value, abs=0.02)


@given(differences_of_groups(), st.sampled_from([0.5, 2.0, 4.0]))
@settings(deadline=None)
def test_another_unit_changes_nothing_else(drawn: tuple[NDArray[np.float64], list[int]], limit: float) -> None:
    differences, groups = drawn
    assume(np.abs(differences).max(initial=1.0) > 1e-6)
    found = paired_bootstrap(differences, groups, resamples=200)
    scaled = paired_bootstrap(differences * limit, groups, resamples=200, limit=limit)
    assert scaled.ci95 == pytest.approx((found.ci95[0] * limit, found.ci95[1] * limit), abs=1e-6)
    assert scaled.is_unknown == found.is_unknown


@pytest.mark.parametrize("mean", [1.0, -1.0, 1.0 + 1e-15, 1.5])
def test_weighted_differences_may_reach_the_limit(mean: float) -> None:
    """Weights make single differences larger than a mean can be. At the limit they say nothing."""
    differences = np.tile([mean - 0.5, mean + 0.5, mean], 20)
    assert paired_bootstrap(differences, range(60)).is_unknown


@pytest.mark.parametrize("part", [0, 30])
def test_a_gain_on_every_dev_question_is_a_possible_gain(part: int) -> None:
    dev = SimpleNamespace(sources=["real"] * 40 + ["other"] * (60 + part), documents=[], groups=list(range(100 + part)))
    found = dev_gain(np.ones(100 + part), dev)  # type: ignore[arg-type]
    assert found.mean == pytest.approx(1.0)
    assert -1 <= found.ci95[0] <= found.ci95[1] <= 1
    correlations = np.random.default_rng(0).normal(0.9, 1.5, 100 + part)  # what pairs add to Spearman's correlation
    low, high = dev_gain(correlations, dev).ci95  # type: ignore[arg-type]
    assert -2 <= low < 0.9 < high <= 2


@pytest.mark.parametrize("value", [1.0, 0.37, -0.02])
def test_the_same_difference_on_every_document_is_not_certain_of_the_others(value: float) -> None:
    """Of 12 documents, 97.5 % of samples would show one of the others if those were over a quarter."""
    low, high = sorted(abs(bound) for bound in paired_bootstrap(np.full(60, value), [n % 12 for n in range(60)]).ci95)
    unseen = 1 - 0.025 ** (1 / 12)
    assert low == pytest.approx(abs(value) * (1 - 2 * unseen))
    assert high == pytest.approx(min(1.0, abs(value) * (1 + 2 * unseen)))


@pytest.mark.parametrize(("documents", "fraction"), [(5, 0.9), (10, 0.8), (10, 0.95), (30, 0.9)])
def test_the_interval_holds_a_large_gain_in_about_95_of_100(documents: int, fraction: float) -> None:
    """Each question is found by the candidate or by neither, so that the mean is near its limit of 1."""
    above = below = 0
    for seed in range(300):
        draw = np.random.default_rng(seed)
        of_document = draw.beta(4 * fraction, 4 * (1 - fraction), documents)
        groups = np.arange(60) % documents
        found = paired_bootstrap((draw.random(60) < of_document[groups]).astype(float), groups, resamples=400)
        above += found.ci95[0] > fraction + 1e-9
        below += found.ci95[1] < fraction - 1e-9
    assert above <= 17, "7.5 of 300 are expected; 18 would be seen by chance once in 1,000 times"
    assert below <= 17


def test_chance_is_rarely_significant_if_one_document_has_half_of_the_questions() -> None:
    """With the standard error for documents of equal size, 22 of 300 intervals exclude 0."""
    significant = 0
    groups = np.append(np.zeros(200, dtype=int), 1 + np.arange(200) % 11)
    for seed in range(300):
        draw = np.random.default_rng(seed)
        differences = draw.normal(0, 0.08, 12)[groups] + draw.normal(0, 0.24, 400)
        low, high = paired_bootstrap(differences, groups, resamples=400).ci95
        significant += low > 0 or high < 0
    assert significant <= 15


def test_an_unknown_interval_is_null_in_a_file_and_words_in_a_text() -> None:
    assert str(UNKNOWN) == "+0.030 [not known]"
    stored = difference_to_dict(UNKNOWN)
    assert stored["ci95"] == [None, None]
    assert difference_from_dict(stored) == UNKNOWN
    known = Difference(0.03, (-0.01, 0.07), 0.2)
    assert difference_from_dict(difference_to_dict(known)) == known
    # Version 0.1.0 wrote infinite bounds as null too, and other numbers as they were.
    assert difference_from_dict({"mean": 0.1, "ci95": [None, None], "p_value": 1.0}).is_unknown
    assert difference_from_dict({"mean": 0.1, "ci95": [-1.003, 0.293], "p_value": 0.4}).ci95 == (-1.003, 0.293)


def test_no_possible_gain_is_significant_on_two_documents_that_differ() -> None:
    assert smallest_effect(np.repeat([0.5, -0.5], 30), np.repeat([0, 1], 30).tolist()) is None
    assert smallest_effect(np.ones(60), [0] * 60) is None


def test_a_loss_on_one_slice_is_not_hidden_by_a_gain_on_another() -> None:
    gain, loss = Difference(0.1, (0.05, 0.15), 0.001), Difference(-0.1, (-0.2, -0.01), 0.01)
    verdict, reason = decide(gain, 200, {"known": gain, "new": loss})
    assert verdict == "inconclusive"
    assert "fell on unseen documents" in reason
    verdict, reason = decide(gain, 200, {"known": gain, "new": Difference(-0.02, (-0.1, 0.06), 0.5)})
    assert verdict == "ship"
    assert "on seen documents: +0.100" in reason
    assert "unseen documents: -0.020" in reason


@pytest.mark.parametrize("documents", [12, 60])
def test_randomisation_agrees_with_the_bootstrap_about_chance(documents: int) -> None:
    below = 0
    for seed in range(200):
        differences, groups = simulated(0.0, 0.25, 120, documents, 0.2, seed)
        below += paired_randomisation(differences, groups, resamples=400) < 0.05
    assert below <= 19  # 5 % of 200, and what chance adds to it once in 1,000 times


def test_randomisation_detects_a_gain() -> None:
    differences, groups = simulated(0.05, 0.25, 400, 60, 0.1, seed=3)
    assert paired_randomisation(differences, groups) < 0.01
    assert paired_randomisation(np.zeros(60), range(60)) == 1.0
    assert paired_randomisation(np.zeros(0), []) == 1.0


def test_many_candidates_are_not_shipped_more_often_by_chance() -> None:
    shipped = 0
    dataset = corpus(40, 4)
    base = rankings(dataset, 0.5, seed=0)
    names = {"baseline": "base", "bm25": "bm25"} | {f"candidate-{n}": f"c{n}" for n in range(2, 10)}
    for seed in range(40):
        found = {role: rankings(dataset, 0.5, seed=1 + seed * 10 + n) for n, role in enumerate(names)}
        runs = runs_of(found | {"baseline": base, "bm25": base}, names)
        result = score_runs(dataset, "test", runs, CompareOptions(metrics=["ndcg@10"]))
        shipped += "ship" in result.verdicts.values()
    assert shipped <= 6  # of 40, at most 5 % of which are expected


def test_the_costs_of_a_candidate_count() -> None:
    gain = Difference(0.1, (0.05, 0.15), 0.001)
    assert decide(gain, 200, costs=Costs(time=2.0, size=2.0))[0] == "ship"
    slow, why = decide(gain, 200, costs=Costs(time=8.0))
    assert (slow, "8.0 times as long" in why) == ("inconclusive", True)
    large, why = decide(gain, 200, costs=Costs(size=4.0))
    assert (large, "4.0 times as large" in why) == ("inconclusive", True)
    assert decide(gain, 200, costs=Costs(8.0, 8.0), rules=VerdictRules(max_slowdown=10, max_growth=10))[0] == "ship"
    assert decide(gain, 200, rules=VerdictRules(min_questions=300))[0] == "inconclusive"
    assert decide(gain, 200, adjusted_p=0.08)[0] == "inconclusive"


def test_merging_more_than_a_thousand_documents_keeps_the_interval() -> None:
    differences, groups = simulated(0.02, 0.25, 6_000, 3_000, 0.1, seed=0)
    found = paired_bootstrap(differences, groups)
    means = np.bincount(groups, differences) / np.bincount(groups)
    half = 1.96 * means.std(ddof=1) / np.sqrt(len(means))
    assert found.mean == pytest.approx(differences.mean())
    assert (found.ci95[1] - found.ci95[0]) / 2 == pytest.approx(half, rel=0.1)
    assert paired_randomisation(differences, groups) == pytest.approx(found.p_value, abs=0.01)
