"""Two lists become one: the methods, the weight, what is learned on questions, and what is recommended of it all."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_ft import InputError
from rag_ft.evaluation.recommendation import needs, recommend
from rag_ft.evaluation.runs.fusion_learning import learn_fusion
from rag_ft.retrieval import Fusion
from rag_ft.retrieval.fusion import FEATURES, Pool

METHODS = ["standardised", "relative", "reciprocal-rank"]


def pool_of(dense: list[float], sparse: list[float], words: int = 3, rarest: float = 0.9) -> Pool:
    return Pool([f"p{place}" for place in range(len(dense))], np.array(dense), np.array(sparse), words, rarest)


# Scores as models give them: not two that differ by less than a float32 can say.
hundredths, tenths = st.integers(-100, 100).map(lambda n: n / 100), st.integers(0, 500).map(lambda n: n / 10)
scores = st.lists(st.tuples(hundredths, tenths), min_size=1, max_size=40)


@settings(deadline=None)
@given(scores, st.sampled_from(METHODS), st.floats(0, 1))
def test_every_mix_ranks_each_passage_once(pairs: list[tuple[float, float]], method: str, weight: float) -> None:
    pool = pool_of([one for one, _ in pairs], [other for _, other in pairs])
    ranked = Fusion(method, weight).ranked(pool)
    found = [passage for passage, _ in ranked]
    assert len(found) == len(set(found))
    assert set(found) <= set(pool.ids)
    assert all(np.isfinite(score) for _, score in ranked)
    assert [score for _, score in ranked] == sorted((score for _, score in ranked), reverse=True)
    if weight > 0:
        assert len(found) == len(pool.ids)


@settings(deadline=None)
@given(scores, st.sampled_from(METHODS))
def test_the_ends_are_one_side_alone(pairs: list[tuple[float, float]], method: str) -> None:
    pool = pool_of([one for one, _ in pairs], [other for _, other in pairs])
    by_dense = [pool.dense[int(passage[1:])] for passage, _ in Fusion(method, 1.0).ranked(pool)]
    assert by_dense == sorted(by_dense, reverse=True)
    by_words = [pool.sparse[int(passage[1:])] for passage, _ in Fusion(method, 0.0).ranked(pool)]
    assert by_words == sorted(by_words, reverse=True)
    assert all(score > 0 for score in by_words)  # BM25 alone knows nothing of passages without a common word


@settings(deadline=None)
@given(scores, st.sampled_from(METHODS), st.floats(0, 1), st.randoms())
def test_the_order_of_a_pool_changes_nothing(
    pairs: list[tuple[float, float]], method: str, weight: float, draw: Random
) -> None:
    """Offline a pool is in the order of the corpus, in an app in that of the lists."""
    pool = pool_of([one for one, _ in pairs], [other for _, other in pairs])
    places = list(range(len(pairs)))
    draw.shuffle(places)
    shuffled = Pool([pool.ids[place] for place in places], pool.dense[places], pool.sparse[places], 3, 0.9)
    fusion = Fusion(method, weight)
    assert [passage for passage, _ in fusion.ranked(pool)] == [passage for passage, _ in fusion.ranked(shuffled)]


@pytest.mark.parametrize("fusion", [Fusion(), Fusion("min_max", 0.3), Fusion("zscore", 0.5, (0.1,) * 6)])
def test_a_fusion_survives_json(fusion: Fusion) -> None:
    assert Fusion.from_dict(fusion.to_dict()) == fusion


@pytest.mark.parametrize(
    ("values", "named"),
    [({}, "method"), ({"method": "sum", "weight": 1}, "sum"), ({"method": "relative", "weight": 7}, "7"),
     ({"method": "relative", "weight": "x"}, "x"),
     ({"method": "relative", "weight": 1, "by_question": [1]}, "1 numbers")],
)  # fmt: skip
def test_what_is_no_fusion_is_refused(values: dict, named: str) -> None:
    with pytest.raises(InputError, match=named):
        Fusion.from_dict(values)


def questions(count: int, good: str, seed: int = 0) -> tuple[list[Pool], list[dict[str, int]]]:
    """Questions of which one side ranks the right passage first, and the other at random."""
    draw = np.random.default_rng(seed)
    pools = []
    for _ in range(count):
        right, chance = np.array([0.9, 0.2, 0.1, 0.05, 0.0]), draw.uniform(0.01, 1, 5)
        pools.append(pool_of(list(right), list(chance)) if good == "dense" else pool_of(list(chance), list(right)))
    return pools, [{"p0": 1}] * count


def test_the_better_side_gets_the_weight() -> None:
    assert learn_fusion(*questions(60, "dense")).fusion.weight >= 0.5
    assert learn_fusion(*questions(60, "sparse")).fusion.weight <= 0.5


def test_a_flat_optimum_is_preferred_to_a_sharp_one() -> None:
    from rag_ft.evaluation.runs.fusion_learning import WEIGHTS, _flattest

    curve = [0.5] * len(WEIGHTS)
    curve[2] = 0.6  # a spike, and a plateau that is a little lower
    curve[10:15] = [0.58] * 5
    method, weight, _ = _flattest(dict.fromkeys(METHODS, curve))
    assert (method, weight) == ("standardised", 0.55)


def test_a_weight_for_each_question_where_questions_differ() -> None:
    """Questions with a rare word are answered by words, the others by the embedding: one weight cannot serve both."""
    draw = np.random.default_rng(0)
    pools, relevant = [], []
    for place in range(300):
        rare = place % 2 == 0
        right, wrong = [0.9, 0.5, 0.3, 0.1], list(draw.permutation([0.1, 0.5, 0.7, 0.9]))
        pools.append(pool_of(wrong, right, 1, 1.0) if rare else pool_of(right, wrong, 12, 0.5))
        relevant.append({"p0": 1})
    learned = learn_fusion(pools, relevant, range(300))
    assert learned.by_question is not None
    assert len(learned.fusion.by_question) == len(FEATURES) + 1
    assert learned.fusion.weight_for(pools[0]) < 0.5 < learned.fusion.weight_for(pools[1])


def test_no_weight_for_each_question_where_one_serves() -> None:
    assert not learn_fusion(*questions(200, "dense")).fusion.by_question


def test_nothing_to_learn_from_is_said() -> None:
    with pytest.raises(InputError, match="dev split"):
        learn_fusion([], [])


def test_the_simplest_of_equals_is_recommended() -> None:
    draw = np.random.default_rng(0)
    base = draw.uniform(0.2, 0.6, 300)
    values = {"baseline": base, "candidate": base + draw.normal(0, 0.2, 300), "bm25": base - 0.2}
    found = recommend(values, range(300))
    assert found.role == "baseline"
    assert "told apart" in found.reason or found.best == "baseline"


def test_a_hybrid_is_recommended_where_nothing_simpler_comes_near() -> None:
    base = np.random.default_rng(0).uniform(0.2, 0.6, 300)
    values = {"baseline": base, "candidate": base + 0.1, "bm25": base, "hybrid-candidate": base + 0.2}
    assert recommend(values, range(300)).role == "hybrid-candidate"


def test_few_questions_recommend_nothing_new() -> None:
    base = np.zeros(20)
    assert recommend({"baseline": base, "candidate": base + 1}, range(20)).role == "baseline"


def test_every_role_says_what_it_needs() -> None:
    assert "no model" in needs("bm25")
    assert needs("candidate-3") == needs("candidate")
    assert "word index" in needs("hybrid-candidate")
