"""Text that tokenizers, files and databases accept."""

from __future__ import annotations

import unicodedata


def clean_text(text: str) -> str:
    """Replace what is no character: halves of surrogate pairs, which a parser may leave, and null characters.

    Example:
        >>> from rag_ft.clean_text import clean_text
        >>> clean_text("The \\ud835 valve\\x00"), clean_text("\\ud835\\udc00") == "\\U0001d400"
        ('The \\ufffd valve', True)
    """
    if "\0" in text:
        text = text.replace("\0", "")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def has_text(text: str) -> bool:
    """Return whether a text has a visible character: white space, control and zero-width characters are none.

    Example:
        >>> from rag_ft.clean_text import has_text
        >>> has_text("年"), has_text(" \\n"), has_text("\\u200b\\ufeff")
        (True, False, False)
    """
    return any(unicodedata.category(character)[0] not in "ZC" for character in text)
