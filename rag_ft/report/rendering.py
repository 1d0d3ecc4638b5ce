"""Templates, and the forms in which figures and texts are put into them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rag_ft.evaluation.comparison import DEPTH
from rag_ft.evaluation.significance import Difference

if TYPE_CHECKING:
    from jinja2 import Environment

EXCERPT = 300
"""Characters of a text that is shown."""


def environment(autoescape: bool) -> Environment:
    """The templates of this room; a name that is not given is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("rag_ft", "report/templates"),
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
        "rank": lambda rank: f"not in top {DEPTH}" if rank is None else str(rank),
        "p_value": lambda value: "< 0.001" if value < 0.001 else f"{value:.3f}",
        "shortened": shortened,
        "plain": _plain_markdown,
    }
    made.filters.update(filters)
    return made


def source_of(templates: Environment, name: str) -> str:
    """A template as it stands in its file."""
    assert templates.loader is not None
    return templates.loader.get_source(templates, name)[0].strip()


def as_script(value: Any) -> str:
    """JSON that ends no script element, whatever stands in it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _interval(difference: Difference) -> str:
    """The interval in words, or that too few groups were there to have one."""
    low, high = difference.ci95
    if not (math.isfinite(low) and math.isfinite(high)):
        return "not known"
    return f"{low:+z.3f} to {high:+z.3f}".replace("-", "−")


def shortened(text: str) -> str:
    """The first characters of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else line[:EXCERPT].rstrip() + "…"


_MARKUP = re.compile(r"[\\`*_\[\]~$|]|(?<!\w)@(?=\w)|#(?=\d)")
"""What would be markup in a line, end a table's cell, mention somebody, or refer to another pull request."""


def _plain_markdown(text: object) -> str:
    """A text that shows as it is within a line of Markdown."""
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(lambda sign: f"&#{ord(sign[0])};" if sign[0] in "@#" else f"\\{sign[0]}", line)
