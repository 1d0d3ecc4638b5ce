"""Draw plots with matplotlib as SVG that is embedded in a page and uses the page's colours and fonts."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from rag_ft.evaluation.comparison import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 6.2
"""Width of a figure in inches; the page scales it."""

ROLE_COLOURS = ("baseline", "candidate", "bm25", "second", "third", "fourth", "fifth", "sixth")
"""Colours of roles. The first three belong to the roles of the same name, the others to all other roles in turn."""

FIXED_ROLES = ROLE_COLOURS[:3]
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ((0, (5, 3)), "-", (0, (1, 2)), (0, (7, 2, 2, 2)), (0, (3, 1, 1, 1)), (0, (9, 3)), "-.", ":")

COLOURS = {
    name: f"#0000{number:02x}"
    for number, name in enumerate((*ROLE_COLOURS, "ink", "soft", "grid", "ground", "ship", "keep"), start=0xA0)
}
"""Name of a CSS variable of the page -> the colour that matplotlib draws in its place."""

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "rag_ft",
    "font.size": 10,
    "font.family": "sans-serif",
    "text.parse_math": False,
    "text.color": COLOURS["ink"],
    "grid.color": COLOURS["grid"],
    "legend.frameon": False,
    "legend.labelcolor": COLOURS["ink"],
    "axes.unicode_minus": True,
    "path.simplify": False,
}


class Svg(NamedTuple):
    """An SVG: its elements, in which text from documents is escaped, and its `viewBox`."""

    elements: str
    view_box: str


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot, with its numbers as a table.

    Attributes:
        name: unique on the page.
        title: what the plot shows, in a few words.
        description: the main values, for readers who do not see the plot.
        svg: the plot itself.
        columns: columns of the table.
        rows: rows of the table; the first cell names the row.
        caption: how to read the plot.
    """

    name: str
    title: str
    description: str
    svg: Svg
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    caption: str = ""


@contextmanager
def plot_style() -> Iterator[None]:
    """Set matplotlib's style within a block, or while a decorated function draws."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


def new_axes(height: float, wide: bool = False) -> tuple[Figure, Axes]:
    """Create an empty figure with the page's colours."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH * (1.25 if wide else 1), height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=COLOURS["soft"])
    axes.xaxis.label.set_color(COLOURS["soft"])
    axes.set_axisbelow(True)
    return figure, axes


def figure_svg(figure: Figure, name: str) -> Svg:
    """Turn a figure into SVG for the page, without external URLs, with the page's colours and fonts.

    Args:
        figure: the figure.
        name: prefix of each id, so that ids are unique on the page.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    FigureCanvasSVG(figure)
    text = io.StringIO()
    with warnings.catch_warnings():
        # Matplotlib warns of glyphs that its own font lacks, but the browser draws them.
        warnings.simplefilter("ignore")
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    source = text.getvalue()
    view_box = re.search(r'viewBox="([\d. ]+)"', source)
    svg = source[source.index(">", source.index("<svg")) + 1 : source.rindex("</svg>")]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->|<style.*?</style>|<defs>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace('xlink:href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    svg = re.sub(r" ?font-family: [^;\"]*;?", "", svg)
    for variable, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return Svg(svg.strip(), view_box[1] if view_box else "")


def colour_of(comparison: Comparison, role: str) -> str:
    """Return the colour of a role, the same in all plots."""
    return COLOURS[ROLE_COLOURS[_style_number(comparison, role)]]


def marker_of(comparison: Comparison, role: str) -> str:
    """Return matplotlib's marker of a role, the same in all plots."""
    return MARKERS[_style_number(comparison, role)]


def _style_number(comparison: Comparison, role: str) -> int:
    if role in FIXED_ROLES:
        return FIXED_ROLES.index(role)
    others = [other for other in comparison.roles if other not in FIXED_ROLES]
    return len(FIXED_ROLES) + others.index(role) % (len(ROLE_COLOURS) - len(FIXED_ROLES))
