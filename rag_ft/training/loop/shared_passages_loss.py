"""The contrastive loss over batches in which several questions share a passage, which is encoded once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.gradcache import CachedLossMixin
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.util import cos_sim
from torch import Tensor

DIRECTIONS = ("query_to_doc", "doc_to_query")
"""Each question among all passages, and each passage among all questions."""


class SharedPassagesLoss(CachedLossMixin, MultipleNegativesRankingLoss):
    """Each question finds its passage among those of the batch, and each passage its question, in one softmax.

    It gives what `MultipleNegativesRankingLoss` gives in both directions where every row has a passage of its own. Rows
    of one passage are no negatives of each other, and the model encodes their passage once: on a CPU it is most of a
    step's cost. Batches larger than the inner one are cached (Gao et al. 2021), so that the memory is that of the inner
    one.

    Args:
        model: the SentenceTransformer that is trained.
        scale: of the cosine (1 / temperature).
        mini_batch_size: texts whose activations are in memory at once; None: all of a batch.

    Example:
        >>> from rag_ft.embedding.loading import load_sentence_transformer
        >>> from rag_ft.training.loop.shared_passages_loss import SharedPassagesLoss
        >>> model = load_sentence_transformer("local")
        >>> questions = model.preprocess(["Who signs?", "Where is leave booked?", "What is a Kittiwake?"])
        >>> passages = model.preprocess(["Leave is booked in HELM and signed."] * 2 + ["A Kittiwake is a claim."])
        >>> bool(SharedPassagesLoss(model)([questions, passages], None) > 0)
        True
    """

    def __init__(self, model: SentenceTransformer, scale: float = 20.0, mini_batch_size: int | None = None) -> None:
        super().__init__(model, scale=scale, directions=DIRECTIONS)
        self.mini_batch_size = mini_batch_size or 1
        self.uses_gradient_cache = mini_batch_size is not None
        self._places: list[Tensor] = []

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """The loss of a batch: questions, their passages, and for each further column a negative of every question."""
        questions, *columns = sentence_features
        shared = [_distinct(column) for column in columns]
        self._places = [places for _, places in shared]
        features = [questions, *(column for column, _ in shared)]
        if self.uses_gradient_cache:
            return CachedLossMixin.forward_cached(self, features, labels)
        return self.calculate_loss([[self.model(column)["sentence_embedding"]] for column in features], labels)

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """The loss from the vectors of the questions and of the distinct passages of each column."""
        questions, positives, *negatives = (torch.cat(parts) for parts in reps)
        own = self._places[0]
        rows = len(questions)
        total = questions.new_zeros(())
        step = self.mini_batch_size if with_backward else rows
        for start in range(0, rows, step):
            some = slice(start, start + step)
            to_passages = self.scale * cos_sim(questions[some], torch.cat([positives, *negatives]))
            to_questions = self.scale * cos_sim(positives[own[some]], questions)
            # Another question on the same passage is as right as this one.
            same = own[some, None] == own[None]
            same[torch.arange(len(same)), torch.arange(start, start + len(same))] = False
            right = to_passages.gather(1, own[some, None]).squeeze(1)
            scores = torch.cat([to_passages, to_questions.masked_fill(same, -torch.inf)], dim=1)
            part = (torch.logsumexp(scores, dim=1) - right).sum() / rows
            if with_backward:
                part.backward()  # type: ignore[no-untyped-call]
                part = part.detach()
            total = total + part
        return total

    def get_config_dict(self) -> dict[str, Any]:
        """What the loss was set to."""
        cached = {"mini_batch_size": self.mini_batch_size} if self.uses_gradient_cache else {}
        return super().get_config_dict() | cached


def _distinct(features: dict[str, Any]) -> tuple[dict[str, Any], Tensor]:
    """(a column's features without the rows that repeat another one, for each row its place in them)."""
    if "offsets" in features:  # a model of word vectors alone: its ids are those of all texts in one row
        return features, torch.arange(len(features["offsets"]), device=features["offsets"].device)
    ids = features["input_ids"]
    # Not every device has these (Apple's only in the newest torch), and they are nothing beside the model's work.
    distinct, places = torch.unique(ids.cpu(), dim=0, return_inverse=True)
    if len(distinct) == len(ids):
        return features, torch.arange(len(ids), device=ids.device)
    first = torch.full((len(distinct),), len(ids))
    first.scatter_reduce_(0, places, torch.arange(len(ids)), "amin")
    first, places = first.to(ids.device), places.to(ids.device)
    whole = {
        name: value[first] if isinstance(value, Tensor) and value.ndim and len(value) == len(ids) else value
        for name, value in features.items()
    }
    return whole, places
