"""Load templates, with filters that format numbers and texts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rag_ft.evaluation.significance import Difference
from rag_ft.retrieval.top_k import MAX_RANK

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_EXCERPT_CHARACTERS = 300


def template_environment(subpackage: str, autoescape: bool) -> Environment:
    """Create the environment of a subpackage's templates; an undefined name in a template is an error.

    Args:
        subpackage: its name, for example `report`.
        autoescape: whether values are escaped for HTML.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("rag_ft", f"{subpackage}/templates"),
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    filters: dict[str, Callable[..., str]] = {
        "score": lambda value: f"{value:.3f}",
        "signed": lambda value: f"{value:+z.3f}".replace("-", "−"),
        "percent": lambda value: f"{100 * value:.1f}\N{NO-BREAK SPACE}%",
        "interval": _interval,
        "rank": lambda rank: f"not in top {MAX_RANK}" if rank is None else str(rank),
        "p_value": lambda value: "< 0.001" if value < 0.001 else f"{value:.3f}",
        "excerpt": excerpt,
        "plain": _plain_markdown,
    }
    environment.filters.update(filters)
    return environment


def template_source(environment: Environment, name: str) -> str:
    """Return the source of a template."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0].strip()


def script_json(value: Any) -> str:
    """Return JSON that cannot end a script element, whatever texts it contains."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def excerpt(text: str) -> str:
    """Return the first characters of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_EXCERPT_CHARACTERS else line[:MAX_EXCERPT_CHARACTERS].rstrip() + "…"


def _interval(difference: Difference) -> str:
    """Return the bounds of an interval, or "not known" if there were too few groups for one."""
    low, high = difference.ci95
    if difference.is_unknown:
        return "not known"
    return f"{low:+z.3f} to {high:+z.3f}".replace("-", "−")


_MARKDOWN = re.compile(r"[\\`*_\[\]~$|]|(?<!\w)@(?=\w)|#(?=\d)")
"""Characters that would be markup, end a table cell, mention a user, or link to another pull request."""


def _plain_markdown(text: object) -> str:
    """Escape a text, so that a line of Markdown shows it unchanged."""
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(lambda match: f"&#{ord(match[0])};" if match[0] in "@#" else f"\\{match[0]}", line)
