"""The two variants of an A/B test, and what a person can prefer."""

from __future__ import annotations

from typing import Literal, get_args

Variant = Literal["a", "b"]
VARIANTS: tuple[Variant, Variant] = get_args(Variant)

Preference = Literal["a", "b", "tie", "neither"]
PREFERENCES: tuple[Preference, ...] = get_args(Preference)


def other(variant: Variant) -> Variant:
    """Return the variant that a variant is compared with."""
    return "b" if variant == "a" else "a"
