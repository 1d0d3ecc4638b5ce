"""Questions on one passage share its encoding: the loss stays what it is elsewhere, and no batch misleads."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from rag_ft.embedding.loading import load_sentence_transformer, local_model_folder
from rag_ft.training.examples.batch_sampler import SHARED, batch_sampler_factory
from rag_ft.training.loop.losses import loss_for
from rag_ft.training.loop.shared_passages_loss import SharedPassagesLoss
from rag_ft.training.recipe import Recipe

SUBJECTS = ("leave", "badges", "harbours", "claims", "kittiwakes")


@pytest.fixture(scope="module")
def model() -> SentenceTransformer:
    return load_sentence_transformer("local").eval()


def columns(model: SentenceTransformer, passages: tuple[str, ...] = SUBJECTS, negatives: bool = False) -> list[Any]:
    texts = [
        [f"What is known of {subject}?" for subject in SUBJECTS],
        [f"All that the handbook tells about {subject}, and no more." for subject in passages],
        [f"Another page, number {number}." for number in range(len(SUBJECTS))],
    ]
    return [model.preprocess(each) for each in texts[: 3 if negatives else 2]]


def slope(model: SentenceTransformer, loss: torch.nn.Module, features: list[Any]) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    value = loss(features, None)
    value.backward()
    gradient = next(weight for name, weight in model.named_parameters() if "layer.0" in name and weight.ndim == 2).grad
    assert gradient is not None
    return float(value.detach()), gradient.clone()


@pytest.mark.parametrize("negatives", [False, True])
@pytest.mark.parametrize("inner", [None, 2])
def test_where_no_passage_is_shared_it_is_the_loss_of_sentence_transformers(
    model: SentenceTransformer, negatives: bool, inner: int | None
) -> None:
    theirs = MultipleNegativesRankingLoss(model, directions=("query_to_doc", "doc_to_query"))
    value, gradient = slope(
        model, SharedPassagesLoss(model, mini_batch_size=inner), columns(model, negatives=negatives)
    )
    expected, wanted = slope(model, theirs, columns(model, negatives=negatives))
    assert value == pytest.approx(expected, abs=1e-5)
    assert torch.allclose(gradient, wanted, atol=1e-6)


def test_a_passage_of_several_questions_is_encoded_once_and_is_nobodys_negative(model: SentenceTransformer) -> None:
    shared = ("leave", "leave", "harbours", "claims", "leave")
    encoded = []
    handle = model.register_forward_pre_hook(lambda _, given: encoded.append(len(given[0]["input_ids"])))
    value, gradient = slope(model, SharedPassagesLoss(model), columns(model, shared))
    handle.remove()
    assert encoded == [5, 3]
    cached, again = slope(model, SharedPassagesLoss(model, mini_batch_size=2), columns(model, shared))
    assert cached == pytest.approx(value, abs=1e-5)
    assert torch.allclose(gradient, again, atol=1e-6)
    with torch.no_grad():
        asked, told = (model(each)["sentence_embedding"] for each in columns(model, shared))
        expected = []
        for row in range(5):
            others = [asked[place] for place in range(5) if shared[place] != shared[row] or place == row]
            passages = [told[0], told[2], told[3]]
            scores = torch.stack([asked[row] @ each for each in passages] + [told[row] @ each for each in others])
            expected.append(float(torch.logsumexp(20 * scores, 0) - 20 * asked[row] @ told[row]))
    assert value == pytest.approx(float(np.mean(expected)), abs=1e-4)


def test_a_model_of_word_vectors_alone_learns_too() -> None:
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(local_model_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    static = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=16)], device="cpu")
    value = SharedPassagesLoss(static)(columns(static, ("leave", "leave", "harbours", "claims", "leave")), None)
    value.backward()
    assert float(value.detach()) > 0
    # Its texts come in one row, of which the cache cannot take a part.
    assert not loss_for(static, Recipe(batch_size=128)).uses_gradient_cache


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.sets(st.integers(0, 12), max_size=2)), min_size=1, max_size=80),
    st.integers(2, 16),
    st.integers(1, 4),
)
def test_a_batch_shows_nothing_that_answers_another_rows_question_but_the_passage_they_share(
    rows: list[tuple[int, set[int]]], size: int, similar_per_batch: int
) -> None:
    passages = [passage for passage, _ in rows]
    keys: list[frozenset[object]] = [frozenset({passage, *others}) for passage, others in rows]
    shown: list[frozenset[object]] = [frozenset([passage]) for passage in passages]
    vectors = (
        np.random.default_rng(0).normal(size=(13, 3)).astype(np.float32)[passages] if similar_per_batch > 1 else None
    )
    sampler = batch_sampler_factory(keys, vectors, similar_per_batch, shown, passages=passages)(
        range(len(rows)), batch_size=size, drop_last=False, generator=torch.Generator(), seed=1
    )
    batches = list(sampler)
    seen = [row for batch in batches for row in batch]
    assert len(seen) == len(set(seen))
    for batch in batches:
        assert len(batch) <= size
        assert max(Counter(passages[row] for row in batch).values()) <= SHARED
        for row in batch:
            assert not any(passages[other] in keys[row] - {passages[row]} for other in batch)


def test_questions_on_one_passage_come_together_and_none_is_left_out() -> None:
    passages = [row // 2 for row in range(256)]
    keys: list[frozenset[object]] = [frozenset([passage]) for passage in passages]
    sampler = batch_sampler_factory(keys, passages=passages)(
        range(256), batch_size=64, drop_last=False, generator=torch.Generator(), seed=0
    )
    batches = list(sampler)
    assert sorted(row for batch in batches for row in batch) == list(range(256))
    assert all(len({passages[row] for row in batch}) == 32 for batch in batches)
