"""The places of the highest scores: as a stable sort has them, whatever the scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_ft.retrieval.top_k import top_k, top_k_rows


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.5, -1.0, float("nan"), float("inf")]), min_size=1, max_size=400),
    st.integers(1, 5),
)
def test_it_is_a_stable_sort_with_nan_last(scores: list[float], k: int) -> None:
    given_scores = np.array(scores, dtype=np.float32)
    expected = np.argsort(-np.nan_to_num(given_scores, nan=-np.inf, posinf=np.inf), kind="stable")[:k]
    assert top_k(given_scores, k).tolist() == expected.tolist()
    assert top_k_rows(np.stack([given_scores, given_scores]), k).tolist() == [expected.tolist()] * 2


@pytest.mark.parametrize("above", [0.0, 0.3])
def test_only_scores_above_a_bound_count(above: float) -> None:
    scores = np.array([0.2, 0.0, float("nan"), 0.9, 0.3])
    assert top_k(scores, 5, above=above).tolist() == [place for place in (3, 4, 0) if scores[place] > above]
