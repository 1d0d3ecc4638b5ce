"""The classes of the commands: their help is short, and options have old spellings that still work."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup

OLD_SPELLINGS = {
    "--unseen-documents": "--new-documents",
    "--query-table": "--questions",
    "--regressions": "--losses",
    "--rate-limit": "--requests-per-minute",
}
"""Option -> its old spelling, which still works and which the help does not show."""


class PlainFlags:
    """Shows flags without a type and without their negation, so that the help of the long ones fits into 80 columns."""

    params: list[Any]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show the help of a copy whose flags are plain."""
        shown = copy.copy(self)
        shown.params = [_plain_flag(option) for option in self.params]
        super(PlainFlags, shown).format_help(ctx, formatter)  # type: ignore[misc]

    def get_help_option(self, ctx: Any) -> Any:
        """Return `--help` as a plain flag."""
        option = super().get_help_option(ctx)  # type: ignore[misc]
        return option and _plain_flag(option)


class Group(PlainFlags, TyperGroup):
    """The command `rag-ft` with all others below it."""


class Command(PlainFlags, TyperCommand):
    """A command that takes the old spellings of its options too."""

    def __init__(self, *args: Any, params: Sequence[Any] | None = None, **kwargs: Any) -> None:
        params = list(params or ())
        super().__init__(*args, params=[*params, *_old_spellings(params)], **kwargs)


def _plain_flag(option: Any) -> Any:
    if not getattr(option, "is_flag", False):
        return option
    plain = copy.copy(option)
    plain.metavar, plain.secondary_opts = "", []
    return plain


def _old_spellings(params: Sequence[Any]) -> list[Any]:
    """Return hidden copies of options under their old spellings, with the same destination."""
    copies = []
    for option in params:
        for old in [OLD_SPELLINGS[name] for name in option.opts if name in OLD_SPELLINGS]:
            hidden = copy.copy(option)
            hidden.opts, hidden.hidden = [old], True
            copies.append(hidden)
    return copies
