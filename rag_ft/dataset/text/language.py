"""Language identification, and the sentences and words of a text by the rules of its language."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nltk.tokenize.punkt import PunktSentenceTokenizer

MAX_CHARACTERS = 1000
"""Number of characters from the start of a text that its language is identified by."""

MIN_PROBABILITY = 0.5
"""Minimum probability of an identified language."""

SURE, RULED_OUT = 0.9, 0.02
"""A question is in another language if that is at least as probable as the first number, and the language of its
passage at most as probable as the second."""

MIN_WORDS = 4
"""Minimum number of words of a question for an identification that can be trusted."""

NAMES = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "eo": "esperanto", "es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian", "fi": "finnish",
    "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian", "hy": "armenian", "id": "indonesian",
    "it": "italian", "lt": "lithuanian", "ml": "malayalam", "ne": "nepali", "nl": "dutch", "nn": "norwegian",
    "no": "norwegian", "pl": "polish", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sl": "slovene",
    "sr": "serbian", "sv": "swedish", "ta": "tamil", "tr": "turkish",
}  # fmt: skip
"""ISO 639-1 code -> the name that Snowball and NLTK use for stemmers, stop words and sentence models."""

# These cannot be told apart in one sentence, and people who ask in one read the other.
FAMILIES = {code: family for family in ("bs hr sr", "da nn no", "id ms") for code in family.split()}

HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
HIRAGANA = "\u3041-\u3096\u309d-\u309f"
KATAKANA = "\u30a1-\u30fa\u30fc-\u30ff\uff66-\uff9f"
SOUTH_EAST_ASIAN = "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ecd\u1000-\u103f\u1050-\u109f\u1780-\u17d3"
UNSPACED = HAN + HIRAGANA + KATAKANA + SOUTH_EAST_ASIAN
"""Characters of the scripts without spaces between words: Han, Kana, Thai, Lao, Burmese, Khmer."""

HANGUL = "\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3"
MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff"
"""Combining marks that are part of a word, although `\\w` does not match them."""

WORD = rf"[\w{MARKS}{SOUTH_EAST_ASIAN}]+"
"""A word between spaces and punctuation, as a regular expression."""

_UNSPACED = re.compile(f"[{UNSPACED}]+")
_IN_PAIRS = re.compile(f"[{UNSPACED}{HANGUL}]+")
_WORD = re.compile(WORD)
_PIECE = re.compile(f"[{UNSPACED}]+|[^{UNSPACED}]+")
_ADDRESS = re.compile(r"(?<!\S)\S*(?:://|www\.|@)\S*")


# Language


def language_of(text: str) -> str:
    """Return the ISO 639-1 code of a text's language, from its first 1000 characters; "" if it is unclear.

    It can be called from several threads.

    Example:
        >>> from rag_ft.dataset.text.language import language_of
        >>> [language_of(text) for text in ("Wer darf das Formular unterschreiben?", "谁可以签署这张表格？", "T-9")]
        ['de', 'zh', '']
    """
    likely = _languages(text[:MAX_CHARACTERS])
    best = max(likely, key=likely.__getitem__, default="")
    return best if _probability(likely, best) >= MIN_PROBABILITY else ""


def corpus_language(texts: Sequence[str], sample: int = 200) -> str:
    """Return the most frequent language in an even sample of texts; "" if the language of each is unclear.

    Args:
        texts: any number of texts.
        sample: maximum number of texts to look at.

    Example:
        >>> from rag_ft.dataset.text.language import corpus_language
        >>> corpus_language(["Der Urlaub wird im Portal beantragt.", "Leave is booked by noon.", "Wer ist zuständig?"])
        'de'
    """
    found = Counter(filter(None, map(language_of, texts[:: max(1, -(-len(texts) // sample))])))
    return found.most_common(1)[0][0] if found else ""


def is_other_language(question: str, passage: str) -> bool:
    """Return whether a question is certainly in another language than its passage.

    In doubt it is not: names, codes and terms of the passage belong to no language, and a few words say nothing.

    Example:
        >>> from rag_ft.dataset.text.language import is_other_language
        >>> passage = "Wer mit der Bahn reist, bucht die Fahrkarte über das Portal und reicht Formular T-9 ein."
        >>> [is_other_language(text, passage) for text in ("Who has to book a ticket for the train?", "Formular T-9?")]
        [True, False]
    """
    lowered = passage.lower()
    words = set(_pieces(lowered))
    question = _ADDRESS.sub(" ", question)
    new = [piece for piece in _pieces(question.lower()) if piece not in (lowered if _UNSPACED.match(piece) else words)]
    asked, asked_new, given = _scripts(_pieces(question)), _scripts(new), _scripts(_pieces(passage))
    if not asked or not given:
        return False
    script, passage_script = (max(counts, key=counts.__getitem__) for counts in (asked, given))
    if script != passage_script:
        rare_in_passage = given[script] <= given.total() / 4
        return rare_in_passage and asked[script] * 2 > asked.total() and asked_new[script] * 2 >= asked[script]
    if asked_new[script] < MIN_WORDS:
        return False
    likely, expected = _languages(" ".join(new)), _languages(passage[:MAX_CHARACTERS])
    best, own = (max(found, key=found.__getitem__, default="") for found in (likely, expected))
    return (
        _probability(likely, best) >= SURE
        and _probability(expected, own) >= SURE
        and _probability(likely, own) <= RULED_OUT
    )


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    # An own instance: py3langid's functions share one, and an app that restricts its languages would restrict ours.
    # A call does not change it, so threads can share it. At worst, two threads load it twice.
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages([label for label in identifier.labels if len(label) == 2])
    return identifier


@lru_cache(maxsize=1024)
def _languages(text: str) -> dict[str, float]:
    """Return language -> probability; empty if there is no letter."""
    text = _ADDRESS.sub(" ", text)
    return dict(_identifier().rank(text)) if any(map(str.isalpha, text)) else {}


def _probability(likely: dict[str, float], language: str) -> float:
    """Return the probability of a language and of those that cannot be told apart from it."""
    return sum(likely.get(code, 0.0) for code in FAMILIES.get(language, language).split())


def _pieces(text: str) -> list[str]:
    """Return the words, and the runs of scripts without spaces."""
    words = _WORD.findall(text)
    return [piece for word in words for piece in _PIECE.findall(word)] if _UNSPACED.search(text) else words


def _scripts(pieces: Sequence[str]) -> Counter[str]:
    """Return script -> number of words in it."""
    counts: Counter[str] = Counter()
    for piece in pieces:
        if script := _script(piece[0]):
            counts[script] += (len(piece) + 1) // 2 if _UNSPACED.match(piece) else 1
    return counts


@cache
def _script(letter: str) -> str:
    name = re.split("[ -]", unicodedata.name(letter, ""))[0] if letter.isalpha() else ""
    return "CJK" if name in ("HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "HALFWIDTH") else name


# Sentences

PUNKT_MODELS = "_static/nltk_cache/tokenizers/punkt_tab"
"""Folder of the Punkt models in `llama_index.core`."""

CLOSING = "\"'”’»」』）》〉】〕)\\]"
_END = re.compile(f"[。！？｡؟۔।॥։።។៕။][。！？｡!?]*[{CLOSING}]*\\s*")
_GREEK_END = re.compile(r"[;\u037e]\s+")
# In Japanese, a sentence continues after a quotation with と or って.
_CHINESE_END = re.compile(
    f"(?:[。！？；｡…]|[!?](?!\\S))[。！？；｡…!?]*[{CLOSING}]*+(?!(?<=[{CLOSING}])(?:と|って))\\s*"
)
_THAI_END = re.compile(f"[។៕။!?…]+[{CLOSING}]*\\s+|(?<=[{SOUTH_EAST_ASIAN}])[^\\S\\n]+(?=[{SOUTH_EAST_ASIAN}])")
_UNSPACED_END = {"zh": _CHINESE_END, "ja": _CHINESE_END} | dict.fromkeys(("th", "lo", "km", "my"), _THAI_END)
# z. B., i. d. R., p. ej., z. B. § 2; Art. 5, pág. 5, ust. 2
_ABBREVIATION = re.compile(r"\b[^\W\d_]\.\s+(?=§|[^\W\d_]{1,2}\.)|\b[^\W\d_]{1,4}\.[^\S\n]+(?=\d+(?![\d.]))")


def sentences_of(text: str, language: str | None = None) -> list[str]:
    """Cut a text into sentences by the rules of its language. Joined, they are the text again.

    Punkt knows the abbreviations of 18 languages from the models in LlamaIndex. English and the languages without a
    model are cut by an untrained Punkt, as LlamaIndex cuts them. Chinese and Japanese have no space after a sentence;
    Thai, Lao, Khmer and Burmese have spaces only between sentences.

    Args:
        text: a text of any length.
        language: ISO 639-1 code; identified if None.

    Example:
        >>> from rag_ft.dataset.text.language import sentences_of
        >>> sentences_of("Das gilt z. B. nach Abs. 2 für alle. Es kostet nichts.")
        ['Das gilt z. B. nach Abs. 2 für alle. ', 'Es kostet nichts.']
        >>> sentences_of("他问：“何时休假？”我不知道。")
        ['他问：“何时休假？”', '我不知道。']
    """
    if language is None:
        language = language_of(text)
    if language in _UNSPACED_END:
        starts = {match.end() for match in _UNSPACED_END[language].finditer(text)}
    else:
        starts = {start for start, _ in _punkt(language).span_tokenize(text)}
        starts |= {match.end() for match in _END.finditer(text)}
        if language == "el":
            starts |= {match.end() for match in _GREEK_END.finditer(text)}
        if language not in ("", "en"):
            starts -= {match.end() for match in _ABBREVIATION.finditer(text)}
            # No sentence begins with a lower-case letter. Georgian letters have no case.
            starts = {start for start in starts if text[start : start + 1] == text[start : start + 1].title()}
    cuts = sorted(starts | {0, len(text)})
    return [text[start:end] for start, end in pairwise(cuts)]


@cache
def _punkt(language: str) -> PunktSentenceTokenizer:
    import llama_index.core
    from nltk.tabdata import PunktDecoder
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    model = Path(llama_index.core.__file__).parent / PUNKT_MODELS / NAMES.get(language, "none")
    # The English model cuts differently from LlamaIndex, which would change the ids of nodes.
    if language == "en" or not model.is_dir():
        return PunktSentenceTokenizer()

    # NLTK only opens files below its search path, which belongs to the application.
    def lines(name: str) -> StringIO:
        return StringIO((model / name).read_text(encoding="utf-8"))

    decoder, parameters = PunktDecoder(), PunktParameters()
    parameters.abbrev_types = decoder.txt2set(lines("abbrev_types.txt"))
    parameters.collocations = set(decoder.tab2tups(lines("collocations.tab")))
    parameters.sent_starters = decoder.txt2set(lines("sent_starters.txt"))
    parameters.ortho_context = decoder.tab2intdict(lines("ortho_context.tab"))
    return PunktSentenceTokenizer(parameters)


# Words


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case. Scripts without spaces give overlapping pairs of characters.

    The pairs, as in Lucene's CJKAnalyzer, are used for Han, Kana, Hangul, Thai, Lao, Khmer and Burmese. A single
    character is a word.

    Example:
        >>> from rag_ft.dataset.text.language import words_of
        >>> words_of("Formular T-9"), words_of("年假申请用HELM")
        (['formular', 't', '9'], ['年假', '假申', '申请', '请用', 'helm'])
    """
    return _WORD.findall(segmented(text).lower())


def segmented(text: str) -> str:
    """Return a text with the character pairs of `words_of` between spaces, for tokenizers that split at spaces.

    Example:
        >>> from rag_ft.dataset.text.language import segmented
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
        >>> from rag_ft.dataset.text.language import word_count
        >>> word_count("Who signs a T-9?"), word_count("谁可以签署T-9表格？")
        (4, 5)
    """
    characters = sum(map(len, _UNSPACED.findall(text)))
    if not characters:
        return len(text.split())
    spaced = [piece for piece in _UNSPACED.sub(" ", text).split() if any(map(str.isalnum, piece))]
    return len(spaced) + (characters + 1) // 2


def stop_words_of(language: str) -> list[str]:
    """Return the stop words of a language in lower case; none for Chinese, Korean and languages that bm25s lacks.

    Args:
        language: ISO 639-1 code.

    Example:
        >>> from rag_ft.dataset.text.language import stop_words_of
        >>> "nicht" in stop_words_of("de"), stop_words_of("zh")
        (True, [])
    """
    from bm25s import stopwords

    if language == "en":
        return list(stopwords.STOPWORDS_EN)
    # NAMES has neither Chinese nor Korean: a stop word of two characters may be the halves of two other words.
    return list(getattr(stopwords, f"STOPWORDS_{NAMES.get(language, '').upper()}", ()))
