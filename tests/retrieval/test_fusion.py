"""Fusion of two rankings: the methods, the weight, and what is learned on dev questions."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_ft import InputError
from rag_ft.evaluation.runs.fusion_learning import WEIGHTS, _flattest_optimum, learn_fusion
from rag_ft.retrieval import Fusion
from rag_ft.retrieval import fusion as fusion_module
from rag_ft.retrieval.fusion import Pool

METHODS = ["zscore", "min_max", "rrf"]


def pool_of(dense: list[float], sparse: list[float]) -> Pool:
    return Pool([f"p{place}" for place in range(len(dense))], np.array(dense), np.array(sparse))


# Scores as models give them: no two of them differ by less than a float32 can express.
hundredths, tenths = st.integers(-100, 100).map(lambda n: n / 100), st.integers(0, 500).map(lambda n: n / 10)
scores = st.lists(st.tuples(hundredths, tenths), min_size=1, max_size=40)


@settings(deadline=None)
@given(scores, st.sampled_from(METHODS), st.floats(0, 1))
def test_every_fusion_ranks_each_passage_once(pairs: list[tuple[float, float]], method: str, weight: float) -> None:
    pool = pool_of([dense for dense, _ in pairs], [sparse for _, sparse in pairs])
    ranked = Fusion(method, weight).rank(pool)
    passages = [passage for passage, _ in ranked]
    assert len(passages) == len(set(passages))
    assert set(passages) <= set(pool.ids)
    assert all(np.isfinite(score) for _, score in ranked)
    assert [score for _, score in ranked] == sorted((score for _, score in ranked), reverse=True)
    if weight > 0:
        assert len(passages) == len(pool.ids)


@settings(deadline=None)
@given(scores, st.sampled_from(METHODS))
def test_weights_0_and_1_rank_by_one_retriever_alone(pairs: list[tuple[float, float]], method: str) -> None:
    pool = pool_of([dense for dense, _ in pairs], [sparse for _, sparse in pairs])
    by_dense = [pool.dense[int(passage[1:])] for passage, _ in Fusion(method, 1.0).rank(pool)]
    assert by_dense == sorted(by_dense, reverse=True)
    by_words = [pool.sparse[int(passage[1:])] for passage, _ in Fusion(method, 0.0).rank(pool)]
    assert by_words == sorted(by_words, reverse=True)
    assert all(score > 0 for score in by_words)  # BM25 alone leaves out passages without a common word


@settings(deadline=None)
@given(scores, st.sampled_from(METHODS), st.floats(0, 1), st.randoms())
def test_the_order_of_a_pool_does_not_matter(
    pairs: list[tuple[float, float]], method: str, weight: float, draw: Random
) -> None:
    """Offline a pool is in the order of the corpus, in an app in the order of the two rankings."""
    pool = pool_of([dense for dense, _ in pairs], [sparse for _, sparse in pairs])
    places = list(range(len(pairs)))
    draw.shuffle(places)
    shuffled = Pool([pool.ids[place] for place in places], pool.dense[places], pool.sparse[places])
    fusion = Fusion(method, weight)
    assert [passage for passage, _ in fusion.rank(pool)] == [passage for passage, _ in fusion.rank(shuffled)]


@pytest.mark.parametrize("fusion", [Fusion("rrf"), Fusion("min_max", 0.3), Fusion("zscore", 0.5, depth=7)])
def test_a_fusion_survives_json(fusion: Fusion) -> None:
    assert Fusion.from_dict(fusion.to_dict()) == fusion


def test_a_stored_fusion_keeps_the_format_of_0_1_0() -> None:
    stored = {"method": "standardised", "weight": 0.3, "by_question": [], "depth": 100}
    assert Fusion("zscore", 0.3).to_dict() == stored
    assert [Fusion(method).to_dict()["method"] for method in METHODS] == ["standardised", "relative", "reciprocal-rank"]


def test_weights_of_single_questions_in_an_old_record_are_ignored_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fusion_module._log_weights_of_queries.cache_clear()
    stored = {"method": "relative", "weight": 0.4, "by_question": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "depth": 50}
    assert Fusion.from_dict(stored) == Fusion.from_dict(stored) == Fusion("min_max", 0.4, 50)
    assert [record.message for record in caplog.records] == [
        "a stored fusion has weights for single questions, which are no longer supported: its overall weight is used"
    ]


@pytest.mark.parametrize(
    ("values", "named"),
    [({}, "method"), ({"method": "sum", "weight": 1}, "sum"), ({"method": "relative", "weight": 7}, "7"),
     ({"method": "relative", "weight": "x"}, "x"), ({"method": "relative", "weight": 1, "depth": 0}, "depth 0")],
)  # fmt: skip
def test_values_that_describe_no_fusion_are_refused(values: dict, named: str) -> None:
    with pytest.raises(InputError, match=named):
        Fusion.from_dict(values)


def questions(count: int, good: str, seed: int = 0) -> tuple[list[Pool], list[dict[str, int]]]:
    """Questions for which one retriever ranks the right passage first, and the other at random."""
    draw = np.random.default_rng(seed)
    pools = []
    for _ in range(count):
        right, chance = np.array([0.9, 0.2, 0.1, 0.05, 0.0]), draw.uniform(0.01, 1, 5)
        pools.append(pool_of(list(right), list(chance)) if good == "dense" else pool_of(list(chance), list(right)))
    return pools, [{"p0": 1}] * count


def test_the_better_retriever_gets_the_weight() -> None:
    assert learn_fusion(*questions(60, "dense")).fusion.weight >= 0.5
    assert learn_fusion(*questions(60, "sparse")).fusion.weight <= 0.5


def test_a_flat_optimum_is_preferred_to_a_sharp_one() -> None:
    curve = [0.5] * len(WEIGHTS)
    curve[2] = 0.6  # a spike, and a plateau that is a little lower
    curve[10:15] = [0.58] * 5
    assert _flattest_optimum(dict.fromkeys(METHODS, curve)) == ("zscore", 0.55)


def test_a_fusion_is_not_learned_without_questions() -> None:
    with pytest.raises(InputError, match="dev split"):
        learn_fusion([], [])


def test_cross_validated_scores_do_not_come_from_the_fusion_of_the_same_questions() -> None:
    pools, relevant = questions(60, "dense")
    learned = learn_fusion(pools, relevant)
    scores = learned.cross_validated(range(60))
    assert scores.shape == (60,)
    assert scores.mean() <= max(map(max, learned.curves.values())) + 1e-9
    # Half of the groups want one retriever alone and half the other one: what was learned on others is of no use.
    mixed = [*questions(30, "dense")[0], *questions(30, "sparse")[0]]
    groups = ["a"] * 30 + ["b"] * 30
    both = learn_fusion(mixed, [{"p0": 1}] * 60)
    assert both.cross_validated(groups).mean() < max(map(max, both.curves.values()))
    assert both.cross_validated(["one"] * 60).mean() <= max(map(max, both.curves.values())) + 1e-9
