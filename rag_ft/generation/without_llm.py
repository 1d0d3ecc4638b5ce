"""Generate questions without an LLM: sentences, headings and key phrases of the passages.

A sentence taken out of its passage (inverse cloze, Lee et al. 2019) is strong but risky training data: it can improve
one collection and worsen another, and dev questions from the same source do not show the difference. Therefore the
sources are mixed, dev questions come from another source than training questions, and alpha is capped for generated
questions (`rag_ft.training.recipe`).
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from rag_ft.dataset.qa_dataset import Passage, Query
from rag_ft.dataset.sources import HEADING, KEY_PHRASES, SENTENCE
from rag_ft.dataset.text.cloze import sentences
from rag_ft.dataset.text.language import corpus_language
from rag_ft.dataset.text.scripts import HAN, HANGUL, KATAKANA, MARKS, SOUTH_EAST_ASIAN, UNSPACED
from rag_ft.dataset.text.words import stop_words_of, word_count
from rag_ft.files import sha256_of


def sentence_queries(passage: Passage, count: int, draw: random.Random) -> list[str]:
    """Sample sentences of a passage, word for word. Training removes them from the passage."""
    candidates = sentences(passage.own_text)
    return draw.sample(candidates, min(count, len(candidates)))


def heading_queries(passage: Passage) -> list[str]:
    """Return the Markdown headings of a passage that have 3 to 20 words. Training removes them too."""
    headings = re.findall(r"^#{1,6}\s+(.+?)\s*#*$", passage.own_text, re.MULTILINE)
    return [
        heading for heading in dict.fromkeys(headings) if 3 <= word_count(heading) <= 20 and heading != passage.title
    ]


# Hiragana is left out: it is used for the endings and particles of Japanese, rarely for a term.
RUN_WITHOUT_SPACES = re.compile(f"[{HAN}]+|[{KATAKANA}]+|[{SOUTH_EAST_ASIAN}]+")
DENSE_SCRIPT = re.compile(f"[{HANGUL}]|{RUN_WITHOUT_SPACES.pattern}")
"""Scripts in which two characters are long enough for a word."""

WORD = re.compile(rf"{RUN_WITHOUT_SPACES.pattern}|(?:(?![{UNSPACED}])[^\W\d_])(?:(?![{UNSPACED}])[\w{MARKS}'-])+")
MAX_WORD_LENGTH = 24

MIN_LINK = 0.3
"""Minimum fraction of the rarer character's occurrences beside its neighbour for both to belong to one term."""


class KeyPhrases:
    """Find the words that distinguish a passage from others, by their frequency in it and in the corpus.

    In a script without spaces, a term is a run of characters that the corpus repeats together.

    Args:
        texts: the texts of the whole corpus.

    Example:
        >>> import random
        >>> from rag_ft.generation.without_llm import KeyPhrases
        >>> texts = ["Lost badges are blocked at the gate.", "Badges open a gate.", "A lost form is blocked.", "Leave"]
        >>> KeyPhrases(texts).query(texts[0], random.Random(0))
        'lost badges blocked gate'
    """

    def __init__(self, texts: Iterable[str]) -> None:
        texts = list(texts)
        self.documents = len(texts)
        # English stop words are not removed, because the defaults of training were measured that way.
        self._stop_words = set(stop_words_of(language)) if (language := corpus_language(texts)) != "en" else set()
        self._characters: Counter[str] = Counter()
        self._pairs: Counter[str] = Counter()
        for run in (run for text in texts for run in RUN_WITHOUT_SPACES.findall(text)):
            self._characters.update(run)
            self._pairs.update(map("".join, pairwise(run)))
        self.frequency = Counter(word for text in texts for word in set(self._words(text)))

    def query(self, text: str, draw: random.Random) -> str | None:
        """Sample three to six rare words of a text, in the order of the text; None if it has too few."""
        words = self._words(text)
        counts = Counter(words)
        # A word that occurs once in the whole corpus is more often a typo than a term.
        score = {
            word: count * math.log(self.documents / max(1, self.frequency[word]))
            for word, count in counts.items()
            if count > 1 or self.frequency[word] > 1
        }
        rarest = sorted(score, key=lambda word: (-score[word], word))[:12]
        if len(rarest) < 3:
            return None
        chosen = set(draw.sample(rarest, min(len(rarest), draw.randint(3, 6))))
        return " ".join(dict.fromkeys(word for word in words if word in chosen))

    def _words(self, text: str) -> list[str]:
        plain = re.sub(r"(?<!\S)\S*(?:://|www\.|@)\S*", " ", text)
        words = (
            term
            for word in WORD.findall(plain)
            for term in (self._terms(word) if RUN_WITHOUT_SPACES.match(word) else [word])
        )
        long_enough = (
            word.lower() for word in words if (2 if DENSE_SCRIPT.match(word) else 3) <= len(word) <= MAX_WORD_LENGTH
        )
        return [word for word in long_enough if word not in self._stop_words]

    def _terms(self, run: str) -> list[str]:
        """Split a run of characters between neighbours that are rarely together in the corpus."""
        term, terms = run[0], []
        for pair in map("".join, pairwise(run)):
            count = self._pairs[pair]
            if count > 1 and count >= MIN_LINK * min(self._characters[character] for character in pair):
                term += pair[1]
            else:
                terms.append(term)
                term = pair[1]
        return [*terms, term]


def shortest_part_with(words: Sequence[str], text: str) -> str:
    """Return the shortest part of a text that contains all words; empty if there is none.

    Args:
        words: words in lower case.
        text: the text.

    Example:
        >>> from rag_ft.generation.without_llm import shortest_part_with
        >>> shortest_part_with(["badge", "gate"], "A badge is lost. The badge opens a gate at night.")
        'badge opens a gate'
    """
    lower = text.lower()
    if len(lower) != len(text):  # a few characters become two
        return ""
    found: list[tuple[int, int, str]] = []
    for word in set(words):
        whole = re.escape(word) if DENSE_SCRIPT.match(word) else rf"(?<!\w){re.escape(word)}(?!\w)"
        found += [(*match.span(), word) for match in re.finditer(whole, lower)]
    last: dict[str, int] = {}  # word -> its last position so far
    best = (0, 0)
    for start, end, word in sorted(found):
        last[word] = start
        if len(last) == len(set(words)):
            first = min(last.values())
            if best[1] == 0 or end - first < best[1] - best[0]:
                best = (first, end)
    return text[best[0] : best[1]]


def questions_without_llm(passages: Sequence[Passage], per_passage: int = 2, seed: int = 0) -> list[tuple[Query, str]]:
    """Return (query, passage id) pairs for passages: sentences, headings and key phrases.

    Args:
        passages: the passages.
        per_passage: number of sentences from each passage, and of sets of key phrases. Headings are added to them.
        seed: seeds every random choice. Each text has its own generator, so order and ids do not matter.
    """
    phrases = KeyPhrases(passage.own_text for passage in passages)
    pairs: list[tuple[Query, str]] = []
    for passage in passages:
        draw = random.Random(f"{seed} {sha256_of(passage.own_text)}")
        texts = {
            SENTENCE: sentence_queries(passage, per_passage, draw),
            HEADING: heading_queries(passage),
            KEY_PHRASES: dict.fromkeys(phrases.query(passage.own_text, draw) for _ in range(per_passage)),
        }
        for source, queries in texts.items():
            for number, text in enumerate(filter(None, queries), start=1):
                evidence = shortest_part_with(text.split(), passage.own_text) if source == KEY_PHRASES else ""
                query = Query(f"{passage.id}:{source}{number}", text, source, evidence=evidence, one_answer=True)
                pairs.append((query, passage.id))
    return pairs
