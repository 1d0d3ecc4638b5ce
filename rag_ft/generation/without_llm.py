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


def sentence_queries(passage: Passage, count: int, draw: random.Random) -> list[str]:
    """Sample sentences of a passage, word for word. Training removes them from the passage."""
    candidates = sentences(passage.text)
    return draw.sample(candidates, min(count, len(candidates)))


def heading_queries(passage: Passage) -> list[str]:
    """Return the Markdown headings of a passage that have 3 to 20 words. Training removes them too."""
    headings = re.findall(r"^#{1,6}\s+(.+?)\s*#*$", passage.text, re.MULTILINE)
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


def questions_without_llm(passages: Sequence[Passage], per_passage: int = 2, seed: int = 0) -> list[tuple[Query, str]]:
    """Return (query, passage id) pairs for passages: sentences, headings and key phrases.

    Args:
        passages: the passages.
        per_passage: number of sentences from each passage, and of sets of key phrases. Headings are added to them.
        seed: seeds every random choice. Each passage has its own generator, so their order does not matter.
    """
    phrases = KeyPhrases(passage.text for passage in passages)
    pairs: list[tuple[Query, str]] = []
    for passage in passages:
        draw = random.Random(f"{seed} {passage.id}")
        texts = {
            SENTENCE: sentence_queries(passage, per_passage, draw),
            HEADING: heading_queries(passage),
            KEY_PHRASES: dict.fromkeys(phrases.query(passage.text, draw) for _ in range(per_passage)),
        }
        for source, queries in texts.items():
            for number, text in enumerate(filter(None, queries), start=1):
                pairs.append((Query(f"{passage.id}:{source}{number}", text, source), passage.id))
    return pairs
