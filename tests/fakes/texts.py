"""Invented words, and texts that nearly repeat each other."""

from __future__ import annotations

import random

WORDS = [first + second for first in "bdfgklmnprstvz" for second in ("ala", "ero", "inu", "ost", "ump", "yke", "ard")]


def nearly(text: str, draw: random.Random) -> str:
    """Return the text itself, or in upper case, with another full stop, or with another last word."""
    return draw.choice([text, text.upper(), text.replace(".", " !"), text[:-5] + draw.choice(WORDS)])
