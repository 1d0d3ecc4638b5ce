"""Continue training from a tuned model: its record, the questions that it was trained on, and its earlier dataset."""

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
    """The record of the model that training continues from.

    Attributes:
        record: its `rag_ft.json`; empty if the training starts from a base model.
        trained_on: hashes of questions that it was tuned on. They are left out of dev.
    """

    record: dict[str, Any] = field(default_factory=dict)
    trained_on: frozenset[str] = frozenset()

    @property
    def questions(self) -> list[str]:
        """The hashes of training questions in its record."""
        return list(self.record.get("training", {}).get("questions", ()))

    @property
    def generations(self) -> list[dict[str, Any]]:
        """A summary of this model and of the models before it."""
        if not self.record:
            return []
        training = self.record.get("training", {})
        last = {key: self.record.get(key) for key in ("name", "created", "weights_sha256")}
        return [*self.record.get("generations", []), last | {key: training.get(key) for key in ("pairs", "share")}]


def continue_training(
    dataset: QADataset, continue_from: str | Path | None, earlier: QADataset | None, replay: float, seed: int
) -> tuple[QADataset, EarlierTraining]:
    """Return the dataset to train on, with some earlier questions replayed, and the record of the earlier training.

    Args:
        dataset: the new dataset.
        continue_from: the folder of a tuned model; None starts from a base model.
        earlier: the dataset that this model was tuned on. Each dataset gets its own dev set, so that both take part in
            the selection.
        replay: fraction of earlier questions among all training questions.
        seed: seeds every random choice.

    Raises:
        InputError: if the model was not tuned by rag_ft, or no loss can learn from both datasets.
    """
    record = _record_of(continue_from) if continue_from is not None else {}
    hashes = [*record.get("training", {}).get("questions", ())]
    if earlier is None:
        if record:
            logger.warning("without --earlier, forgetting cannot be measured: pass the dataset of the earlier training")
        return dataset, EarlierTraining(record=record, trained_on=frozenset(hashes))
    if earlier.qrels.get("train") and not dataset.qrels.get("train"):
        raise InputError(
            f"the new dataset has {len(dataset.scored_pairs)} scored pairs and no training questions, but the earlier "
            "one has questions. No loss learns from both: omit the earlier dataset, or add questions to the new one"
        )
    # The earlier dev set is drawn with the model's own seed, so that it has no question that the model was trained on.
    own_seed = record.get("recipe", {}).get("seed")
    earlier = hold_out_dev(earlier, seed=own_seed if isinstance(own_seed, int) else seed)
    hashes += [hash_of(earlier.queries[query].text) for query in earlier.qrels.get("train", ())]
    merged = merge_datasets(earlier, hold_out_dev(dataset, seed=seed), replay, seed)
    return merged, EarlierTraining(record=record, trained_on=frozenset(hashes))


def _record_of(folder: str | Path) -> dict[str, Any]:
    record = read_model_record(Path(folder))
    if not record:
        raise InputError(f"{folder} was not tuned by rag_ft (no rag_ft.json): pass it as --base-model instead")
    return record
