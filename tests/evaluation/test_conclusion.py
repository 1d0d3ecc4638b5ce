"""The conclusion: dev chooses the retriever, test decides about the model and can reject a choice."""

from pathlib import Path

import numpy as np
import pytest
from fakes.comparisons import runs_of
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rag_ft import Comparison, Passage, QADataset, Query
from rag_ft.evaluation import CompareOptions, VerdictRules, score_runs
from rag_ft.evaluation.conclusion import ComparedResults, Conclusion, conclude, cost_of
from rag_ft.evaluation.retriever_choice import Choice, halves
from rag_ft.evaluation.significance import Difference

ROLES = ("baseline", "candidate", "bm25", "hybrid-baseline", "hybrid-candidate")
BETTER, WORSE = Difference(0.05, (0.02, 0.08), 0.001), Difference(-0.05, (-0.08, -0.02), 0.001)
EQUAL = Difference(0.0, (-0.02, 0.02), 0.9)


def results(verdict: str, questions: int = 300, **gains: Difference) -> ComparedResults:
    """Results in which a role differs from any other one by the difference that is given for it."""
    given = {role.replace("_", "-"): gain for role, gain in gains.items()}
    return ComparedResults(
        ndcg=dict.fromkeys(ROLES, 0.5),
        difference=lambda role, _: given.get(role, EQUAL),
        verdicts={"candidate": verdict},  # type: ignore[dict-item]
        reasons={"candidate": "nDCG@10 rose"},
        questions=questions,
    )


def chosen(verdict: str, scores: dict[str, float], questions: int = 200, **others: object) -> Conclusion:
    return conclude(Choice(scores=scores, questions=questions), results(verdict, **others))  # type: ignore[arg-type]


DEV = {"baseline": 0.4, "candidate": 0.6, "bm25": 0.5, "hybrid-baseline": 0.65, "hybrid-candidate": 0.7}


def test_a_tuned_model_is_shipped_behind_the_hybrid_if_dev_chooses_it() -> None:
    found = chosen("ship", DEV)
    assert (found.role, found.decision) == (
        "hybrid-candidate",
        "Ship the candidate, served behind the hybrid with BM25",
    )
    assert found.kind == "hybrid"


@pytest.mark.parametrize("verdict", ["keep-baseline", "inconclusive"])
def test_a_model_without_the_verdict_ship_is_not_used_in_a_hybrid_either(verdict: str) -> None:
    found = chosen(verdict, DEV)
    assert found.role == "hybrid-baseline"
    assert found.decision == "Keep the baseline model and add BM25 (hybrid search)"
    assert "nDCG@10 rose" in found.reason


def test_the_simplest_within_the_margin_is_chosen() -> None:
    assert chosen("ship", DEV | {"bm25": 0.691}).role == "bm25"
    assert chosen("ship", DEV | {"bm25": 0.689}).role == "hybrid-candidate"
    both = chosen("ship", DEV | {"bm25": 0.691})
    assert both.decision == "Use BM25"
    assert "take the candidate" in both.reason  # the verdict on it is not hidden
    assert "within 0.01" in both.reason


def test_test_questions_reject_a_choice_but_do_not_make_one() -> None:
    assert chosen("keep-baseline", DEV | {"bm25": 0.9}, bm25=WORSE).role == "hybrid-baseline"
    assert chosen("keep-baseline", DEV | {"bm25": 0.3}, bm25=BETTER).role == "hybrid-baseline"
    everything_worse = {"bm25": WORSE, "hybrid_baseline": WORSE}
    assert chosen("keep-baseline", DEV, **everything_worse).role == "baseline"


def test_few_questions_keep_the_baseline() -> None:
    assert chosen("inconclusive", DEV, questions=200) != chosen("inconclusive", DEV, questions=10)
    few = conclude(Choice(scores=DEV, questions=200), results("inconclusive", questions=20))
    assert (few.role, few.scores) == ("baseline", {})
    assert "too few" in few.reason


def test_without_dev_the_verdict_alone_decides() -> None:
    assert chosen("ship", {}, questions=0).role == "candidate"
    assert chosen("keep-baseline", {}, questions=0).role == "baseline"


@given(
    st.sampled_from(["ship", "keep-baseline", "inconclusive"]),
    st.fixed_dictionaries({role: st.floats(0, 1) for role in ROLES}),
    st.fixed_dictionaries({role: st.sampled_from([BETTER, WORSE, EQUAL]) for role in ROLES[1:]}),
    st.integers(0, 400),
    st.integers(0, 400),
    st.sampled_from(["embedding", "bm25", "hybrid", "retriever"]),
)
def test_verdict_and_conclusion_never_contradict_each_other(
    verdict: str, dev: dict[str, float], gains: dict[str, Difference], questions: int, on_dev: int, kind: str
) -> None:
    test = results(verdict, questions, **gains)
    found = conclude(Choice(scores=dev, questions=on_dev, kinds={"candidate": kind}), test)
    model = found.role.removeprefix("hybrid-")
    if model == "candidate":
        assert verdict == "ship" or (kind == "bm25" and verdict == "inconclusive")
    if verdict == "ship":
        assert model != "baseline"
    if found.is_decided and found.role not in ("baseline", "candidate"):
        assert gains[found.role] is not WORSE
    assert "has the highest" not in found.reason or found.best == found.role
    assert found.reason
    assert Conclusion.from_dict(found.to_dict(), test.verdicts) == found


def test_only_roles_of_a_comparison_are_chosen() -> None:
    test = results("keep-baseline")
    more = ComparedResults(**{**vars(test), "ndcg": dict(test.ndcg) | {"reranker": 0.9}})
    assert conclude(Choice(scores=DEV | {"reranker": 0.9}, questions=200), more).role == "hybrid-baseline"


def test_the_best_of_several_shipped_candidates_is_taken_if_nothing_can_be_chosen() -> None:
    test = ComparedResults(
        ndcg={"baseline": 0.4, "candidate": 0.5, "candidate-2": 0.7},
        difference=lambda role, _: BETTER,
        verdicts={"candidate": "ship", "candidate-2": "ship"},
        reasons={"candidate": "one", "candidate-2": "two"},
        names={"candidate-2": "acme-model"},
        questions=300,
    )
    found = conclude(Choice(), test)
    assert (found.role, found.decision, found.reason) == ("candidate-2", "Ship candidate-2 (acme-model)", "two")


def test_the_limits_of_a_verdict_are_those_of_the_conclusion() -> None:
    rules = VerdictRules(min_questions=400)
    conclusion = score_runs(corpus(300), "test", runs_of(RANKINGS), CompareOptions(rules=rules)).conclusion
    assert conclusion is not None
    assert conclusion.role == "baseline"
    assert "at least 400" in conclusion.reason


def corpus(questions: int) -> QADataset:
    passages = {f"p{n}": Passage(f"p{n}", f"Form {n * 7919} is signed by master {n}.") for n in range(questions)}
    queries = {f"q{n}": Query(f"q{n}", f"Who signs {n * 7919}?") for n in range(questions)}
    return QADataset(passages, queries, {"test": {f"q{n}": {f"p{n}": 1} for n in range(questions)}})


def found_by(fraction: float, questions: int, seed: int) -> list[list[str]]:
    hit: NDArray[np.bool_] = np.random.default_rng(seed).random(questions) < fraction
    return [[f"p{n}"] if hit[n] else [] for n in range(questions)]


RANKINGS = {
    role: found_by(hits, 300, seed)
    for seed, (role, hits) in enumerate({"baseline": 0.3, "candidate": 0.6, "bm25": 0.9}.items())
}


def test_without_dev_half_of_the_documents_choose_and_the_others_report(tmp_path: Path) -> None:
    runs = runs_of(
        {"baseline": found_by(0.3, 300, 0), "candidate": found_by(0.6, 300, 1), "bm25": found_by(0.9, 300, 2)}
    )
    comparison = score_runs(corpus(300), "test", runs)
    assert comparison.conclusion is not None
    assert comparison.conclusion.role == "bm25"
    assert comparison.verdict == "ship"
    assert (comparison.conclusion.questions, comparison.conclusion.questions_from) == (150, "of these questions")
    assert "on the other 150" in comparison.conclusion.reason
    assert Comparison.load(comparison.save(tmp_path / "c.json")).conclusion == comparison.conclusion
    assert "Use BM25" in comparison._repr_html_()
    text = str(comparison)
    assert text.index("Use BM25") < text.index("ship:")


def test_dev_scores_choose_whatever_test_says() -> None:
    runs = runs_of(
        {"baseline": found_by(0.3, 300, 0), "candidate": found_by(0.6, 300, 1), "bm25": found_by(0.9, 300, 2)}
    )
    comparison = score_runs(corpus(300), "test", runs, on_dev=({"baseline": 0.3, "candidate": 0.8, "bm25": 0.5}, 100))
    assert comparison.conclusion is not None
    assert comparison.conclusion.role == "candidate"
    assert comparison.conclusion.scores["bm25"] == 0.5


def test_a_stored_recommendation_of_the_first_version_is_read() -> None:
    values = {"role": "bm25", "best": "candidate", "reason": "bm25 is simpler"}
    old = Conclusion.from_dict(values, {"candidate": "ship"})
    assert str(old) == "Use bm25: bm25 is simpler."
    contradicting = {"role": "hybrid-candidate", "best": "hybrid-candidate", "reason": "it is best"}
    assert Conclusion.from_dict(contradicting, {"candidate": "inconclusive"}) is None


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(0, 5))
def test_a_document_is_in_one_half(groups: list[int], seed: int) -> None:
    mask = halves(groups, seed)
    assert mask.shape == (len(groups),)
    assert all(len({half for half, each in zip(mask, groups, strict=True) if each == group}) == 1 for group in groups)


def test_costs_say_what_was_measured() -> None:
    assert cost_of("embedding", {"query_milliseconds": 80.0}) == "80 ms per question"
    assert "no model" in cost_of("bm25", {"index_megabytes": 3.2})
    assert cost_of("retriever", {}) == ""
