"""Plot ranks before and after, as streams of questions between ranges of ranks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rag_ft.report.svg import COLOURS, Plot, figure_svg, new_axes, plot_style
from rag_ft.retrieval.top_k import MAX_RANK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rag_ft.evaluation.rank_changes import RankChange

RANGES = {"1": 1, "2–5": 5, "6–10": 10, f"11–{MAX_RANK}": MAX_RANK, "not found": math.inf}
"""Name of each range of ranks -> its last rank."""

GAP = 0.04
"""Vertical gap between two ranges, where all questions together have height 1."""


@plot_style()
def rank_plot(changes: Sequence[RankChange], role: str, of_several: bool = False) -> Plot:
    """Plot the ranks under the baseline and under a candidate, as streams of questions between ranges of ranks."""
    names = list(RANGES)
    flow = Counter((_range_of(change.before), _range_of(change.after)) for change in changes)
    figure, axes = new_axes(3.4)
    axes.axis("off")
    _draw_streams(axes, flow, *(_draw_ranges(axes, flow, side) for side in (0, 1)))
    axes.annotate("rank before", (0, -0.05), ha="center", color=COLOURS["soft"])
    axes.annotate("rank after", (1, -0.05), ha="center", color=COLOURS["soft"])
    axes.set_xlim(-0.28, 1.28)
    axes.set_ylim(1 + GAP * len(names), -0.12)
    kinds = Counter(change.kind for change in changes)
    return Plot(
        name=f"ranks-{role}",
        svg=figure_svg(figure, f"ranks-{role}"),
        title="Rank of the relevant passage, before and after" + (f": {role}" if of_several else ""),
        description=f"Of {len(changes):,} questions the relevant passage ranks higher for {kinds['win']:,} and lower "
        f"for {kinds['loss']:,}.",
        columns=("before \\ after", *names),
        rows=[
            (name, *(f"{flow[before, after]:,}" for after in range(len(names)))) for before, name in enumerate(names)
        ],
        caption="Each stream is a group of questions: green rises into a better range of ranks, red falls, grey stays.",
    )


def _range_of(rank: int | None) -> int:
    """Return the number of the range that a rank is in."""
    return next(number for number, last in enumerate(RANGES.values()) if (math.inf if rank is None else rank) <= last)


def _draw_ranges(axes: Axes, flow: Counter[tuple[int, int]], side: int) -> list[float]:
    """Draw the ranges before (side 0) or after (side 1), and return the top of each."""
    from matplotlib.patches import Rectangle

    total, top, tops = max(1, flow.total()), 0.0, []
    for number, name in enumerate(RANGES):
        count = sum(questions for pair, questions in flow.items() if pair[side] == number)
        size = count / total
        axes.add_patch(Rectangle((side - 0.012, top), 0.024, max(size, 0.002), color=COLOURS["soft"], linewidth=0))
        axes.annotate(f"{name}: {count:,}", (side + (0.03 if side else -0.03), top + size / 2),
                      ha="left" if side else "right", va="center", color=COLOURS["ink"])  # fmt: skip
        tops.append(top)
        top += size + GAP
    return tops


def _draw_streams(axes: Axes, flow: Counter[tuple[int, int]], lefts: list[float], rights: list[float]) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    x1, x2 = 0.012, 0.988
    for (before, after), count in sorted(flow.items()):
        size, left, right = count / flow.total(), lefts[before], rights[after]
        corners = [(x1, left), (0.5, left), (0.5, right), (x2, right), (x2, right + size), (0.5, right + size),
                   (0.5, left + size), (x1, left + size), (x1, left)]  # fmt: skip
        colour = COLOURS["soft" if before == after else "ship" if after < before else "keep"]
        axes.add_patch(PathPatch(Path(corners, codes), facecolor=colour, alpha=0.22 if before == after else 0.5,
                                 linewidth=0))  # fmt: skip
        lefts[before] += size
        rights[after] += size
