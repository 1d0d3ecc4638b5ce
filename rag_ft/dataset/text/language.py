"""Identify the language of a text, of a corpus, and of a question compared with its passage."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

from rag_ft.dataset.text.scripts import UNSPACED, UNSPACED_RUN, WORD

MAX_CHARACTERS = 1000
"""Number of characters at the start of a text from which its language is identified."""

MIN_PROBABILITY = 0.5
"""Minimum probability of an identified language."""

MIN_QUESTION_PROBABILITY, MAX_PASSAGE_PROBABILITY = 0.9, 0.02
"""A question is in another language if the probability of that language is at least the first number, and the
probability of its passage's language at most the second."""

MIN_WORDS = 4
"""Minimum number of words of a question for a reliable identification."""

LANGUAGE_NAMES = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "eo": "esperanto", "es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian", "fi": "finnish",
    "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian", "hy": "armenian", "id": "indonesian",
    "it": "italian", "lt": "lithuanian", "ml": "malayalam", "ne": "nepali", "nl": "dutch", "nn": "norwegian",
    "no": "norwegian", "pl": "polish", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sl": "slovene",
    "sr": "serbian", "sv": "swedish", "ta": "tamil", "tr": "turkish",
}  # fmt: skip
"""ISO 639-1 code -> the name that Snowball and NLTK use for stemmers, stop words and sentence models."""

# These cannot be distinguished in one sentence, and people who ask in one can read the others.
FAMILIES = {code: family for family in ("bs hr sr", "da nn no", "id ms") for code in family.split()}

_WORD = re.compile(WORD)
_PIECE = re.compile(f"[{UNSPACED}]+|[^{UNSPACED}]+")
_ADDRESS = re.compile(r"(?<!\S)\S*(?:://|www\.|@)\S*")


def language_of(text: str) -> str:
    """Return the ISO 639-1 code of a text's language, from its first 1000 characters; "" if it is unclear.

    This function is thread-safe.

    Example:
        >>> from rag_ft.dataset.text.language import language_of
        >>> [language_of(text) for text in ("Wer darf das Formular unterschreiben?", "谁可以签署这张表格？", "T-9")]
        ['de', 'zh', '']
    """
    likely = _languages(text[:MAX_CHARACTERS])
    best = max(likely, key=likely.__getitem__, default="")
    return best if _probability(likely, best) >= MIN_PROBABILITY else ""


def corpus_language(texts: Sequence[str], sample: int = 200) -> str:
    """Return the most frequent language in an even sample of texts; "" if all are unclear.

    Args:
        texts: any number of texts.
        sample: maximum number of texts to identify.

    Example:
        >>> from rag_ft.dataset.text.language import corpus_language
        >>> corpus_language(["Der Urlaub wird im Portal beantragt.", "Leave is booked by noon.", "Wer ist zuständig?"])
        'de'
    """
    counts = Counter(filter(None, map(language_of, texts[:: max(1, -(-len(texts) // sample))])))
    return counts.most_common(1)[0][0] if counts else ""


def is_other_language(question: str, passage: str) -> bool:
    """Return whether a question is certainly in another language than its passage.

    If in doubt, the answer is no: names, codes and terms of the passage are ignored, and a few words are not enough.

    Example:
        >>> from rag_ft.dataset.text.language import is_other_language
        >>> passage = "Wer mit der Bahn reist, bucht die Fahrkarte über das Portal und reicht Formular T-9 ein."
        >>> [is_other_language(text, passage) for text in ("Who has to book a ticket for the train?", "Formular T-9?")]
        [True, False]
    """
    lowered = passage.lower()
    words = set(_pieces(lowered))
    question = _ADDRESS.sub(" ", question)
    new = [
        piece for piece in _pieces(question.lower()) if piece not in (lowered if UNSPACED_RUN.match(piece) else words)
    ]
    of_question, of_new, of_passage = _scripts(_pieces(question)), _scripts(new), _scripts(_pieces(passage))
    if not of_question or not of_passage:
        return False
    script, passage_script = (max(counts, key=counts.__getitem__) for counts in (of_question, of_passage))
    if script != passage_script:
        is_rare_in_passage = of_passage[script] <= of_passage.total() / 4
        is_main_script = of_question[script] * 2 > of_question.total()
        return is_rare_in_passage and is_main_script and of_new[script] * 2 >= of_question[script]
    if of_new[script] < MIN_WORDS:
        return False
    in_question, in_passage = _languages(" ".join(new)), _languages(passage[:MAX_CHARACTERS])
    asked, own = (max(likely, key=likely.__getitem__, default="") for likely in (in_question, in_passage))
    return (
        _probability(in_question, asked) >= MIN_QUESTION_PROBABILITY
        and _probability(in_passage, own) >= MIN_QUESTION_PROBABILITY
        and _probability(in_question, own) <= MAX_PASSAGE_PROBABILITY
    )


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    # py3langid's functions share one instance, whose languages an app may restrict, so a separate one is loaded.
    # Calls do not change it, so threads can share it. At worst, two threads load it twice.
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages([label for label in identifier.labels if len(label) == 2])
    return identifier


@lru_cache(maxsize=1024)
def _languages(text: str) -> dict[str, float]:
    """Return language -> probability; empty if the text has no letters."""
    text = _ADDRESS.sub(" ", text)
    return dict(_identifier().rank(text)) if any(map(str.isalpha, text)) else {}


def _probability(likely: dict[str, float], language: str) -> float:
    """Return the probability of a language and of those that cannot be distinguished from it."""
    return sum(likely.get(code, 0.0) for code in FAMILIES.get(language, language).split())


def _pieces(text: str) -> list[str]:
    """Return the words of a text, and the runs of characters in scripts without spaces."""
    words = _WORD.findall(text)
    return [piece for word in words for piece in _PIECE.findall(word)] if UNSPACED_RUN.search(text) else words


def _scripts(pieces: Sequence[str]) -> Counter[str]:
    """Return script -> number of words in it."""
    counts: Counter[str] = Counter()
    for piece in pieces:
        if script := _script(piece[0]):
            counts[script] += (len(piece) + 1) // 2 if UNSPACED_RUN.match(piece) else 1
    return counts


@cache
def _script(letter: str) -> str:
    name = re.split("[ -]", unicodedata.name(letter, ""))[0] if letter.isalpha() else ""
    return "CJK" if name in ("HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "HALFWIDTH") else name
