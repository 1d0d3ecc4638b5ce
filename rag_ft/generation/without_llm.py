"""Questions without any model: sentences, headings and key phrases of the passages themselves.

A sentence taken out of its passage (inverse cloze, Lee et al. 2019) is strong training data and a dangerous
one: it can lift one collection and lower the next, and dev questions made in the same way approve of both.
So the styles are mixed, dev questions are made in another style than training ones, and training allows
generated data a smaller share of the weights (`rag_ft.training.recipe`).
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
    """Some sentences of a passage, copied as they stand; training takes them out of the passage."""
    found = sentences(passage.text)
    return draw.sample(found, min(count, len(found)))


def heading_queries(passage: Passage) -> list[str]:
    """The Markdown headings of a passage that say something by themselves; training takes them out of it too."""
    headings = re.findall(r"^#{1,6}\s+(.+?)\s*#*$", passage.text, re.MULTILINE)
    return [
        heading for heading in dict.fromkeys(headings) if 3 <= word_count(heading) <= 20 and heading != passage.title
    ]


# Hiragana is left out: it writes the endings and particles of Japanese, seldom a term.
RUN = re.compile(f"[{HAN}]+|[{KATAKANA}]+|[{SOUTH_EAST_ASIAN}]+")
SHORT = re.compile(f"[{HANGUL}]|{RUN.pattern}")
"""Scripts in which two characters make a word."""

WORD = re.compile(rf"{RUN.pattern}|(?:(?![{UNSPACED}])[^\W\d_])(?:(?![{UNSPACED}])[\w{MARKS}'-])+")
LONGEST_WORD = 24
LINK = 0.3
"""Neighbours in a run belong to one term where so many of the rarer one's occurrences stand beside the other."""


class KeyPhrases:
    """The words that tell a passage from the others: by their frequency here against that of the corpus.

    Where there are no spaces between words, a term is a run of characters that the corpus repeats together.

    Args:
        texts: those of the whole corpus.

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
        # English keeps them: its key phrases are what the recipe was measured with.
        self._stop_words = set(stop_words_of(language)) if (language := corpus_language(texts)) != "en" else set()
        self._characters: Counter[str] = Counter()
        self._pairs: Counter[str] = Counter()
        for run in (run for text in texts for run in RUN.findall(text)):
            self._characters.update(run)
            self._pairs.update(map("".join, pairwise(run)))
        self.frequency = Counter(word for text in texts for word in set(self._words(text)))

    def query(self, text: str, draw: random.Random) -> str | None:
        """Three to six rare words of a text, in the order of the text; None where it has too few."""
        words = self._words(text)
        counts = Counter(words)
        # A word that stands once in the whole corpus is more often a slip than a term.
        score = {
            word: count * math.log(self.documents / max(1, self.frequency[word]))
            for word, count in counts.items()
            if count > 1 or self.frequency[word] > 1
        }
        best = sorted(score, key=lambda word: (-score[word], word))[:12]
        if len(best) < 3:
            return None
        chosen = set(draw.sample(best, min(len(best), draw.randint(3, 6))))
        return " ".join(dict.fromkeys(word for word in words if word in chosen))

    def _words(self, text: str) -> list[str]:
        plain = re.sub(r"(?<!\S)\S*(?:://|www\.|@)\S*", " ", text)
        words = (term for word in WORD.findall(plain) for term in (self._terms(word) if RUN.match(word) else [word]))
        long_enough = (word.lower() for word in words if (2 if SHORT.match(word) else 3) <= len(word) <= LONGEST_WORD)
        return [word for word in long_enough if word not in self._stop_words]

    def _terms(self, run: str) -> list[str]:
        """Cut a run of characters where neighbours are seldom together in the corpus."""
        term, terms = run[0], []
        for pair in map("".join, pairwise(run)):
            together = self._pairs[pair]
            if together > 1 and together >= LINK * min(self._characters[character] for character in pair):
                term += pair[1]
            else:
                terms.append(term)
                term = pair[1]
        return [*terms, term]


def questions_without_llm(passages: Sequence[Passage], per_passage: int = 2, seed: int = 0) -> list[tuple[Query, str]]:
    """(query, passage id) pairs for passages: sentences, headings and key phrases.

    Args:
        passages: what to ask about.
        per_passage: sentences taken from each passage, and as many sets of key phrases; headings come on top.
        seed: of the draw; each passage has its own, so that the order of passages does not matter.
    """
    phrases = KeyPhrases(passage.text for passage in passages)
    found: list[tuple[Query, str]] = []
    for passage in passages:
        draw = random.Random(f"{seed} {passage.id}")
        styles = [(SENTENCE, text) for text in sentence_queries(passage, per_passage, draw)]
        styles += [(HEADING, text) for text in heading_queries(passage)]
        keywords = (phrases.query(passage.text, draw) for _ in range(per_passage))
        styles += [(KEY_PHRASES, text) for text in dict.fromkeys(keywords) if text]
        counts: Counter[str] = Counter()
        for style, text in styles:
            counts[style] += 1
            found.append((Query(f"{passage.id}:{style}{counts[style]}", text, style), passage.id))
    return found
