"""The batch sampler: no false negatives, similar passages together, and nearly all rows in use."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_ft.training.examples.batch_sampler import (
    MAX_ROWS_PER_PASSAGE,
    NoFalseNegativesBatchSampler,
    SamplerRows,
    similar_rows,
)

Ids = list[frozenset[object]]


def sampler_of(positive_ids: Ids, batch_size: int = 64, seed: int = 0, **rows: Any) -> NoFalseNegativesBatchSampler:
    return NoFalseNegativesBatchSampler(
        range(len(positive_ids)), batch_size=batch_size, drop_last=False, generator=torch.Generator(), seed=seed,
        rows=SamplerRows(positive_ids=positive_ids, **rows),
    )  # fmt: skip


def random_vectors(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.frozensets(st.integers(0, 30), min_size=1, max_size=3), min_size=1, max_size=80),
    st.integers(2, 16),
    st.integers(0, 3),
    st.integers(1, 5),
)
def test_no_two_rows_of_a_batch_share_a_positive(ids: Ids, size: int, epoch: int, similar_per_batch: int) -> None:
    vectors = random_vectors(len(ids)) if similar_per_batch > 1 else None
    sampler = sampler_of(ids, size, seed=1, vectors=vectors, similar_per_batch=similar_per_batch)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    for batch in batches:
        assert len(batch) <= size
        assert sum(len(ids[row]) for row in batch) == len(frozenset().union(*(ids[row] for row in batch)))
    assert len(batches) == len(sampler)
    if epoch > 0:
        return  # a batch may come twice, or the last one may be left out, so that all epochs are equally long
    seen = [row for batch in batches for row in batch]
    assert len(seen) == len(set(seen))
    largest = max(map(len, batches))
    assert all(len(batch) * 4 >= largest and len(batch) > 1 for batch in batches[1:])
    if len(frozenset().union(*ids)) == sum(map(len, ids)):  # all rows fit together: only a small rest is left out
        assert len(ids) - len(seen) <= max(1, (size - 1) // 4)  # a single row is a rest too


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.sets(st.integers(0, 12), max_size=2)), min_size=1, max_size=80),
    st.integers(2, 16),
    st.integers(1, 4),
)
def test_a_batch_shows_no_answer_to_another_row_except_the_passage_they_share(
    rows: list[tuple[int, set[int]]], size: int, similar_per_batch: int
) -> None:
    passages = [passage for passage, _ in rows]
    ids: Ids = [frozenset({passage, *others}) for passage, others in rows]
    sampler = sampler_of(
        ids, size, seed=1, in_batch_ids=[frozenset([passage]) for passage in passages], passages=passages,
        vectors=random_vectors(13)[passages] if similar_per_batch > 1 else None, similar_per_batch=similar_per_batch,
    )  # fmt: skip
    batches = list(sampler)
    seen = [row for batch in batches for row in batch]
    assert len(seen) == len(set(seen))
    for batch in batches:
        assert len(batch) <= size
        assert max(Counter(passages[row] for row in batch).values()) <= MAX_ROWS_PER_PASSAGE
        for row in batch:
            assert not any(passages[other] in ids[row] - {passages[row]} for other in batch)


def test_all_rows_of_one_passage_enter_a_batch_together() -> None:
    passages = [row // 2 for row in range(256)]
    batches = list(sampler_of([frozenset([passage]) for passage in passages], passages=passages))
    assert sorted(row for batch in batches for row in batch) == list(range(256))
    assert all(len({passages[row] for row in batch}) == 32 for batch in batches)


def test_similar_passages_are_grouped_unless_they_answer_the_same_query() -> None:
    draw = np.random.default_rng(0)
    subjects = np.repeat(np.arange(64), 4)
    vectors = (np.eye(64)[subjects] + draw.normal(scale=0.01, size=(256, 64))).astype(np.float32)
    order = draw.permutation(256).tolist()
    groups = similar_rows(order, vectors, [frozenset([row]) for row in range(256)], 4)
    assert all(len({subjects[row] for row in group}) == 1 for group in groups)
    assert sorted(row for group in groups for row in group) == list(range(256))
    groups = similar_rows(order, vectors, [frozenset([row // 2]) for row in range(256)], 4)
    assert all(len({row // 2 for row in group}) == len(group) for group in groups)


def test_many_rows_of_one_passage_still_leave_room_for_similar_rows() -> None:
    draw = np.random.default_rng(0)
    passages = draw.normal(size=(20, 8)).astype(np.float32)
    passages /= np.linalg.norm(passages, axis=1, keepdims=True)
    rows = np.repeat(np.arange(20), 100)
    groups = similar_rows(draw.permutation(2000).tolist(), passages[rows], [frozenset([row]) for row in rows], 4)
    assert sum(len(group) == 1 for group in groups) < 50


def test_rows_that_fit_into_no_batch_are_given_up_in_time_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    ids: Ids = [frozenset([row]) for row in range(100)]
    ids += [frozenset(["template"])] * 20_000
    assert 1 <= len(sampler_of(ids)) <= 101  # it takes minutes if each batch tries all of them
    assert "of 20100 pairs do not fit into any batch" in caplog.text


def test_a_few_passages_with_many_queries_use_every_row() -> None:
    sampler = sampler_of([frozenset([row % 6]) for row in range(120)])
    assert sum(map(len, sampler)) == 120
    assert len(sampler) == 20
