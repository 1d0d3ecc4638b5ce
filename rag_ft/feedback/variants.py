"""The two variants of an A/B test, and the possible preferences between them."""

from __future__ import annotations

from typing import Literal, get_args

Variant = Literal["a", "b"]
VARIANTS: tuple[Variant, Variant] = get_args(Variant)

Preference = Literal["a", "b", "tie", "neither"]
PREFERENCES: tuple[Preference, ...] = get_args(Preference)


def other(variant: Variant) -> Variant:
    """Return the other variant."""
    return "b" if variant == "a" else "a"
