"""Metrics are those of trec_eval: compared with ir_measures."""

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_ft.errors import InputError
from rag_ft.evaluation.metrics import metrics_per_query

SAME = {
    "ndcg@10": ir_measures.nDCG @ 10,
    "ndcg@3": ir_measures.nDCG @ 3,
    "mrr@10": ir_measures.RR @ 10,
    "recall@10": ir_measures.R @ 10,
    "precision@5": ir_measures.P @ 5,
    "map@100": ir_measures.AP @ 100,
    "map@5": ir_measures.AP @ 5,
    "hit_rate@5": ir_measures.Success @ 5,
}
PASSAGES = [f"p{number}" for number in range(30)]


@st.composite
def rankings_with_qrels(draw: st.DrawFn) -> tuple[dict[str, list[str]], dict[str, dict[str, int]]]:
    qrels, rankings = {}, {}
    for number in range(draw(st.integers(1, 4))):
        grades = st.dictionaries(st.sampled_from(PASSAGES), st.integers(1, 4), min_size=1, max_size=15)
        qrels[f"q{number}"] = draw(grades)
        rankings[f"q{number}"] = draw(st.permutations(PASSAGES))[: draw(st.integers(0, len(PASSAGES)))]
    return rankings, qrels


@given(drawn=rankings_with_qrels())
@settings(max_examples=100, deadline=None)
def test_every_metric_equals_trec_eval(drawn: tuple[dict[str, list[str]], dict[str, dict[str, int]]]) -> None:
    rankings, qrels = drawn
    found = metrics_per_query(rankings, qrels, list(SAME))
    run = {
        query: {passage: -float(place) for place, passage in enumerate(passages)}
        for query, passages in rankings.items()
    }
    expected = {name: dict.fromkeys(qrels, 0.0) for name in SAME}
    names = {measure: name for name, measure in SAME.items()}
    for value in ir_measures.iter_calc(list(SAME.values()), qrels, run):
        expected[names[value.measure]][value.query_id] = value.value
    for name in SAME:
        np.testing.assert_allclose(found[name], list(expected[name].values()), atol=1e-9, err_msg=name)


@given(drawn=rankings_with_qrels(), depth=st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_every_metric_is_between_0_and_1_and_the_ideal_ranking_is_best(drawn: tuple, depth: int) -> None:
    rankings, qrels = drawn
    kinds = [f"{kind}@{depth}" for kind in ("hit_rate", "mrr", "ndcg", "recall", "precision", "map")]
    ideal = {query: sorted(grades, key=lambda p: -grades[p]) for query, grades in qrels.items()}
    found, best = metrics_per_query(rankings, qrels, kinds), metrics_per_query(ideal, qrels, kinds)
    for kind in kinds:
        assert (found[kind] >= 0).all()
        assert (found[kind] <= best[kind] + 1e-12).all()
        assert (best[kind] <= 1 + 1e-12).all()
    assert np.allclose(best[f"ndcg@{depth}"], 1)


def test_a_question_without_a_ranking_scores_0() -> None:
    found = metrics_per_query({}, {"q": {"p": 1}})
    assert {name: values.tolist() for name, values in found.items()} == {key: [0.0] for key in found}


@pytest.mark.parametrize("name", ["ndcg", "ndcg@0", "ndcg@-1", "nDCG@10", "f1@3", "mrr@ten", ""])
def test_an_unknown_metric_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InputError, match=r"unknown metric .*: use one of hit_rate, mrr, ndcg"):
        metrics_per_query({"q": ["p"]}, {"q": {"p": 1}}, [name])
