"""Locate a given text in the corpus. A text that is not found is reported as missing, never guessed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import SequenceMatcher
from functools import cached_property
from typing import Protocol

from rag_ft.dataset.qa_dataset import Passage
from rag_ft.dataset.text.document_names import DocumentNames, split_names, unknown_name
from rag_ft.dataset.text.whitespace import one_line
from rag_ft.dataset.text.word_index import WordIndex
from rag_ft.dataset.text.words import words_of
from rag_ft.errors import InputError, UnknownIdError

logger = logging.getLogger(__name__)

MAX_SCANNED = 200
"""Maximum number of passages that are scanned one by one. More are looked up in an index of their words."""

MIN_WORDS = 5
"""Minimum number of words of a text that is searched inside passages of the whole corpus. A shorter one ("see above")
is in many of them, so only an equal passage counts."""

MAX_CANDIDATES = 50
MIN_RUN = 3
"""Minimum number of consecutive words that count as shared, because any two texts share shorter runs."""


class Locatable(Protocol):
    """A question with the location of its answer: a text that contains it, or a document and a snippet."""

    @property
    def text(self) -> str:
        """The question."""

    @property
    def documents(self) -> Sequence[str]:
        """Names of documents, or ids of passages, that contain the answer."""

    @property
    def evidence(self) -> str:
        """A snippet of one of the documents."""

    @property
    def positives(self) -> Sequence[str]:
        """Texts that answer it."""


class Locator:
    """Locate texts and snippets in the passages of a corpus, which is indexed once for all questions.

    A text is located by the first of these that finds a passage: passages that equal it, regardless of white space;
    passages that contain it; passages that together share at least half of its words in runs of three or more, if it
    was slightly changed or cut in other places. Each of them contains half of the text, or the text contains half of
    the passage.

    Documents are named as people do (see `DocumentNames`): `docs/leave/fmla.md` and "FMLA" may both be `leave/fmla.md`.
    A title names its document if no other document has it.

    Args:
        passages: the corpus.
        aliases: other names, such as absolute paths or LlamaIndex's ids -> the documents that they name.

    Example:
        >>> from rag_ft.dataset.text.locating import Locator
        >>> from rag_ft import Passage
        >>> text = "Leave is booked\\nin HELM by noon of the day before."
        >>> locator = Locator({"a#0": Passage("a#0", text, title="Leave", doc_id="hr/leave.pdf")})
        >>> locator.inside(["leave.pdf"]), locator.inside(["Leave, p. 3"])
        (['a#0'], ['a#0'])
        >>> locator.find("is booked in HELM by noon")
        ['a#0']
        >>> locator.find("Badges open the doors of the harbour.")
        []
    """

    def __init__(self, passages: Mapping[str, Passage], aliases: Mapping[str, Collection[str]] | None = None) -> None:
        self._aliases = aliases or {}
        self._passages = list(passages.values())
        self._position_of = {passage.id: position for position, passage in enumerate(self._passages)}
        self._inside: dict[str, list[int]] = {}
        for position, passage in enumerate(self._passages):
            self._inside.setdefault(passage.document, []).append(position)
        self._plain: dict[int, str] = {}
        self._words: dict[int, list[str]] = {}

    def locate(self, question: Locatable) -> dict[str, int]:
        """Return the passages that answer a question, each with grade 1.

        Args:
            question: if it has `positives`, these are located, in its documents first. Otherwise the passages of its
                documents that contain its evidence are relevant; without evidence, all of them are.

        Raises:
            UnknownIdError: if a question without positives does not name one document of the corpus.
            InputError: if the positives or the evidence are not found.
        """
        if question.positives:
            located = {key: 1 for text in question.positives for key in self.find(text, question.documents)}
            if not located:
                raise InputError(
                    f"its passage is not in the corpus: the question {question.text[:60]!r} "
                    f"({question.positives[0][:60]!r})"
                )
            return located
        return dict.fromkeys(self.inside(question.documents, question.evidence, question.text), 1)

    def inside(self, documents: Sequence[str], evidence: str = "", question: str = "") -> list[str]:
        """Return the ids of the passages of documents; with evidence, of those that contain it.

        Args:
            documents: names of documents, or ids of passages.
            evidence: a snippet of one of them.
            question: the text of the question, for the error message.

        Raises:
            UnknownIdError: if none of them is a document or passage of the corpus, or a name may be several documents.
            InputError: if the evidence is in none of them.
        """
        positions = self._positions_in(documents)
        if not positions:
            raise self._unknown(documents, question)
        if not evidence.strip():
            return [self._passages[position].id for position in positions]
        ids = self._find(evidence, positions)
        if not ids:
            raise InputError(
                f"its evidence is not in its document: the question {question[:60]!r} has {evidence[:60]!r}, "
                f"which is not in {documents[0]!r}; copy it from there"
            )
        return ids

    def find(self, text: str, documents: Sequence[str] = ()) -> list[str]:
        """Return the ids of the passages that contain a text; none if it is not in the corpus.

        Args:
            text: a passage, or a part of one or several passages.
            documents: names of documents, or ids of passages, that are searched first.
        """
        positions = self._positions_in(documents)
        return (self._find(text, positions) if positions else []) or self._find(text, None)

    def _positions_in(self, documents: Sequence[str]) -> list[int]:
        positions: dict[int, None] = {}
        unknown: list[str] = []
        for cell in dict.fromkeys(documents):
            for name in split_names(cell, self._is_known):
                found = self._positions_of(name)
                positions |= dict.fromkeys(found)
                unknown += [] if found else [name]
        if positions and unknown:
            logger.warning("a question also names %r, which is not in the corpus: it is ignored", unknown[0])
        return sorted(positions)

    def _positions_of(self, name: str) -> Sequence[int]:
        if name in self._inside:
            return self._inside[name]
        if name in self._position_of:
            return [self._position_of[name]]
        matches = self._names.matches(name)
        return self._inside[matches[0]] if len(matches) == 1 else ()

    def _is_known(self, name: str) -> bool:
        return bool(self._positions_of(name))

    @cached_property
    def _names(self) -> DocumentNames:
        titled: dict[str, set[str]] = {}
        for passage in self._passages:
            if passage.title:
                titled.setdefault(passage.title, set()).add(passage.document)
        # "Introduction" is the title of many documents and names none of them.
        aliases: dict[str, Collection[str]] = {title: found for title, found in titled.items() if len(found) == 1}
        for alias, found in self._aliases.items():
            aliases[alias] = {*found, *aliases.get(alias, ())}
        return DocumentNames(self._inside, aliases)

    def _unknown(self, documents: Sequence[str], question: str) -> UnknownIdError:
        asked = f"the question {question[:60]!r}"
        if not documents:
            return UnknownIdError(f"its document is not in the corpus: {asked} names none")
        name = unknown_name(documents[0], self._is_known)
        problem = "is unclear" if self._names.matches(name) else "is not in the corpus"
        return UnknownIdError(f"its document {problem}: {asked} names {name!r:.80}, which {self._names.why_not(name)}")

    def _find(self, text: str, within: list[int] | None) -> list[str]:
        plain, words = one_line(text), words_of(text)
        if not words:
            return []
        # The first and the last word may be parts of words in the passage.
        positions = self._candidates(within, lambda: self._index.holding_all(words[1:-1] or words))
        found = [position for position in positions if plain in self._whole_texts(position)]
        if not found and (within is not None or len(words) >= MIN_WORDS):
            found = [position for position in positions if plain in self._text(position)]
            if not found:
                depth = MAX_CANDIDATES if within is None else len(self._passages)
                positions = self._candidates(within, lambda: self._index.sharing_most(words, depth))
                found = self._covering(words, positions)
        return [self._passages[position].id for position in found]

    def _candidates(self, within: list[int] | None, look_up: Callable[[], list[int]]) -> list[int]:
        if within is not None and len(within) <= MAX_SCANNED:
            return within
        found = look_up()
        if within is None:
            return found
        inside = set(within)
        return [position for position in found if position in inside]

    def _covering(self, words: list[str], positions: Sequence[int]) -> list[int]:
        """Return the passages that share most words with a text, if together they have at least half of it."""
        bag = Counter(words)
        matcher: SequenceMatcher[str] = SequenceMatcher(autojunk=False)
        matcher.set_seq2(words)
        shared: dict[int, set[int]] = {}
        for position in positions:
            passage_words = self._words_of(position)
            shorter = min(len(words), len(passage_words))
            if shorter >= MIN_WORDS and (bag & Counter(passage_words)).total() * 2 >= shorter:
                matcher.set_seq1(passage_words)
                shared[position] = {
                    word_position
                    for block in matcher.get_matching_blocks()
                    if block.size >= MIN_RUN or block.size * 2 >= len(words)
                    for word_position in range(block.b, block.b + block.size)
                }
        covered: set[int] = set()
        found = []
        for position in sorted(shared, key=lambda position: -len(shared[position])):
            # A passage is skipped if another one covers the same words, as with forms of one template.
            new = shared[position] - covered
            if new and len(new) * 2 >= min(len(words), len(self._words_of(position))):
                covered |= new
                found.append(position)
        return sorted(found) if len(covered) * 2 >= len(words) else []

    @cached_property
    def _index(self) -> WordIndex:
        return WordIndex(f"{passage.title}\n{passage.text}" for passage in self._passages)

    def _text(self, position: int) -> str:
        if position not in self._plain:
            self._plain[position] = one_line(self._passages[position].own_text)
        return self._plain[position]

    def _whole_texts(self, position: int) -> set[str]:
        """Return the texts that equal a passage: its own, with its title, and as it is embedded."""
        passage, text = self._passages[position], self._text(position)
        titled = {f"{one_line(passage.title)} {text}"} if passage.title else set()
        return {text} | titled | ({one_line(passage.text)} if passage.content else set())

    def _words_of(self, position: int) -> list[str]:
        if position not in self._words:
            self._words[position] = words_of(self._passages[position].own_text)
        return self._words[position]
