"""How a plot is drawn: by matplotlib, as SVG that stands in a page and takes its colours and letters from there."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from rag_ft.evaluation.comparison import BASELINE, Comparison
from rag_ft.report.console import roles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 6.2
"""Inches; the page scales it."""

COLOURS = ("baseline", "candidate", "bm25", "second", "third", "fourth", "fifth", "sixth")
OWN = {BASELINE: "baseline", "candidate": "candidate", "bm25": "bm25"}
SHAPES = ("o", "s", "D", "^", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ((0, (5, 3)), "-", (0, (1, 2)), (0, (7, 2, 2, 2)), (0, (3, 1, 1, 1)), (0, (9, 3)), "-.", ":")

VARIABLES = {
    name: f"#0000{place:02x}"
    for place, name in enumerate((*COLOURS, "ink", "soft", "grid", "ground", "ship", "keep"), start=0xA0)
}
"""Name of a colour in the page -> the colour that stands for it while matplotlib draws."""


STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "rag_ft",
    "font.size": 10,
    "font.family": "sans-serif",
    "text.parse_math": False,
    "text.color": VARIABLES["ink"],
    "grid.color": VARIABLES["grid"],
    "legend.frameon": False,
    "legend.labelcolor": VARIABLES["ink"],
    "axes.unicode_minus": True,
    "path.simplify": False,
}

P = ParamSpec("P")


@dataclass(frozen=True)
class Plot:
    """A plot, and the same as numbers.

    Attributes:
        name: unique on the page.
        title: what it shows, in a few words.
        description: what a reader who does not see it should know.
        svg: the picture's elements, to be put into the page as they are: nothing in them comes from documents
            unescaped.
        box: its `viewBox`.
        columns: of the table.
        rows: of the table, each as long as the columns; the first cell names the row.
        caption: how it is read.
    """

    name: str
    title: str
    description: str
    svg: str
    box: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    caption: str = ""


def styled(draw: Callable[P, Plot]) -> Callable[P, Plot]:
    """Matplotlib reads its style while a picture is made."""

    @wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> Plot:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return inner


def new_axes(height: float, wide: bool = False) -> tuple[Figure, Axes]:
    """An empty picture whose lines and letters have the page's colours."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH * (1.25 if wide else 1), height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=VARIABLES["soft"])
    axes.xaxis.label.set_color(VARIABLES["soft"])
    axes.set_axisbelow(True)
    return figure, axes


def drawn(
    figure: Figure, name: str, title: str, description: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]],
    caption: str = "",
) -> Plot:  # fmt: skip
    """The picture as elements for the page: no address, no id of another picture, the page's colours and letters."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    FigureCanvasSVG(figure)
    text = io.StringIO()
    with warnings.catch_warnings():
        # Letters that matplotlib's own font lacks are drawn by the browser.
        warnings.simplefilter("ignore")
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    box = re.search(r'viewBox="([\d. ]+)"', svg)
    inner = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    inner = re.sub(r"<metadata>.*?</metadata>", "", inner, flags=re.DOTALL)
    inner = re.sub(r"<!--.*?-->|<style.*?</style>|<defs>\s*</defs>", "", inner, flags=re.DOTALL)
    inner = re.sub(r'\bid="', f'id="{name}-', inner)
    inner = inner.replace('xlink:href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    inner = re.sub(r" ?font-family: [^;\"]*;?", "", inner)
    for variable, colour in VARIABLES.items():
        inner = inner.replace(colour, f"var(--{variable})")
    return Plot(name, title, description, inner.strip(), box[1] if box else "", columns, rows, caption)


def _place(comparison: Comparison, role: str) -> int:
    if role in OWN:
        return COLOURS.index(OWN[role])
    others = [each for each in roles(comparison) if each not in OWN]
    return 3 + others.index(role) % (len(COLOURS) - 3)


def colour_of(comparison: Comparison, role: str) -> str:
    return VARIABLES[COLOURS[_place(comparison, role)]]


def shape_of(comparison: Comparison, role: str) -> str:
    return SHAPES[_place(comparison, role)]


def short(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
