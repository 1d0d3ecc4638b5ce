"""Names of candidates and of parts of dev: `rag_ft.json` keeps the words of version 0.1.0."""

from __future__ import annotations

STORED_WORDS = {"alpha ": "share ", "unseen documents": "new documents", "seen documents": "known documents"}
"""Words of names in memory -> words in `rag_ft.json`, which keeps the keys of version 0.1.0."""


def stored_name(name: str) -> str:
    """Return the name of a candidate or a part of dev as stored in `rag_ft.json`.

    Example:
        >>> from rag_ft.embedding.stored_names import displayed_name, stored_name
        >>> stored_name("round 1 alpha 0.5"), displayed_name("on new documents")
        ('round 1 share 0.5', 'on unseen documents')
    """
    for word, stored in STORED_WORDS.items():
        name = name.replace(word, stored)
    return name


def displayed_name(name: str) -> str:
    """Return a stored name as users see it."""
    for word, stored in STORED_WORDS.items():
        name = name.replace(stored, word)
    return name
