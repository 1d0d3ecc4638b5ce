"""Split a text into sentences by the rules of its language."""

from __future__ import annotations

import re
from functools import cache
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from rag_ft.dataset.text.language import LANGUAGE_NAMES, language_of
from rag_ft.dataset.text.scripts import SOUTH_EAST_ASIAN

if TYPE_CHECKING:
    from nltk.tokenize.punkt import PunktSentenceTokenizer

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
    """Split a text into sentences by the rules of its language. Joined, they are the original text.

    Punkt knows the abbreviations of 18 languages from the models in LlamaIndex. English and languages without a model
    are split by an untrained Punkt, as in LlamaIndex. Chinese and Japanese have no space after a sentence;
    Thai, Lao, Khmer and Burmese have spaces only between sentences.

    Args:
        text: a text of any length.
        language: ISO 639-1 code; identified if None.

    Example:
        >>> from rag_ft.dataset.text.sentences import sentences_of
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

    model = Path(llama_index.core.__file__).parent / PUNKT_MODELS / LANGUAGE_NAMES.get(language, "none")
    # The English model splits differently from LlamaIndex, which would change the ids of nodes.
    if language == "en" or not model.is_dir():
        return PunktSentenceTokenizer()

    # NLTK only opens files below its search path, which the application controls.
    def lines(name: str) -> StringIO:
        return StringIO((model / name).read_text(encoding="utf-8"))

    decoder, parameters = PunktDecoder(), PunktParameters()
    parameters.abbrev_types = decoder.txt2set(lines("abbrev_types.txt"))
    parameters.collocations = set(decoder.tab2tups(lines("collocations.tab")))
    parameters.sent_starters = decoder.txt2set(lines("sent_starters.txt"))
    parameters.ortho_context = decoder.tab2intdict(lines("ortho_context.tab"))
    return PunktSentenceTokenizer(parameters)
