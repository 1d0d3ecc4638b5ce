"""Where a text that people gave stands in the corpus: found, or said to be nowhere, but never guessed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from functools import cached_property
from typing import Protocol

from rag_ft.dataset.qa_dataset import Passage
from rag_ft.dataset.text.language import words_of
from rag_ft.dataset.text.word_index import WordIndex
from rag_ft.errors import InputError, UnknownIdError

FEW = 200
"""So many passages are looked through one by one; more through an index of their words."""

FEWEST_WORDS = 5
"""A text of fewer words ("see above") stands in many passages: in the whole corpus only an equal passage counts."""

CANDIDATES = 50
RUN = 3
"""Words that follow each other: shorter runs are shared by any two texts."""


class Locatable(Protocol):
    """What says where its answer stands: a text that holds it, or a document and a snippet of it."""

    @property
    def text(self) -> str:
        """The question."""

    @property
    def documents(self) -> Sequence[str]:
        """Ids of documents or passages."""

    @property
    def evidence(self) -> str:
        """A snippet of one of the documents."""

    @property
    def positives(self) -> Sequence[str]:
        """Texts that answer it."""


class Locator:
    """Finds the passages of texts and of snippets; the corpus is gone through once, not for each question.

    A text is found, in this order: where it equals a passage, whatever the white space; where it stands inside
    passages; where passages share at least half of its words, in runs of three or more (it was changed a little, or
    cut in other places). Such a passage holds half of the text, or the text holds half of the passage.

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
        """The passages that answer a question, each with grade 1.

        Args:
            question: its `positives` are looked for where it has some, in its documents first; else the passages of
                its documents that hold its evidence, or all of them without evidence.

        Raises:
            UnknownIdError: where a question without positives names no document of the corpus.
            InputError: where the positives or the evidence stand nowhere.
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
        """The ids of the passages of some documents; with evidence, those that hold it.

        Args:
            documents: ids of documents or passages.
            evidence: a snippet of one of them.
            question: for the error message.

        Raises:
            UnknownIdError: where none of them is a document or passage of the corpus.
            InputError: where the evidence stands in none of them.
        """
        places = self._known(documents)
        if not places:
            named = f"{documents[0]!r}, which is no document here" if documents else "none"
            raise UnknownIdError(f"its document is not in the corpus: the question {question[:60]!r} names {named}")
        if not evidence.strip():
            return [self._passages[place].id for place in places]
        found = self._find(evidence, places)
        if not found:
            raise InputError(
                f"its evidence is not in its document: the question {question[:60]!r} has {evidence[:60]!r}, "
                f"which stands nowhere in {documents[0]!r}; copy it from there"
            )
        return found

    def find(self, text: str, documents: Sequence[str] = ()) -> list[str]:
        """The ids of the passages where a text stands; none where it stands nowhere.

        Args:
            text: a passage, or a part of one or several.
            documents: ids of documents or passages, where it is looked for first.
        """
        places = self._known(documents)
        return (self._find(text, places) if places else []) or self._find(text, None)

    def _known(self, documents: Sequence[str]) -> list[int]:
        places: dict[int, None] = {}
        for name in dict.fromkeys(documents):
            if name in self._inside:
                places |= dict.fromkeys(self._inside[name])
            elif name in self._place:
                places[self._place[name]] = None
        return sorted(places)

    def _find(self, text: str, among: list[int] | None) -> list[str]:
        wanted, asked = _plain(text), words_of(text)
        if not asked:
            return []
        # The words at its ends may be parts of words there.
        places = self._candidates(among, lambda: self._index.holding_all(asked[1:-1] or asked))
        found = [place for place in places if wanted in (self._text(place), self._titled(place))]
        if not found and (among is not None or len(asked) >= FEWEST_WORDS):
            found = [place for place in places if wanted in self._text(place)]
            if not found:
                depth = CANDIDATES if among is None else len(self._passages)
                places = self._candidates(among, lambda: self._index.sharing_most(asked, depth))
                found = self._covering(asked, places)
        return [self._passages[place].id for place in found]

    def _candidates(self, among: list[int] | None, look_up: Callable[[], list[int]]) -> list[int]:
        if among is not None and len(among) <= FEW:
            return among
        found = look_up()
        if among is None:
            return found
        inside = set(among)
        return [place for place in found if place in inside]

    def _covering(self, asked: list[str], places: Sequence[int]) -> list[int]:
        """The passages that share most words with a text, where they hold at least half of it together."""
        bag = Counter(asked)
        matcher: SequenceMatcher[str] = SequenceMatcher(autojunk=False)
        matcher.set_seq2(asked)
        shared: dict[int, set[int]] = {}
        for place in places:
            words = self._words_of(place)
            least = min(len(asked), len(words))
            if least >= FEWEST_WORDS and (bag & Counter(words)).total() * 2 >= least:
                matcher.set_seq1(words)
                shared[place] = {
                    position
                    for block in matcher.get_matching_blocks()
                    if block.size >= RUN or block.size * 2 >= len(asked)
                    for position in range(block.b, block.b + block.size)
                }
        covered: set[int] = set()
        found = []
        for place in sorted(shared, key=lambda place: -len(shared[place])):
            # A passage that repeats what another one covers, as forms of one pattern do, adds nothing.
            new = shared[place] - covered
            if new and len(new) * 2 >= min(len(asked), len(self._words_of(place))):
                covered |= new
                found.append(place)
        return sorted(found) if len(covered) * 2 >= len(asked) else []

    @cached_property
    def _index(self) -> WordIndex:
        return WordIndex(f"{passage.title}\n{passage.text}" for passage in self._passages)

    def _text(self, place: int) -> str:
        if place not in self._plain:
            self._plain[place] = _plain(self._passages[place].text)
        return self._plain[place]

    def _titled(self, place: int) -> str:
        title = self._passages[place].title
        return f"{_plain(title)} {self._text(place)}" if title else self._text(place)

    def _words_of(self, place: int) -> list[str]:
        if place not in self._words:
            self._words[place] = words_of(self._passages[place].text)
        return self._words[place]


def _plain(text: str) -> str:
    return " ".join(text.split())
