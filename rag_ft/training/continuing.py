"""Training on from a tuned model: its record, the questions it knows already, and its earlier dataset."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.dataset.merging import merge_datasets
from rag_ft.dataset.splitting import hold_out_dev
from rag_ft.dataset.text.sketch import hash_of
from rag_ft.embedding.contract import read_model_record
from rag_ft.errors import InputError

if TYPE_CHECKING:
    from rag_ft.dataset.qa_dataset import QADataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EarlierTraining:
    """What is known of the model that a training goes on from.

    Attributes:
        record: its `rag_ft.json`; empty if the training starts from a base model.
        trained_on: hashes of questions that it was tuned on. Dev must ask none of them.
    """

    record: dict[str, Any] = field(default_factory=dict)
    trained_on: frozenset[str] = frozenset()

    @property
    def questions(self) -> list[str]:
        """The hashes that its record keeps of its training questions."""
        return list(self.record.get("training", {}).get("questions", ()))

    @property
    def generations(self) -> list[dict[str, Any]]:
        """What stays known of this model and of those before it."""
        if not self.record:
            return []
        training = self.record.get("training", {})
        last = {key: self.record.get(key) for key in ("name", "created", "weights_sha256")}
        return [*self.record.get("generations", []), last | {key: training.get(key) for key in ("pairs", "share")}]


def continue_training(
    dataset: QADataset, continue_from: str | Path | None, earlier: QADataset | None, replay: float, seed: int
) -> tuple[QADataset, EarlierTraining]:
    """Return the dataset to train on, with some earlier questions replayed, and what the model was tuned on before.

    Args:
        dataset: the new dataset.
        continue_from: the folder of a tuned model; None starts from a base model.
        earlier: the dataset that this model was tuned on. Both keep a dev set of their own: if only one had one, it
            alone would decide.
        replay: fraction of earlier questions among all training questions.
        seed: seeds the draws.

    Raises:
        InputError: if the model was not tuned by rag_ft, or the datasets cannot be trained on together.
    """
    record = _record_of(continue_from) if continue_from is not None else {}
    hashes = [*record.get("training", {}).get("questions", ())]
    if earlier is None:
        if record:
            logger.warning("no earlier dataset is given: nothing tells whether earlier questions are still answered")
        return dataset, EarlierTraining(record=record, trained_on=frozenset(hashes))
    if earlier.qrels.get("train") and not dataset.qrels.get("train"):
        raise InputError(
            f"the new dataset has {len(dataset.scored_pairs)} scored pairs and no question to train on, the earlier "
            "one has questions: no loss learns from both, so give no earlier dataset, or questions"
        )
    # The earlier dev set is drawn as it was when the model was tuned, so that it asks nothing the model has seen.
    own_seed = record.get("recipe", {}).get("seed")
    earlier = hold_out_dev(earlier, seed=own_seed if isinstance(own_seed, int) else seed)
    hashes += [hash_of(earlier.queries[query].text) for query in earlier.qrels.get("train", ())]
    merged = merge_datasets(earlier, hold_out_dev(dataset, seed=seed), replay, seed)
    return merged, EarlierTraining(record=record, trained_on=frozenset(hashes))


def _record_of(folder: str | Path) -> dict[str, Any]:
    record = read_model_record(Path(folder))
    if not record:
        raise InputError(f"{folder} was not tuned by rag_ft (no rag_ft.json): give it as --base-model instead")
    return record
