"""`EmbeddingQAFinetuneDataset`: questions and the passages that answer them, in the format of the old package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import BaseModel, Field

from rag_ft.dataset.qa_dataset import Passage, QADataset, Qrels, Query
from rag_ft.errors import InputError, UnknownIdError, require_package
from rag_ft.files import read_json, write_text

if TYPE_CHECKING:
    from os import PathLike

EXTRA = "llama-index-finetuning"


class EmbeddingQAFinetuneDataset(BaseModel):
    """Questions with the passages that answer them.

    Attributes:
        queries: query id -> question.
        corpus: passage id -> text.
        relevant_docs: query id -> ids of the passages that answer it, best first.
        mode: `text` or `image`.

    Example:
        >>> from rag_ft.compat import EmbeddingQAFinetuneDataset
        >>> dataset = EmbeddingQAFinetuneDataset(
        ...     queries={"q1": "How do I get my money back?"},
        ...     corpus={"p1": "A Kittiwake is an expenses claim."},
        ...     relevant_docs={"q1": ["p1"]},
        ... )
        >>> dataset.to_dataset()
        QADataset(1 passages of 1 documents; questions: train 1)
    """

    queries: dict[str, str] = Field(description="Query id -> question.")
    corpus: dict[str, str] = Field(description="Passage id -> text.")
    relevant_docs: dict[str, list[str]] = Field(description="Query id -> ids of the passages that answer it.")
    mode: str = Field(default="text", description="text or image.")

    @property
    def query_docid_pairs(self) -> list[tuple[str, list[str]]]:
        """Pairs of a question and the ids of the passages that answer it, in the order of the queries."""
        return [(query, self.relevant_docs[identifier]) for identifier, query in self.queries.items()]

    def save_json(self, path: str | PathLike[str]) -> None:
        """Write the same JSON file as the old package, atomically."""
        write_text(Path(path), json.dumps(self.model_dump(), indent=4))

    @classmethod
    def from_json(cls, path: str | PathLike[str]) -> EmbeddingQAFinetuneDataset:
        """Read a file that `save_json` or the old package wrote.

        Raises:
            FileNotFoundError: if the file does not exist.
            InputError: if it is not a JSON object with queries, corpus and relevant_docs.
        """
        file = Path(path)
        if not file.exists():
            raise FileNotFoundError(f"{file} does not exist: check the path")
        content = read_json(file)
        try:
            return cls.model_validate(content)
        except ValueError as error:
            reason = str(error).splitlines()[1:2] or [""]
            raise InputError(
                f"{file} is not an EmbeddingQAFinetuneDataset ({reason[0].strip()}): it needs the objects queries, "
                "corpus, relevant_docs"
            ) from error

    def to_dataset(self, split: str = "train", *, first_only: bool = False) -> QADataset:
        """Return the same questions and passages as a `QADataset`.

        Args:
            split: the split that the questions go to.
            first_only: keep only the first passage of each question.

        Raises:
            UnknownIdError: if relevant_docs names a query or a passage that does not exist.
        """
        qrels: Qrels = {}
        for query, passages in self.relevant_docs.items():
            if query not in self.queries:
                raise UnknownIdError(f"relevant_docs names the query {query!r}, which is not in queries")
            for passage in passages:
                if passage not in self.corpus:
                    raise UnknownIdError(f"relevant_docs names the passage {passage!r}, which is not in corpus")
            if passages:
                qrels[query] = dict.fromkeys(passages[:1] if first_only else passages, 1)
        return QADataset(
            passages={key: Passage(key, text) for key, text in self.corpus.items()},
            queries={key: Query(key, text) for key, text in self.queries.items()},
            qrels={split: qrels},
        )

    @classmethod
    def from_dataset(cls, dataset: QADataset, split: str = "train") -> EmbeddingQAFinetuneDataset:
        """Convert a split of a `QADataset`, with the passage texts as they are embedded.

        Raises:
            InputError: if the split has no question.
        """
        qrels = dataset.require(split)
        return cls(
            queries={query: dataset.queries[query].text for query in qrels},
            corpus=dict(dataset.passage_texts),
            relevant_docs={query: list(relevant) for query, relevant in qrels.items()},
        )

    @classmethod
    def from_llama_index(cls, dataset: Any) -> EmbeddingQAFinetuneDataset:
        """Convert a dataset of llama-index-finetuning or of an old llama-index-core."""
        return cls(
            queries=dict(dataset.queries),
            corpus=dict(dataset.corpus),
            relevant_docs={query: list(passages) for query, passages in dataset.relevant_docs.items()},
            mode=getattr(dataset, "mode", "text"),
        )

    def to_llama_index(self) -> Any:
        """Convert to a dataset of llama-index-finetuning.

        Raises:
            InputError: if that package is not installed.
        """
        require_package("llama_index.finetuning", EXTRA, "to_llama_index()")
        from llama_index.finetuning import EmbeddingQAFinetuneDataset as Original

        return Original(**self.model_dump())


LabelledQADataset = EmbeddingQAFinetuneDataset
"""The other name of the class in llama-index-core."""


def finetune_dataset(dataset: Any, name: str = "dataset") -> EmbeddingQAFinetuneDataset:
    """Convert the dataset passed to an engine to an `EmbeddingQAFinetuneDataset`.

    Args:
        dataset: a dataset of this module or of the old package, a `QADataset`, or the path of a JSON file.
        name: the name of the argument in messages.

    Raises:
        InputError: if the dataset is of another type, or has no question.
    """
    if isinstance(dataset, str | Path):
        dataset = EmbeddingQAFinetuneDataset.from_json(dataset)
    elif isinstance(dataset, QADataset):
        dataset = EmbeddingQAFinetuneDataset.from_dataset(dataset)
    elif not isinstance(dataset, EmbeddingQAFinetuneDataset):
        if not all(isinstance(getattr(dataset, key, None), Mapping) for key in ("queries", "corpus", "relevant_docs")):
            raise InputError(f"{name} is {dataset!r:.60}: pass an EmbeddingQAFinetuneDataset")
        dataset = EmbeddingQAFinetuneDataset.from_llama_index(dataset)
    if not any(dataset.relevant_docs.get(query) for query in dataset.queries):
        raise InputError(f"{name} has no question with a passage that answers it: generate questions first")
    return dataset  # type: ignore[no-any-return]


def question_and_passage(dataset: EmbeddingQAFinetuneDataset, all_docs: bool = False) -> list[tuple[str, str]]:
    """Return pairs of a question and the text of a passage that answers it, in the order of the queries.

    Args:
        dataset: the dataset; questions without a passage are skipped.
        all_docs: pair a question with all of its passages instead of the first one.

    Raises:
        UnknownIdError: if relevant_docs names a passage that does not exist.
    """
    qrels = dataset.to_dataset(first_only=not all_docs).qrels["train"]
    return [
        (text, dataset.corpus[passage]) for query, text in dataset.queries.items() for passage in qrels.get(query, ())
    ]
