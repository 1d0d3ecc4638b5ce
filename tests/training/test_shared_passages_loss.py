"""The loss over shared passages: sentence-transformers' own loss if none is shared, and one encoding if some are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from rag_ft.embedding.loading import load_sentence_transformer, local_model_folder
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


def loss_and_gradient(
    model: SentenceTransformer, loss: torch.nn.Module, features: list[Any]
) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    value = loss(features, None)
    value.backward()
    gradient = next(weight for name, weight in model.named_parameters() if "layer.0" in name and weight.ndim == 2).grad
    assert gradient is not None
    return float(value.detach()), gradient.clone()


@pytest.mark.parametrize("negatives", [False, True])
@pytest.mark.parametrize("inner", [None, 2])
def test_without_shared_passages_it_equals_the_loss_of_sentence_transformers(
    model: SentenceTransformer, negatives: bool, inner: int | None
) -> None:
    theirs = MultipleNegativesRankingLoss(model, directions=("query_to_doc", "doc_to_query"))
    value, gradient = loss_and_gradient(
        model, SharedPassagesLoss(model, mini_batch_size=inner), columns(model, negatives=negatives)
    )
    expected, expected_gradient = loss_and_gradient(model, theirs, columns(model, negatives=negatives))
    assert value == pytest.approx(expected, abs=1e-5)
    assert torch.allclose(gradient, expected_gradient, atol=1e-6)


def test_a_shared_passage_is_encoded_once_and_is_no_negative_of_its_queries(model: SentenceTransformer) -> None:
    shared = ("leave", "leave", "harbours", "claims", "leave")
    encoded = []
    handle = model.register_forward_pre_hook(lambda _, given: encoded.append(len(given[0]["input_ids"])))
    value, gradient = loss_and_gradient(model, SharedPassagesLoss(model), columns(model, shared))
    handle.remove()
    assert encoded == [5, 3]
    cached, again = loss_and_gradient(model, SharedPassagesLoss(model, mini_batch_size=2), columns(model, shared))
    assert cached == pytest.approx(value, abs=1e-5)
    assert torch.allclose(gradient, again, atol=1e-6)
    with torch.no_grad():
        queries, positives = (model(each)["sentence_embedding"] for each in columns(model, shared))
        expected = []
        for row in range(5):
            others = [queries[place] for place in range(5) if shared[place] != shared[row] or place == row]
            passages = [positives[0], positives[2], positives[3]]
            scores = torch.stack(
                [queries[row] @ each for each in passages] + [positives[row] @ each for each in others]
            )
            expected.append(float(torch.logsumexp(20 * scores, 0) - 20 * queries[row] @ positives[row]))
    assert value == pytest.approx(float(np.mean(expected)), abs=1e-4)


def test_a_static_embedding_can_use_the_loss_without_the_cache() -> None:
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(local_model_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    static = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=16)], device="cpu")
    value = SharedPassagesLoss(static)(columns(static, ("leave", "leave", "harbours", "claims", "leave")), None)
    value.backward()
    assert float(value.detach()) > 0
    # Its texts come in one row, which the cache cannot divide.
    assert not loss_for(static, Recipe(batch_size=128)).uses_gradient_cache
