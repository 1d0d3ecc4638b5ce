"""Load a dataset in any supported format."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from rag_ft.dataset.formats.beir import read_beir
from rag_ft.dataset.formats.from_pairs import dataset_from_pairs
from rag_ft.dataset.formats.labelled_pairs import read_labelled_pairs
from rag_ft.dataset.formats.llama_index_json import read_llama_index_json
from rag_ft.dataset.formats.tables import TABLE_SUFFIXES, is_json_list, is_saved_dataset
from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.errors import InputError

logger = logging.getLogger(__name__)


def is_dataset(path: str | Path) -> bool:
    """Return whether a path looks like a dataset (a BEIR folder, a folder of `datasets`, a table), not documents."""
    path = Path(path)
    if path.is_file():
        return path.suffix.lower() in {".json", *TABLE_SUFFIXES}
    return (path / "corpus.jsonl").is_file() or is_saved_dataset(path)


def load_dataset(path: str | Path, split: str = "train", *, fields: Mapping[str, str] | None = None) -> QADataset:
    """Read a dataset: a BEIR folder, LlamaIndex's JSON, or pairs in any format of `read_labelled_pairs`.

    Args:
        path: the folder or file.
        split: the split for the questions of a format without splits.
        fields: role -> column, for a table with unusual column names (see `read_labelled_pairs`).

    Raises:
        InputError: if there is no dataset or it is invalid.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from rag_ft import load_dataset
        >>> file = Path(tempfile.mkdtemp()) / "pairs.csv"
        >>> _ = file.write_text("question,passage\\nWhere do I book holidays?,Leave is booked in HELM.\\n")
        >>> load_dataset(file, split="test")
        QADataset(1 passages of 1 documents; questions: test 1)
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist: pass a dataset folder (corpus.jsonl, queries.jsonl, qrels/)")
    if path.is_dir() and not is_saved_dataset(path):
        return read_beir(path)
    if path.is_file() and path.suffix.lower() not in TABLE_SUFFIXES and not is_json_list(path):
        return read_llama_index_json(path, split)
    dataset, dropped = dataset_from_pairs(read_labelled_pairs(path, fields=fields), split=split)
    if not dataset.qrels and not dataset.scored_pairs:
        raise InputError(f"{path} has no question with a relevant passage (the first: {dropped[0]['reason']})")
    if dropped:
        logger.warning("%s: %d rows are left out (the first: %s)", path, len(dropped), dropped[0]["reason"])
    return dataset
