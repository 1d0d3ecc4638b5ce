"""Questions that people asked, with the documents or passages that answer them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rag_ft.dataset.formats.columns import QUERY, plain_name
from rag_ft.dataset.formats.labelled_pairs import MIN_POSITIVE_SCORE, LabelledPair, read_labelled_pairs
from rag_ft.dataset.formats.tables import JSON_LINES, TABLE_SUFFIXES
from rag_ft.dataset.qa_dataset import Passage
from rag_ft.dataset.text.locating import Locator as Locator
from rag_ft.dataset.text.whitespace import one_line
from rag_ft.errors import InputError
from rag_ft.files import read_jsonl


@dataclass(frozen=True)
class RealQuestion:
    """A question and where its answer stands.

    Attributes:
        text: the question.
        documents: ids of the documents, or of the passages, that answer it; may be empty where it has positives.
        evidence: a snippet of the document that answers it; the passage that holds it is the relevant one. All
            passages of the documents are where it is empty.
        id: its own id; a number is given where it is empty.
        positives: texts of passages that answer it; they are looked for in the corpus.
        negatives: texts of passages that do not.
        answer: in its own words.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft import generate_qa_dataset
        >>> from rag_ft.generation import RealQuestion
        >>> text = "The {0} is greased by its keeper. Whoever breaks the {0} tells the warden."
        >>> machines = ["crane", "winch", "pump", "gauge", "hoist", "lamp", "ladder", "rope", "anchor", "buoy"]
        >>> nodes = [TextNode(text=text.format(machine), id_=machine) for machine in machines]
        >>> asked = [RealQuestion("Who looks after the crane?", documents=["crane"])]
        >>> generate_qa_dataset(nodes, use_llm=False, questions=asked).dataset.pairs("test")
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
        file: JSONL of `{"text": …, "documents": [ids], "evidence": snippet or nothing}`, or any form of
            `read_labelled_pairs`: pairs, triplets, scores, clicks; as CSV, JSON, Parquet, BEIR and others. Of a score
            or of clicks, what is under .5 is no answer.
        fields: which column holds what, where a table's names do not tell (see `read_labelled_pairs`).

    Raises:
        InputError: where a line has no question, or nothing that answers it, or an id is repeated.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from rag_ft.generation import read_questions
        >>> file = Path(tempfile.mkdtemp()) / "asked.csv"
        >>> _ = file.write_text("question,passage\\nHow is leave booked?,Leave is booked in HELM.\\n")
        >>> [(question.text, question.positives) for question in read_questions(file)]
        [('How is leave booked?', ('Leave is booked in HELM.',))]
    """
    file = Path(file)
    if fields or not _has_documents(file):
        return _of_pairs(file, read_labelled_pairs(file, fields=fields))
    questions = []
    seen: set[str] = set()
    for number, row in read_jsonl(file):
        text, documents = row.get("text"), row.get("documents")
        if isinstance(documents, str):
            documents = [documents]
        if not isinstance(text, str) or not text.strip():
            raise InputError(f'{file}:{number}: no "text": each line is a question with its documents')
        if not isinstance(documents, list) or not documents:
            raise InputError(f'{file}:{number}: no "documents": name the documents that answer the question')
        identifier, evidence = str(row.get("_id") or ""), row.get("evidence") or ""
        if identifier and identifier in seen:
            raise InputError(f"{file}:{number}: the id {identifier!r} was used before: ids must be unique")
        if not isinstance(evidence, str):
            raise InputError(f"{file}:{number}: 'evidence' is {evidence!r:.40}, and must be a text")
        seen.add(identifier)
        questions.append(RealQuestion(text, [str(name) for name in documents], evidence, identifier))
    if not questions:
        raise InputError(f"{file} holds no question")
    return questions


def _has_documents(file: Path) -> bool:
    """Whether a file has JSON lines with a question as "text" and its "documents"."""
    if file.is_dir() or file.suffix.lower() in {".json", *TABLE_SUFFIXES} - set(JSON_LINES):
        return False
    _, first = next(read_jsonl(file), (0, {}))
    return "documents" in first and not any(plain_name(key) in " ".join(QUERY).split() for key in first)


def _of_pairs(file: Path, pairs: Sequence[LabelledPair]) -> list[RealQuestion]:
    """One question for all that was said about it; one whose passages are all under .5 is left out."""
    about: dict[str, list[LabelledPair]] = {}
    for pair in pairs:
        about.setdefault(one_line(pair.query), []).append(pair)
    questions = []
    taken: set[str] = set()
    for said in about.values():
        relevant = [pair for pair in said if pair.is_relevant]
        if not relevant:
            continue
        positives = _distinct(text for pair in relevant for text in pair.positives)
        evidence = _distinct(pair.evidence for pair in relevant if pair.evidence)
        identifier = next((pair.id for pair in said if pair.id and pair.id not in taken), "")
        taken.add(identifier)
        questions.append(
            RealQuestion(
                said[0].query,
                _distinct(name for pair in relevant for name in pair.documents),
                evidence[0] if len(evidence) == 1 else "",
                identifier,
                # Several snippets are looked for as what they are: texts that answer the question.
                positives + evidence if len(evidence) > 1 else positives,
                _distinct(text for pair in said for text in pair.negatives if text not in positives),
                next((pair.answer for pair in relevant if pair.answer), ""),
            )
        )
    if not questions:
        raise InputError(f"{file} holds no question that a passage answers: every score is under {MIN_POSITIVE_SCORE}")
    return questions


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def locate(question: RealQuestion, passages: dict[str, Passage]) -> dict[str, int]:
    """The passages that answer a question, each with grade 1; for many questions keep a `Locator`.

    Raises:
        UnknownIdError: where no document of a question without positives is in the corpus.
        InputError: where its evidence or its positives stand nowhere.
    """
    return Locator(passages).locate(question)
