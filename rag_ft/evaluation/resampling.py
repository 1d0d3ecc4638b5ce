"""The groups of queries that are resampled together: queries about one document are not independent."""

from __future__ import annotations

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.units import MIN_DOCUMENTS, PASSAGES_PER_UNIT


def resampling_groups(dataset: QADataset, split: str) -> tuple[list[object], str]:
    """Assign each query of a split to its document or, if they are about few documents, to neighbouring passages.

    Returns:
        One group for each query, in the order of the qrels, and a note if the groups are not documents (otherwise "").
    """
    qrels = dataset.require(split)
    first = [next(iter(relevant)) for relevant in qrels.values()]
    documents = [dataset.passages[passage].document for passage in first]
    count = len(set(documents))
    if count >= MIN_DOCUMENTS:
        return list(documents), ""
    units: dict[str, object] = {}
    if len(dataset.documents) < MIN_DOCUMENTS:
        units.update(dataset.split_units)
    else:
        for document, ids in dataset.documents.items():
            units.update({passage: (document, position // PASSAGES_PER_UNIT) for position, passage in enumerate(ids)})
    return [units[passage] for passage in first], (
        f"The questions come from {'1 document' if count == 1 else f'{count} documents'}: groups of "
        f"{PASSAGES_PER_UNIT} neighbouring passages were resampled instead, so the interval does not cover other "
        "documents."
    )
