"""Read questions that people asked, with the documents or passages that answer them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rag_ft.dataset.formats.columns import QUERY, plain_name
from rag_ft.dataset.formats.labelled_pairs import MIN_POSITIVE_SCORE, LabelledPair, read_labelled_pairs
from rag_ft.dataset.formats.tables import JSON_LINES, TABLE_SUFFIXES
from rag_ft.dataset.text.whitespace import one_line
from rag_ft.errors import InputError
from rag_ft.files import read_jsonl


@dataclass(frozen=True)
class RealQuestion:
    """A question that a person asked, with the location of its answer.

    Attributes:
        text: the question.
        documents: ids of the documents or passages that answer it. They are optional if there are positives.
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

    Args:
        file: JSONL of `{"text": …, "documents": [ids], "evidence": snippet}` (`evidence` is optional), or any format of
            `read_labelled_pairs`: pairs, triplets, scores and clicks as CSV, JSON, Parquet, BEIR and others. A passage
            with a score or fraction of clicks below 0.5 does not answer its question.
        fields: role -> column, for unusual column names (see `read_labelled_pairs`).

    Raises:
        InputError: if a line has no question or no answer, or an id is repeated.

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
    for number, row in read_jsonl(file):
        text, documents = row.get("text"), row.get("documents")
        identifier, evidence = str(row.get("_id") or ""), row.get("evidence") or ""
        if isinstance(documents, str):
            documents = [documents]
        if not isinstance(text, str) or not text.strip():
            raise InputError(f'{file}:{number}: no "text": each line is a question with its documents')
        if not isinstance(documents, list) or not documents:
            raise InputError(f'{file}:{number}: no "documents": name the documents that answer the question')
        if identifier and identifier in ids:
            raise InputError(f"{file}:{number}: the id {identifier!r} was used before: ids must be unique")
        if not isinstance(evidence, str):
            raise InputError(f"{file}:{number}: 'evidence' is {evidence!r:.40}, but must be a text")
        ids.add(identifier)
        questions.append(RealQuestion(text, [str(name) for name in documents], evidence, identifier))
    if not questions:
        raise InputError(f"{file} contains no questions")
    return questions


def _has_documents(file: Path) -> bool:
    """Return whether a file has JSON lines with a question as "text" and its "documents"."""
    if file.is_dir() or file.suffix.lower() in {".json", *TABLE_SUFFIXES} - set(JSON_LINES):
        return False
    _, first = next(read_jsonl(file), (0, {}))
    return "documents" in first and not any(plain_name(key) in " ".join(QUERY).split() for key in first)


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
