"""Options shared by the retriever and the query engine of an A/B test."""

from __future__ import annotations

from dataclasses import dataclass

from rag_ft.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ABOptions:
    """How an A/B test assigns sessions to its variants, and how long it waits for a variant.

    Attributes:
        fraction_b: fraction of the sessions that are assigned to variant b, from 0 to 1.
        salt: any text; a different salt reassigns all sessions.
        timeout: seconds after which a variant that has not answered counts as failed.
        patience: if both variants are asked, seconds to wait for the second after the first has answered.

    Raises:
        InputError: if the fraction is not between 0 and 1, or a time is not positive.

    Example:
        >>> from rag_ft.ab import ABOptions
        >>> ABOptions(fraction_b=0.1)
        ABOptions(fraction_b=0.1, salt='', timeout=30.0, patience=10.0)
    """

    fraction_b: float = 0.5
    salt: str = ""
    timeout: float = 30.0
    patience: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.fraction_b <= 1:
            raise InputError(f"fraction_b is {self.fraction_b:g}: use a fraction of the sessions, from 0 to 1")
        for name in ("timeout", "patience"):
            if not (seconds := getattr(self, name)) > 0:
                raise InputError(f"{name} is {seconds:g}: use a positive number of seconds")
