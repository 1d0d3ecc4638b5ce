"""The plots of a report, each with the same as numbers."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rag_ft.evaluation.comparison import BASELINE, DEPTH, Comparison
from rag_ft.evaluation.metrics import HEADLINE, metrics_per_query
from rag_ft.evaluation.significance import Difference
from rag_ft.evaluation.slices import Slice
from rag_ft.report.console import difference_text, roles
from rag_ft.report.drawing import (
    DASHES,
    VARIABLES,
    Plot,
    colour_of,
    drawn,
    new_axes,
    shape_of,
    short,
    styled,
)

if TYPE_CHECKING:
    from rag_ft.dataset.qa_dataset import QADataset
    from rag_ft.evaluation.rank_changes import RankChange

DEEPEST = 20
"""The hit rate curve goes to this k."""

BUCKETS = {"1": 1, "2–5": 5, "6–10": 10, f"11–{DEPTH}": DEPTH, "not found": math.inf}
"""Ranks that are told apart, by their last one."""


@styled
def headline_plot(comparison: Comparison) -> Plot:
    """nDCG@10 of each model, with the interval of each candidate's difference laid at the baseline."""
    shown = roles(comparison)
    base = comparison.models[BASELINE][HEADLINE]
    figure, axes = new_axes(0.55 + 0.36 * len(shown))
    axes.axvline(base, color=VARIABLES["baseline"], linestyle=(0, (2, 3)), linewidth=1)
    rows = []
    for place, role in enumerate(shown):
        value, difference = comparison.models[role][HEADLINE], comparison.differences.get(role, {}).get(HEADLINE)
        if difference is not None and _known(difference):
            low, high = difference.ci95
            axes.plot([base + low, base + high], [place, place], color=colour_of(comparison, role), linewidth=6,
                      alpha=0.35, solid_capstyle="round")  # fmt: skip
        axes.plot([value], [place], shape_of(comparison, role), color=colour_of(comparison, role), markersize=8)
        axes.annotate(f"{value:.3f}", (1.01, place), xycoords=("axes fraction", "data"), va="center",
                      color=VARIABLES["ink"], fontweight="bold")  # fmt: skip
        rows.append((role, f"{value:.3f}", "" if difference is None else difference_text(difference)))
    axes.set_yticks(range(len(shown)), shown, color=VARIABLES["ink"])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.margins(x=0.06)
    axes.grid(axis="x")
    return drawn(
        figure,
        "headline",
        "nDCG@10 of each model",
        "; ".join(f"{role} {value}" for role, value, _ in rows),
        ("model", "nDCG@10", "difference to the baseline [95 % interval]"),
        rows,
        "The bar of a candidate is the 95 % interval of its difference to the baseline (dashed line): a bar wholly to "
        "the right of the line is a gain beyond chance. The scale need not begin at 0.",
    )


@styled
def hit_rate_plot(comparison: Comparison, dataset: QADataset) -> Plot:
    """The share of questions that are answered within the first k passages, for k from 1 to 20."""
    qrels, shown = dataset.require(comparison.split), roles(comparison)
    depths = range(1, DEEPEST + 1)
    names = [f"hit_rate@{k}" for k in depths]
    figure, axes = new_axes(2.9)
    curves = {}
    for role in shown:
        found = metrics_per_query(dict(zip(qrels, comparison.rankings[role], strict=True)), qrels, names)
        curves[role] = [float(found[name].mean()) for name in names]
        axes.plot(depths, curves[role], color=colour_of(comparison, role), linewidth=2, label=role,
                  linestyle=DASHES[shown.index(role) % len(DASHES)], marker=shape_of(comparison, role),
                  markersize=3.5)  # fmt: skip
    axes.set_xticks([1, 5, 10, 15, 20])
    axes.set_xlabel("k")
    axes.grid(axis="y")
    axes.legend(loc="lower right", ncols=1 + (len(shown) > 4))
    first, tenth = (", ".join(f"{role} {curves[role][k - 1]:.1%}" for role in shown) for k in (1, 10))
    return drawn(
        figure,
        "hit-rate",
        "Hit rate: answered within the first k passages",
        f"At k = 1: {first}. At k = 10: {tenth}.".replace("%", " %"),
        ("k", *shown),
        [(str(k), *(f"{curves[role][k - 1]:.3f}" for role in shown)) for k in depths],
    )


@styled
def rank_plot(moves: Sequence[RankChange], role: str, of_several: bool = False) -> Plot:
    """Where the answers stood under the baseline, and where they stand under a candidate, as streams between ranks."""
    from matplotlib.patches import PathPatch, Rectangle
    from matplotlib.path import Path

    names, count = list(BUCKETS), max(1, len(moves))
    flow = dict.fromkeys(itertools.product(range(len(names)), repeat=2), 0)
    for move in moves:
        flow[_bucket(move.before), _bucket(move.after)] += 1
    gap = 0.04
    figure, axes = new_axes(3.4)
    axes.axis("off")
    tops: list[list[float]] = []
    for side, x in ((0, 0.0), (1, 1.0)):
        sizes = [sum(many for pair, many in flow.items() if pair[side] == place) / count for place in range(len(names))]
        starts = [sum(sizes[:place]) + gap * place for place in range(len(names))]
        tops.append(starts)
        for place, (start, size) in enumerate(zip(starts, sizes, strict=True)):
            axes.add_patch(Rectangle((x - 0.012, start), 0.024, max(size, 0.002), color=VARIABLES["soft"], linewidth=0))
            axes.annotate(f"{names[place]}: {round(size * count):,}", (x + (0.03 if side else -0.03), start + size / 2),
                          ha="left" if side else "right", va="center", color=VARIABLES["ink"])  # fmt: skip
    used = [list(starts) for starts in tops]
    for (before, after), many in flow.items():
        size = many / count
        left, right = used[0][before], used[1][after]
        used[0][before] += size
        used[1][after] += size
        if not many:
            continue
        x1, x2 = 0.012, 0.988
        corners = [(x1, left), (0.5, left), (0.5, right), (x2, right), (x2, right + size), (0.5, right + size),
                   (0.5, left + size), (x1, left + size), (x1, left)]  # fmt: skip
        codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
        colour = VARIABLES["soft" if before == after else "ship" if after < before else "keep"]
        axes.add_patch(PathPatch(Path(corners, codes), facecolor=colour, alpha=0.22 if before == after else 0.5,
                                 linewidth=0))  # fmt: skip
    axes.annotate("rank before", (0, -0.05), ha="center", color=VARIABLES["soft"])
    axes.annotate("rank after", (1, -0.05), ha="center", color=VARIABLES["soft"])
    axes.set_xlim(-0.28, 1.28)
    axes.set_ylim(1 + gap * len(names), -0.12)
    kinds = [move.kind for move in moves]
    rose, fell = kinds.count("win"), kinds.count("loss")
    return drawn(
        figure,
        f"ranks-{role}",
        "Where the answer stands, before and after" + (f": {role}" if of_several else ""),
        f"Of {len(moves):,} questions the answer stands higher for {rose:,} and lower for {fell:,}.",
        ("before \\ after", *names),
        [(name, *(f"{flow[place, after]:,}" for after in range(len(names)))) for place, name in enumerate(names)],
        "Each stream is questions: green rises into a better range of ranks, red falls, grey stays.",
    )


@styled
def slices_plot(comparison: Comparison, parts: Mapping[str, Slice]) -> Plot:
    """The difference in nDCG@10 on each kind of question, with its interval.

    Args:
        comparison: for its candidates and their colours.
        parts: kind of question -> its figures.
    """
    candidates = comparison.candidates
    step = 0.8 / len(candidates)
    figure, axes = new_axes(0.6 + len(parts) * max(0.3, 0.13 * len(candidates)), wide=True)
    axes.axvline(0, color=VARIABLES["soft"], linewidth=1)
    rows = []
    for place, (name, part) in enumerate(parts.items()):
        for number, role in enumerate(candidates):
            difference = part.differences[role]
            y = place - 0.4 + step * (number + 0.5)
            if _known(difference):
                axes.plot(difference.ci95, [y, y], color=colour_of(comparison, role), linewidth=2)
            axes.plot([difference.mean], [y], shape_of(comparison, role), color=colour_of(comparison, role),
                      markersize=6, label=role if place == 0 else None)  # fmt: skip
            rows.append((
                f"{name} ({role})" if len(candidates) > 1 else name, f"{part.queries:,}",
                *(f"{part.models[each][HEADLINE]:.3f}" for each in (BASELINE, role)), difference_text(difference),
            ))  # fmt: skip
    axes.set_yticks(range(len(parts)), [short(name) for name in parts], color=VARIABLES["ink"])
    axes.set_ylim(len(parts) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.2f}".replace("-", "−") if abs(value) > 1e-9 else "0")
    if len(candidates) > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    return drawn(
        figure,
        "slices",
        "Difference in nDCG@10 on kinds of questions",
        "; ".join(f"{row[0]}: {row[-1]}" for row in rows),
        ("questions", "how many", "baseline", "candidate", "difference [95 % interval]"),
        rows,
        "A dot is the mean difference to the baseline, its line the 95 % interval; right of 0 is better. Each looks at "
        "part of the questions, so that its interval is wider than the whole’s.",
    )


@styled
def training_plot(scores: Mapping[str, float], metric: str, share: float | None) -> Plot:
    """The dev figure after each epoch, and of the weights between the base's and the tuned ones."""
    names, values = list(scores), list(scores.values())
    along = [place for place, name in enumerate(names) if "share" not in name]
    between = [place for place, name in enumerate(names) if "share" in name]
    figure, axes = new_axes(2.6)
    axes.plot(
        along, [values[place] for place in along], "o-", color=VARIABLES["candidate"], linewidth=2, label="epochs"
    )
    if between:
        axes.plot(between, [values[place] for place in between], "D", color=VARIABLES["second"],
                  label="between base and tuned")  # fmt: skip
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    for place, value in enumerate(values):
        axes.annotate(f"{value:.3f}", (place, value), (0, 7 if place else -15), textcoords="offset points",
                      ha="center", color=VARIABLES["ink"])  # fmt: skip
    axes.axhline(values[0], color=VARIABLES["baseline"], linestyle=(0, (2, 3)), linewidth=1)
    slanted = len(names) > 6
    axes.set_xticks(range(len(names)), names, rotation=35 if slanted else 0, ha="right" if slanted else "center")
    axes.margins(x=0.08, y=0.25)
    axes.grid(axis="y")
    chosen = "" if share is None else f" What was saved has a share of {share:g} of the tuned weights."
    return drawn(
        figure,
        "training",
        f"Training: {metric} on the dev questions",
        "; ".join(f"{name} {value:.3f}" for name, value in scores.items()),
        ("weights", f"dev {metric}"),
        [(name, f"{value:.4f}") for name, value in scores.items()],
        f"The dashed line is the base model.{chosen}",
    )


@styled
def drops_plot(dropped: Mapping[str, int]) -> Plot:
    """How many questions each filter left out when the dataset was made."""
    ordered = sorted(dropped.items(), key=lambda item: -item[1])
    named = [textwrap.fill(reason, 40, max_lines=3, placeholder="…") for reason, _ in ordered]
    figure, axes = new_axes(0.4 + 0.2 * sum(2 + name.count("\n") for name in named), wide=True)
    axes.barh(range(len(ordered)), [count for _, count in ordered], color=VARIABLES["soft"], height=0.6)
    for place, (_, count) in enumerate(ordered):
        axes.annotate(f"{count:,}", (count, place), (5, 0), textcoords="offset points", va="center",
                      color=VARIABLES["ink"])  # fmt: skip
    axes.set_yticks(range(len(ordered)), named, color=VARIABLES["ink"])
    axes.set_ylim(len(ordered) - 0.5, -0.5)
    axes.margins(x=0.12)
    axes.set_xticks([])
    return drawn(
        figure,
        "drops",
        "What the filters left out",
        "; ".join(f"{reason}: {count:,}" for reason, count in ordered),
        ("reason", "questions"),
        [(reason, f"{count:,}") for reason, count in ordered],
    )


def _known(difference: Difference) -> bool:
    return all(map(math.isfinite, difference.ci95))


def _bucket(rank: int | None) -> int:
    return next(place for place, last in enumerate(BUCKETS.values()) if (math.inf if rank is None else rank) <= last)
