"""Command classes with a compact help and old spellings of options."""

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
"""Option -> its old spelling, which still works but is not in the help."""


class PlainFlags:
    """Shows flags without a type and without their negation, so that the help fits into 80 columns."""

    params: list[Any]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help of a copy whose flags are plain."""
        plain = copy.copy(self)
        plain.params = [_plain_flag(option) for option in self.params]
        super(PlainFlags, plain).format_help(ctx, formatter)  # type: ignore[misc]

    def get_help_option(self, ctx: Any) -> Any:
        """Return `--help` as a plain flag."""
        option = super().get_help_option(ctx)  # type: ignore[misc]
        return option and _plain_flag(option)


class Group(PlainFlags, TyperGroup):
    """The `rag-ft` command, which contains all others."""


class Command(PlainFlags, TyperCommand):
    """A command that also accepts the old spellings of its options."""

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
