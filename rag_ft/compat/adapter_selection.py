"""Select the epoch with the best adapter on held-out questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_ft.training.selection.dev_score import dev_score
from rag_ft.training.selection.dev_set import DevQuestions
from rag_ft.training.selection.select import Candidate, Policy, select

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

UNTRAINED, NO_ADAPTER = "untrained", "no adapter"


class AdapterSelection:
    """Keeps the best adapter so far on held-out questions. If two are equally good, it keeps the later one.

    Args:
        adapter: the adapter, which is trained in index.
        device: the adapter's torch device.
        pairs: the held-out questions with their passages.
        passages: the passages to search.
        vectors: role (`query`, `passage`) -> text -> vector.

    Attributes:
        scores: nDCG@10 by candidate (`no adapter`, `untrained`, `epoch 1`, ...).
        weights: the weights of the best adapter.
    """

    def __init__(
        self,
        *,
        adapter: Any,
        device: torch.device,
        pairs: Sequence[tuple[str, str]],
        passages: Sequence[str],
        vectors: Mapping[str, Mapping[str, list[float]]],
    ) -> None:
        self.adapter, self.device = adapter, device
        ids = {text: str(index) for index, text in enumerate(dict.fromkeys(passages))}
        self.dev = DevQuestions(
            query_ids=[str(index) for index in range(len(pairs))],
            query_texts=[query for query, _ in pairs],
            passage_ids=list(ids.values()),
            passage_texts=list(ids),
            qrels={str(index): {ids[passage]: 1} for index, (_, passage) in enumerate(pairs)},
            sources=["real"] * len(pairs),
            groups=list(range(len(pairs))),
            documents=[],
        )
        self.queries = np.asarray([vectors["query"][text] for text in self.dev.query_texts], dtype=np.float32)
        self.passages = _unit(np.asarray([vectors["passage"][text] for text in ids], dtype=np.float32))
        self.scores = {NO_ADAPTER: dev_score(self.dev.values_of(_unit(self.queries), self.passages), self.dev)}
        self._keep(self._measure(UNTRAINED))

    def measure(self, name: str) -> None:
        """Measure the adapter as it is now, and keep its weights if they are not worse than the best so far."""
        candidate = self._measure(name)
        if select(self.best, [candidate], self.dev, Policy(rule="not-worse")).name == name:
            self._keep(candidate)

    @property
    def is_worse_than_none(self) -> bool:
        """Whether the embedding without an adapter scores higher than every adapter measured."""
        return max(self.scores.values()) == self.scores[NO_ADAPTER] > self.scores[self.best.name]

    def _measure(self, name: str) -> Candidate:
        import torch

        with torch.inference_mode():
            queries = self.adapter.eval()(torch.tensor(self.queries, device=self.device)).cpu().numpy()
        candidate = Candidate(name=name, alpha=1.0, values=self.dev.values_of(_unit(queries), self.passages))
        self.scores[name] = dev_score(candidate.values, self.dev)
        return candidate

    def _keep(self, candidate: Candidate) -> None:
        self.best = candidate
        self.weights = {key: tensor.detach().clone() for key, tensor in self.adapter.state_dict().items()}


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
