"""Questions without any model: sentences, headings and key phrases of the passages themselves.

A sentence taken out of its passage (inverse cloze, Lee et al. 2019) is strong training data and a dangerous
one: it can lift one collection and lower the next, and dev questions made in the same way approve of both.
So the styles are mixed, dev questions are made in another style than training ones, and training allows
generated data a smaller share of the weights (`rag_ft.training.recipe`).
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from rag_ft.dataset.qa_dataset import Passage, Query

SENTENCE = "sentence"
KEYWORDS = "keywords"
HEADING = "heading"

SHORTEST, LONGEST = 6, 50
"""Words of a sentence that can stand for a question."""


def sentences(text: str) -> list[str]:
    """The sentences of a text that can ask for its passage: not too short or long, no heading, no address."""
    from llama_index.core.node_parser.text.utils import split_by_sentence_tokenizer

    split = split_by_sentence_tokenizer()
    # An empty line, a heading and a list item end a sentence, whatever stands at their end.
    blocks = re.split(r"\n\s*\n|^#{1,6}\s.*$|^\s*(?:[-*+]|\d+[.)])\s+|^\|.*$", text, flags=re.MULTILINE)
    found = (" ".join(sentence.split()) for block in blocks if block.strip() for sentence in split(block))
    return [sentence for sentence in found if SHORTEST <= len(sentence.split()) <= LONGEST and "://" not in sentence]


def sentence_queries(passage: Passage, count: int, draw: random.Random) -> list[str]:
    """Some sentences of a passage, copied as they stand; training takes them out of the passage."""
    found = sentences(passage.text)
    return draw.sample(found, min(count, len(found)))


def heading_queries(passage: Passage) -> list[str]:
    """The Markdown headings of a passage that say something by themselves; training takes them out of it too."""
    headings = re.findall(r"^#{1,6}\s+(.+?)\s*#*$", passage.text, re.MULTILINE)
    return [
        heading for heading in dict.fromkeys(headings) if 3 <= len(heading.split()) <= 20 and heading != passage.title
    ]


WORD = re.compile(r"[^\W\d_][\w'-]+")


def _words(text: str) -> list[str]:
    plain = re.sub(r"\S*(?:://|www\.|@)\S*", " ", text)
    return [word.lower() for word in WORD.findall(plain) if 3 <= len(word) <= 24]


class KeyPhrases:
    """The words that tell a passage from the others: by their frequency here against that of the corpus."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.documents = 0
        self.frequency: Counter[str] = Counter()
        for text in texts:
            self.documents += 1
            self.frequency.update(set(_words(text)))

    def query(self, text: str, draw: random.Random) -> str | None:
        """Three to six rare words of a text, in the order of the text; None where it has too few."""
        import math

        words = _words(text)
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
        styles += [(KEYWORDS, text) for text in dict.fromkeys(keywords) if text]
        counts: Counter[str] = Counter()
        for style, text in styles:
            counts[style] += 1
            found.append((Query(f"{passage.id}:{style}{counts[style]}", text, style), passage.id))
    return found
