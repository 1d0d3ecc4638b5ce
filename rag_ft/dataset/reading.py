"""One door for every form in which a dataset is given."""

from __future__ import annotations

from pathlib import Path

from rag_ft.dataset.beir import read_beir
from rag_ft.dataset.llama_index_json import read_llama_index_json
from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.errors import InputError


def is_dataset(path: str | Path) -> bool:
    """Whether a path looks like a dataset (a BEIR folder or a JSON file) and not like documents."""
    path = Path(path)
    return (path / "corpus.jsonl").is_file() or (path.is_file() and path.suffix == ".json")


def load_dataset(path: str | Path, split: str = "train") -> QADataset:
    """Read a dataset: a BEIR folder, or a JSON file of `EmbeddingQAFinetuneDataset`.

    Args:
        path: the folder or file.
        split: the split that a JSON file's questions go to; a BEIR folder has its own splits.

    Raises:
        InputError: where there is no dataset, or it is broken.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist: give a dataset folder (corpus.jsonl, queries.jsonl, qrels/)")
    return read_llama_index_json(path, split) if path.is_file() else read_beir(path)
