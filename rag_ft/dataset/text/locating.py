"""Locate a given text in the corpus. It is either found or reported as missing, never guessed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from functools import cached_property
from typing import Protocol

from rag_ft.dataset.qa_dataset import Passage
from rag_ft.dataset.text.whitespace import one_line
from rag_ft.dataset.text.word_index import WordIndex
from rag_ft.dataset.text.words import words_of
from rag_ft.errors import InputError, UnknownIdError

MAX_SCANNED = 200
"""Maximum number of passages that are scanned one by one. More are looked up in an index of their words."""

MIN_WORDS = 5
"""Minimum number of words of a text that is looked for inside passages. A shorter one ("see above") is in many of them,
so in the whole corpus only an equal passage counts."""

MAX_CANDIDATES = 50
MIN_RUN = 3
"""Minimum number of consecutive words that count as shared: any two texts share shorter runs."""


class Locatable(Protocol):
    """A question that says where its answer is: a text that has it, or a document and a snippet of it."""

    @property
    def text(self) -> str:
        """The question."""

    @property
    def documents(self) -> Sequence[str]:
        """Ids of documents or passages that have the answer."""

    @property
    def evidence(self) -> str:
        """A snippet of one of the documents."""

    @property
    def positives(self) -> Sequence[str]:
        """Texts that answer it."""


class Locator:
    """Locates texts and snippets in the passages of a corpus, which is indexed once for all questions.

    A text is located by the first of these that finds a passage: passages that equal it, regardless of white space;
    passages that contain it; passages that together share at least half of its words in runs of three or more, because
    it was slightly changed or cut in other places. Such a passage has half of the text, or the text has half of the
    passage.

    Args:
        passages: the corpus.

    Example:
        >>> from rag_ft.dataset.text.locating import Locator
        >>> from rag_ft import Passage
        >>> locator = Locator({"a#0": Passage("a#0", "Leave is booked\\nin HELM by noon of the day before.")})
        >>> locator.find("is booked in HELM by noon")
        ['a#0']
        >>> locator.find("Badges open the doors of the harbour.")
        []
    """

    def __init__(self, passages: Mapping[str, Passage]) -> None:
        self._passages = list(passages.values())
        self._place = {passage.id: place for place, passage in enumerate(self._passages)}
        self._inside: dict[str, list[int]] = {}
        for place, passage in enumerate(self._passages):
            self._inside.setdefault(passage.document, []).append(place)
        self._plain: dict[int, str] = {}
        self._words: dict[int, list[str]] = {}

    def locate(self, question: Locatable) -> dict[str, int]:
        """Return the passages that answer a question, each with grade 1.

        Args:
            question: if it has `positives`, these are located, in its documents first. Otherwise the passages of its
                documents that have its evidence are relevant, or all of them without evidence.

        Raises:
            UnknownIdError: if a question without positives names no document of the corpus.
            InputError: if the positives or the evidence are not found.
        """
        if question.positives:
            found = {key: 1 for text in question.positives for key in self.find(text, question.documents)}
            if not found:
                raise InputError(
                    f"its passage is not in the corpus: that of the question {question.text[:60]!r} "
                    f"({question.positives[0][:60]!r})"
                )
            return found
        return dict.fromkeys(self.inside(question.documents, question.evidence, question.text), 1)

    def inside(self, documents: Sequence[str], evidence: str = "", question: str = "") -> list[str]:
        """Return the ids of the passages of documents; with evidence, of those that have it.

        Args:
            documents: ids of documents or passages.
            evidence: a snippet of one of them.
            question: the text of the question, for the error message.

        Raises:
            UnknownIdError: if none of them is a document or passage of the corpus.
            InputError: if the evidence is in none of them.
        """
        places = self._places_in(documents)
        if not places:
            named = f"{documents[0]!r}, which is no document here" if documents else "none"
            raise UnknownIdError(f"its document is not in the corpus: the question {question[:60]!r} names {named}")
        if not evidence.strip():
            return [self._passages[place].id for place in places]
        found = self._find(evidence, places)
        if not found:
            raise InputError(
                f"its evidence is not in its document: the question {question[:60]!r} has {evidence[:60]!r}, "
                f"which is nowhere in {documents[0]!r}; copy it from there"
            )
        return found

    def find(self, text: str, documents: Sequence[str] = ()) -> list[str]:
        """Return the ids of the passages that have a text; none if it is not in the corpus.

        Args:
            text: a passage, or a part of one or several.
            documents: ids of documents or passages that are searched first.
        """
        places = self._places_in(documents)
        return (self._find(text, places) if places else []) or self._find(text, None)

    def _places_in(self, documents: Sequence[str]) -> list[int]:
        places: dict[int, None] = {}
        for name in dict.fromkeys(documents):
            if name in self._inside:
                places |= dict.fromkeys(self._inside[name])
            elif name in self._place:
                places[self._place[name]] = None
        return sorted(places)

    def _find(self, text: str, among: list[int] | None) -> list[str]:
        wanted, words = one_line(text), words_of(text)
        if not words:
            return []
        # The first and the last word may be parts of words in the passage.
        places = self._candidates(among, lambda: self._index.holding_all(words[1:-1] or words))
        found = [place for place in places if wanted in (self._text(place), self._titled(place))]
        if not found and (among is not None or len(words) >= MIN_WORDS):
            found = [place for place in places if wanted in self._text(place)]
            if not found:
                depth = MAX_CANDIDATES if among is None else len(self._passages)
                places = self._candidates(among, lambda: self._index.sharing_most(words, depth))
                found = self._covering(words, places)
        return [self._passages[place].id for place in found]

    def _candidates(self, among: list[int] | None, look_up: Callable[[], list[int]]) -> list[int]:
        if among is not None and len(among) <= MAX_SCANNED:
            return among
        found = look_up()
        if among is None:
            return found
        inside = set(among)
        return [place for place in found if place in inside]

    def _covering(self, words: list[str], places: Sequence[int]) -> list[int]:
        """Return the passages that share most words with a text, if together they have at least half of it."""
        bag = Counter(words)
        matcher: SequenceMatcher[str] = SequenceMatcher(autojunk=False)
        matcher.set_seq2(words)
        shared: dict[int, set[int]] = {}
        for place in places:
            own = self._words_of(place)
            shorter = min(len(words), len(own))
            if shorter >= MIN_WORDS and (bag & Counter(own)).total() * 2 >= shorter:
                matcher.set_seq1(own)
                shared[place] = {
                    position
                    for block in matcher.get_matching_blocks()
                    if block.size >= MIN_RUN or block.size * 2 >= len(words)
                    for position in range(block.b, block.b + block.size)
                }
        covered: set[int] = set()
        found = []
        for place in sorted(shared, key=lambda place: -len(shared[place])):
            # A passage adds nothing if another one already covers it, as with forms of one pattern.
            new = shared[place] - covered
            if new and len(new) * 2 >= min(len(words), len(self._words_of(place))):
                covered |= new
                found.append(place)
        return sorted(found) if len(covered) * 2 >= len(words) else []

    @cached_property
    def _index(self) -> WordIndex:
        return WordIndex(f"{passage.title}\n{passage.text}" for passage in self._passages)

    def _text(self, place: int) -> str:
        if place not in self._plain:
            self._plain[place] = one_line(self._passages[place].text)
        return self._plain[place]

    def _titled(self, place: int) -> str:
        title = self._passages[place].title
        return f"{one_line(title)} {self._text(place)}" if title else self._text(place)

    def _words_of(self, place: int) -> list[str]:
        if place not in self._words:
            self._words[place] = words_of(self._passages[place].text)
        return self._words[place]
