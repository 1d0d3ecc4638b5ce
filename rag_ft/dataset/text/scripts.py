"""Character classes for regular expressions: scripts without spaces between words, and words."""

from __future__ import annotations

import re

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
"""Regular expression for a word between spaces and punctuation."""

UNSPACED_RUN = re.compile(f"[{UNSPACED}]+")
