"""Read questions that people asked, with the documents or passages that answer them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rag_ft.dataset.formats.columns import QUERY, plain_name
from rag_ft.dataset.formats.labelled_pairs import MIN_POSITIVE_SCORE, SNIFFED_ROWS, LabelledPair, read_labelled_pairs
from rag_ft.dataset.formats.tables import JSON_LINES, TABLE_SUFFIXES, BadRows, json_lines
from rag_ft.dataset.text.whitespace import one_line
from rag_ft.errors import InputError


@dataclass(frozen=True)
class RealQuestion:
    """A question that a person asked, with the location of its answer.

    Attributes:
        text: the question.
        documents: names of the documents, or ids of the passages, that answer it. Part of a path, an address or a title
            is enough if no other document has it. They are optional if there are positives.
        evidence: a snippet of the document that answers it: its passage is the relevant one. If empty, all passages
            of the documents are relevant.
        id: its id; a number is used if empty.
        positives: texts of passages that answer it, which are located in the corpus.
        negatives: texts of passages that do not answer it.
        answer: an answer in any words.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft import generate_qa_dataset
        >>> from rag_ft.dataset import RealQuestion
        >>> text = "The {0} is greased by its keeper. Whoever breaks the {0} tells the warden."
        >>> machines = ["crane", "winch", "pump", "gauge", "hoist", "lamp", "ladder", "rope", "anchor", "buoy"]
        >>> nodes = [TextNode(text=text.format(machine), id_=machine) for machine in machines]
        >>> questions = [RealQuestion("Who looks after the crane?", documents=["crane"])]
        >>> generate_qa_dataset(nodes, use_llm=False, questions=questions).dataset.pairs("test")
        [('human0', 'crane')]
    """

    text: str
    documents: Sequence[str] = ()
    evidence: str = ""
    id: str = ""
    positives: Sequence[str] = ()
    negatives: Sequence[str] = ()
    answer: str = ""


def read_questions(file: str | Path, *, fields: Mapping[str, str] | None = None) -> list[RealQuestion]:
    """Read questions that people asked, with the documents or passages that answer them.

    Invalid rows are left out with a warning if they are at most 5 % of the rows.

    Args:
        file: JSONL of `{"text": …, "documents": [names], "evidence": snippet}` (`evidence` is optional), or any format
            of `read_labelled_pairs`: pairs, triplets, scores and clicks as CSV, JSON, Parquet, BEIR and others. A
            passage with a score or fraction of clicks below 0.5 does not answer its question.
        fields: role -> column, for unusual column names (see `read_labelled_pairs`).

    Raises:
        InputError: if more than 5 % of the rows have no question, no answer or a repeated id. The message names the
            first.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from rag_ft.dataset import read_questions
        >>> file = Path(tempfile.mkdtemp()) / "asked.csv"
        >>> _ = file.write_text("question,passage\\nHow is leave booked?,Leave is booked in HELM.\\n")
        >>> [(question.text, question.positives) for question in read_questions(file)]
        [('How is leave booked?', ('Leave is booked in HELM.',))]
    """
    file = Path(file)
    if fields or not _has_documents(file):
        return _from_pairs(file, read_labelled_pairs(file, fields=fields))
    questions = []
    ids: set[str] = set()
    bad_rows = BadRows(file)
    for location, row in json_lines(file, bad_rows):
        try:
            question = _read_question(location, row)
            if question.id and question.id in ids:
                raise InputError(f"{location}: the id {question.id!r} was used before: ids must be unique")
        except InputError as error:
            bad_rows.add(error)
            continue
        ids.add(question.id)
        questions.append(question)
    bad_rows.report(valid=len(questions))
    return questions


def _has_documents(file: Path) -> bool:
    """Return whether a file has JSON lines with a question as "text" and its "documents"."""
    if file.is_dir() or file.suffix.lower() in {".json", *TABLE_SUFFIXES} - set(JSON_LINES):
        return False
    bad_rows = BadRows(file)
    head = [row for _, row in islice(json_lines(file, bad_rows), SNIFFED_ROWS)]
    if not head:
        bad_rows.report(valid=0)
    keys = {key for row in head for key in row}
    return "documents" in keys and not any(plain_name(key) in " ".join(QUERY).split() for key in keys)


def _read_question(location: str, row: Mapping[str, Any]) -> RealQuestion:
    text, documents = row.get("text"), row.get("documents")
    identifier, evidence = str(row.get("_id") or ""), row.get("evidence") or ""
    if not isinstance(text, str) or not text.strip():
        raise InputError(f'{location}: no "text": each line is a question with its documents')
    names = [name for name in (documents if isinstance(documents, list) else [documents]) if name not in (None, "")]
    if not names:
        raise InputError(f'{location}: no "documents": name the documents that answer the question')
    if wrong := [name for name in names if type(name) not in (str, int)]:
        raise InputError(f"{location}: 'documents' has {wrong[0]!r:.40}, but must have names")
    if not isinstance(evidence, str):
        raise InputError(f"{location}: 'evidence' is {evidence!r:.40}, but must be a text")
    return RealQuestion(text, [str(name) for name in names], evidence, identifier)


def _from_pairs(file: Path, pairs: Sequence[LabelledPair]) -> list[RealQuestion]:
    """Merge pairs with the same question; leave out questions whose passages all score below 0.5."""
    pairs_of: dict[str, list[LabelledPair]] = {}
    for pair in pairs:
        pairs_of.setdefault(one_line(pair.query), []).append(pair)
    questions = []
    ids: set[str] = set()
    for same_question in pairs_of.values():
        relevant = [pair for pair in same_question if pair.is_relevant]
        if not relevant:
            continue
        positives = _distinct(text for pair in relevant for text in pair.positives)
        evidence = _distinct(pair.evidence for pair in relevant if pair.evidence)
        identifier = next((pair.id for pair in same_question if pair.id and pair.id not in ids), "")
        ids.add(identifier)
        questions.append(
            RealQuestion(
                text=same_question[0].query,
                documents=_distinct(name for pair in relevant for name in pair.documents),
                evidence=evidence[0] if len(evidence) == 1 else "",
                id=identifier,
                # Several snippets are several texts that answer the question.
                positives=positives + evidence if len(evidence) > 1 else positives,
                negatives=_distinct(text for pair in same_question for text in pair.negatives if text not in positives),
                answer=next((pair.answer for pair in relevant if pair.answer), ""),
            )
        )
    if not questions:
        raise InputError(f"{file} has no question with a relevant passage: every score is below {MIN_POSITIVE_SCORE}")
    return questions


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))
