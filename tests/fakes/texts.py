"""Invented words, and texts that nearly repeat each other."""

from __future__ import annotations

import random

from hypothesis import strategies as st

WORDS = [first + second for first in "bdfgklmnprstvz" for second in ("ala", "ero", "inu", "ost", "ump", "yke", "ard")]

LETTERS = "aZé ß.!?…;,\n\t\"'「」“”()123年假。！？；のカー한글ไทยทีកាမြन्दी।؟ـعрусελ\u0301\ud83d\U00020000"
ANY_TEXT = st.text(max_size=60) | st.text(st.sampled_from(LETTERS), max_size=60)
"""Any text, often in a mixture of scripts."""


def nearly(text: str, draw: random.Random) -> str:
    """Return the text itself, or in upper case, with another full stop, or with another last word."""
    return draw.choice([text, text.upper(), text.replace(".", " !"), text[:-5] + draw.choice(WORDS)])
