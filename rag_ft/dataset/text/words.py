"""Split a text into words, also in scripts without spaces between them, and look up stop words."""

from __future__ import annotations

import re
from itertools import pairwise

from rag_ft.dataset.text.language import LANGUAGE_NAMES
from rag_ft.dataset.text.scripts import HANGUL, UNSPACED, UNSPACED_RUN, WORD

_IN_PAIRS = re.compile(f"[{UNSPACED}{HANGUL}]+")
_WORD = re.compile(WORD)


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case. In scripts without spaces, they are overlapping pairs of characters.

    The pairs, as in Lucene's CJKAnalyzer, are used for Han, Kana, Hangul, Thai, Lao, Khmer and Burmese. A single
    character is also a word.

    Example:
        >>> from rag_ft.dataset.text.words import words_of
        >>> words_of("Formular T-9"), words_of("年假申请用HELM")
        (['formular', 't', '9'], ['年假', '假申', '申请', '请用', 'helm'])
    """
    return _WORD.findall(segmented(text).lower())


def segmented(text: str) -> str:
    """Return a text with the character pairs of `words_of` between spaces, for tokenizers that split on spaces.

    Example:
        >>> from rag_ft.dataset.text.words import segmented
        >>> segmented("用HELM申请年假。"), segmented("Leave: none.")
        (' 用 HELM 申请 请年 年假 。', 'Leave: none.')
    """
    return _IN_PAIRS.sub(_pairs, text)


def _pairs(match: re.Match[str]) -> str:
    run = match[0]
    return f" {' '.join(map(''.join, pairwise(run))) or run} "


def word_count(text: str) -> int:
    """Return the length of a text in words. In scripts without spaces, two characters count as one word.

    Example:
        >>> from rag_ft.dataset.text.words import word_count
        >>> word_count("Who signs a T-9?"), word_count("谁可以签署T-9表格？")
        (4, 5)
    """
    characters = sum(map(len, UNSPACED_RUN.findall(text)))
    if not characters:
        return len(text.split())
    spaced = [piece for piece in UNSPACED_RUN.sub(" ", text).split() if any(map(str.isalnum, piece))]
    return len(spaced) + (characters + 1) // 2


def stop_words_of(language: str) -> list[str]:
    """Return the stop words of a language in lower case; none for Chinese, Korean and languages that bm25s lacks.

    Args:
        language: ISO 639-1 code.

    Example:
        >>> from rag_ft.dataset.text.words import stop_words_of
        >>> "nicht" in stop_words_of("de"), stop_words_of("zh")
        (True, [])
    """
    from bm25s import stopwords

    if language == "en":
        return list(stopwords.STOPWORDS_EN)
    # LANGUAGE_NAMES lacks Chinese and Korean: a stop word of two characters may be the halves of two other words.
    return list(getattr(stopwords, f"STOPWORDS_{LANGUAGE_NAMES.get(language, '').upper()}", ()))
