"""The contrastive loss over batches in which several queries share a passage, which is encoded once."""

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
"""Each query ranks all passages, and each passage ranks all queries."""


class SharedPassagesLoss(CachedLossMixin, MultipleNegativesRankingLoss):
    """Rank each query's passage first among those of the batch, and each passage's query, in one softmax.

    If every row has its own passage, the loss equals `MultipleNegativesRankingLoss` in both directions. Rows with the
    same passage are not negatives of each other, and the model encodes their passage once. Passages are most of a
    step's cost on a CPU. Batches larger than the inner batch are cached (Gao et al. 2021), so that they need only its
    memory.

    Args:
        model: the SentenceTransformer that is trained.
        scale: factor of the cosine (1 / temperature).
        mini_batch_size: number of texts whose activations are in memory at once; None means the whole batch.

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
        self._indices: list[Tensor] = []

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """Compute the loss of a batch from the features of queries, positives, and negatives (a column each)."""
        queries, *columns = sentence_features
        distinct = [_distinct(column) for column in columns]
        self._indices = [indices for _, indices in distinct]
        features = [queries, *(column for column, _ in distinct)]
        if self.uses_gradient_cache:
            return CachedLossMixin.forward_cached(self, features, labels)
        return self.calculate_loss([[self.model(column)["sentence_embedding"]] for column in features], labels)

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """Compute the loss from the vectors of the queries and of the distinct passages of each column."""
        queries, positives, *negatives = (torch.cat(parts) for parts in reps)
        positive_of = self._indices[0]
        rows = len(queries)
        total = queries.new_zeros(())
        step = self.mini_batch_size if with_backward else rows
        for start in range(0, rows, step):
            part_rows = slice(start, start + step)
            own = positive_of[part_rows, None]
            to_passages = self.scale * cos_sim(queries[part_rows], torch.cat([positives, *negatives]))
            to_queries = self.scale * cos_sim(positives[own.squeeze(1)], queries)
            # Another query of the same passage is not a negative.
            same = own == positive_of[None]
            same[torch.arange(len(same)), torch.arange(start, start + len(same))] = False
            right = to_passages.gather(1, own).squeeze(1)
            scores = torch.cat([to_passages, to_queries.masked_fill(same, -torch.inf)], dim=1)
            part = (torch.logsumexp(scores, dim=1) - right).sum() / rows
            if with_backward:
                part.backward()  # type: ignore[no-untyped-call]
                part = part.detach()
            total = total + part
        return total

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings of the loss, for the model card."""
        cached = {"mini_batch_size": self.mini_batch_size} if self.uses_gradient_cache else {}
        return super().get_config_dict() | cached


def _distinct(features: dict[str, Any]) -> tuple[dict[str, Any], Tensor]:
    """Return the features of a column without repeated rows, and the index of each row in them."""
    if "offsets" in features:  # a static embedding: the ids of all texts are in one row
        return features, torch.arange(len(features["offsets"]), device=features["offsets"].device)
    ids = features["input_ids"]
    # On the CPU, because not every device has these functions, and their cost is negligible.
    distinct, indices = torch.unique(ids.cpu(), dim=0, return_inverse=True)
    if len(distinct) == len(ids):
        return features, torch.arange(len(ids), device=ids.device)
    first = torch.full((len(distinct),), len(ids))
    first.scatter_reduce_(0, indices, torch.arange(len(ids)), "amin")
    first, indices = first.to(ids.device), indices.to(ids.device)
    without_repeats = {
        name: value[first] if isinstance(value, Tensor) and value.ndim and len(value) == len(ids) else value
        for name, value in features.items()
    }
    return without_repeats, indices
