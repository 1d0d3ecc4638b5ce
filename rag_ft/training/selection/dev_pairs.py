"""Scored pairs as a dev set, for datasets without questions."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.dataset.splitting import MAX_DEV_QUERIES
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups
from rag_ft.dataset.text.sketch import hash_of
from rag_ft.embedding.encoding import encode
from rag_ft.training.selection.dev_set import MIN_UNITS, DocumentStatus

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from rag_ft.dataset.qa_dataset import ScoredPair

DEV_FRACTION = 0.15
"""Fraction of the scored pairs to hold out."""


@dataclass(frozen=True, kw_only=True)
class DevPairs:
    """Held-out scored pairs. The metric is Spearman's rank correlation of their cosines and scores.

    Attributes:
        pairs: the held-out pairs.
        groups: the query of each pair; near-duplicate queries are one group.
        metric: `spearman`.
    """

    pairs: list[ScoredPair]
    groups: list[object]
    metric: str = "spearman"

    @property
    def sources(self) -> list[str]:
        """The source of each pair: always `pairs`."""
        return ["pairs"] * len(self.pairs)

    @property
    def documents(self) -> list[DocumentStatus]:
        """Empty: pairs have no documents."""
        return []

    @classmethod
    def hold_out(
        cls, pairs: list[ScoredPair], seed: int = 0, trained_on: Collection[str] = ()
    ) -> tuple[DevPairs | None, list[ScoredPair]]:
        """Hold out scored pairs by query.

        Args:
            pairs: scored pairs.
            seed: seeds every random choice.
            trained_on: hashes of queries that the model was tuned on before. They are not held out.

        Returns:
            The dev set (None if there are too few pairs) and the other pairs.
        """
        queries = sorted({pair.query for pair in pairs})
        group_of = dict(zip(queries, near_duplicate_groups(queries), strict=True))
        groups = [group_of[pair.query] for pair in pairs]
        sizes = Counter(groups)
        order = sorted(sizes.keys() - {group_of[query] for query in queries if hash_of(query) in trained_on})
        random.Random(seed).shuffle(order)
        # Up to a third of a small set is held out, so that the dev set is large enough.
        size = max(DEV_FRACTION * len(groups), min(MIN_UNITS, len(groups) / 3))
        held_out: set[int] = set()
        for group in order:
            if sum(sizes[each] for each in held_out) >= size:
                break
            held_out.add(group)
        grouped = list(zip(pairs, groups, strict=True))
        dev = [(pair, group) for pair, group in grouped if group in held_out]
        if len(dev) > MAX_DEV_QUERIES:
            dev = random.Random(seed).sample(dev, MAX_DEV_QUERIES)
        if len(dev) < MIN_UNITS or len(held_out) == len(sizes) or len({pair.score for pair, _ in dev}) < 2:
            return None, pairs
        rest = [pair for pair, group in grouped if group not in held_out]
        return cls(pairs=[pair for pair, _ in dev], groups=[group for _, group in dev]), rest

    def values(self, model: SentenceTransformer) -> NDArray[np.float64]:
        """Return each pair's contribution to the correlation, shape (pairs,); the mean is Spearman's coefficient."""
        from scipy.stats import rankdata

        queries = encode(model, [pair.query for pair in self.pairs], "query")
        passages = encode(model, [pair.passage for pair in self.pairs], "document")
        ranks = [rankdata((queries * passages).sum(axis=1)), rankdata([pair.score for pair in self.pairs])]
        cosine, score = ((rank - rank.mean()) / max(float(rank.std()), 1e-12) for rank in ranks)
        return np.asarray(cosine * score, dtype=np.float64)

    def passages(self) -> list[str]:
        """Return the distinct passages."""
        return list(dict.fromkeys(pair.passage for pair in self.pairs))

    def texts(self) -> list[str]:
        """Return the queries and passages of the pairs."""
        return [text for pair in self.pairs for text in (pair.query, pair.passage)]
