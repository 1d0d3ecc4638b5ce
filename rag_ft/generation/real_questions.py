"""Questions that people asked, with the documents that answer them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from rag_ft.dataset.qa_dataset import Passage
from rag_ft.errors import InputError, UnknownIdError
from rag_ft.files import read_jsonl

HUMAN = "human"


@dataclass(frozen=True)
class RealQuestion:
    """A question and where its answer stands.

    Attributes:
        text: the question.
        documents: ids of the documents that answer it.
        evidence: a snippet of the document that answers it; the passage that holds it is the relevant one. All
            passages of the documents are where it is empty.
        id: its own id; a number is given where it is empty.
    """

    text: str
    documents: Sequence[str]
    evidence: str = ""
    id: str = ""


def read_questions(file: str | Path) -> list[RealQuestion]:
    """Read a JSONL file of `{"text": …, "documents": [ids], "evidence": snippet or nothing}`.

    Raises:
        InputError: where a line has no text or no document, or an id is repeated.
    """
    file = Path(file)
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


def locate(question: RealQuestion, passages: dict[str, Passage]) -> dict[str, int]:
    """The passages that answer a question, each with grade 1.

    Raises:
        UnknownIdError: where a document is not in the corpus.
    """
    inside = [passage for passage in passages.values() if passage.document in set(question.documents)]
    if not inside:
        raise UnknownIdError(
            f"the question {question.text[:60]!r} names {question.documents[0]!r}, which is no document here"
        )
    if not question.evidence:
        return {passage.id: 1 for passage in inside}
    exact = [passage for passage in inside if question.evidence in passage.text]
    if exact:
        return {passage.id: 1 for passage in exact}

    # The evidence was cut in two: the passage with the longer part of it.
    def shared(passage: Passage) -> int:
        matcher = SequenceMatcher(None, passage.text, question.evidence, autojunk=False)
        return matcher.find_longest_match().size

    return {max(inside, key=shared).id: 1}
