"""The plots of a report, each with its numbers as a table."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rag_ft.evaluation.comparison import Comparison
from rag_ft.evaluation.metrics import HEADLINE, metrics_per_query
from rag_ft.evaluation.roles import BASELINE
from rag_ft.evaluation.significance import Difference
from rag_ft.evaluation.slices import Slice
from rag_ft.report.svg import COLOURS, DASHES, Plot, colour_of, figure_svg, marker_of, new_axes, plot_style

if TYPE_CHECKING:
    from rag_ft.dataset.qa_dataset import QADataset

MAX_K = 20
"""Largest k of the hit rate curve."""

MAX_LABEL_CHARACTERS = 40


@plot_style()
def headline_plot(comparison: Comparison) -> Plot:
    """Plot nDCG@10 of each model, with the interval of each candidate's difference drawn from the baseline."""
    roles, base = comparison.roles, comparison.models[BASELINE][HEADLINE]
    figure, axes = new_axes(0.55 + 0.36 * len(roles))
    axes.axvline(base, color=COLOURS["baseline"], linestyle=(0, (2, 3)), linewidth=1)
    rows = []
    for y, role in enumerate(roles):
        value, difference = comparison.models[role][HEADLINE], comparison.differences.get(role, {}).get(HEADLINE)
        if difference is not None and _is_bounded(difference):
            low, high = difference.ci95
            axes.plot([base + low, base + high], [y, y], color=colour_of(comparison, role), linewidth=6,
                      alpha=0.35, solid_capstyle="round")  # fmt: skip
        axes.plot([value], [y], marker_of(comparison, role), color=colour_of(comparison, role), markersize=8)
        axes.annotate(f"{value:.3f}", (1.01, y), xycoords=("axes fraction", "data"), va="center",
                      color=COLOURS["ink"], fontweight="bold")  # fmt: skip
        rows.append((role, f"{value:.3f}", "" if difference is None else str(difference)))
    axes.set_yticks(range(len(roles)), roles, color=COLOURS["ink"])
    axes.set_ylim(len(roles) - 0.5, -0.5)
    axes.margins(x=0.06)
    axes.grid(axis="x")
    return Plot(
        name="headline",
        svg=figure_svg(figure, "headline"),
        title="nDCG@10 of each model",
        description="; ".join(f"{role} {value}" for role, value, _ in rows),
        columns=("model", "nDCG@10", "difference to the baseline [95 % interval]"),
        rows=rows,
        caption="The bar of a candidate is the 95 % interval of its difference to the baseline (dashed line). A bar "
        "entirely to the right of the line is a significant gain. The scale need not begin at 0.",
    )


@plot_style()
def hit_rate_plot(comparison: Comparison, dataset: QADataset) -> Plot:
    """Plot the fraction of questions that have a relevant passage among the first k, for k from 1 to 20."""
    qrels, roles = dataset.require(comparison.split), comparison.roles
    ks = range(1, MAX_K + 1)
    figure, axes = new_axes(2.9)
    curves = {}
    for number, role in enumerate(roles):
        run = dict(zip(qrels, comparison.rankings[role], strict=True))
        scores = metrics_per_query(run, qrels, [f"hit_rate@{k}" for k in ks])
        curves[role] = [float(scores[f"hit_rate@{k}"].mean()) for k in ks]
        axes.plot(ks, curves[role], color=colour_of(comparison, role), linewidth=2, label=role,
                  linestyle=DASHES[number % len(DASHES)], marker=marker_of(comparison, role),
                  markersize=3.5)  # fmt: skip
    axes.set_xticks([1, 5, 10, 15, 20])
    axes.set_xlabel("k")
    axes.grid(axis="y")
    axes.legend(loc="lower right", ncols=1 + (len(roles) > 4))
    at_1, at_10 = (", ".join(f"{role} {curves[role][k - 1]:.1%}" for role in roles) for k in (1, 10))
    return Plot(
        name="hit-rate",
        svg=figure_svg(figure, "hit-rate"),
        title="Hit rate: answered within the first k passages",
        description=f"At k = 1: {at_1}. At k = 10: {at_10}.".replace("%", " %"),
        columns=("k", *roles),
        rows=[(str(k), *(f"{curves[role][k - 1]:.3f}" for role in roles)) for k in ks],
    )


@plot_style()
def slices_plot(comparison: Comparison, slices: Mapping[str, Slice]) -> Plot:
    """Plot the difference in nDCG@10 on each slice, with its interval.

    Args:
        comparison: has the candidates and their colours.
        slices: title of a slice -> its metrics.
    """
    candidates = comparison.candidates
    step = 0.8 / len(candidates)
    figure, axes = new_axes(0.6 + len(slices) * max(0.3, 0.13 * len(candidates)), wide=True)
    axes.axvline(0, color=COLOURS["soft"], linewidth=1)
    rows = []
    for position, (title, part) in enumerate(slices.items()):
        for number, role in enumerate(candidates):
            difference = part.differences[role]
            y = position - 0.4 + step * (number + 0.5)
            if _is_bounded(difference):
                axes.plot(difference.ci95, [y, y], color=colour_of(comparison, role), linewidth=2)
            axes.plot([difference.mean], [y], marker_of(comparison, role), color=colour_of(comparison, role),
                      markersize=6, label=role if position == 0 else None)  # fmt: skip
            scores = (f"{part.models[each][HEADLINE]:.3f}" for each in (BASELINE, role))
            name = f"{title} ({role})" if len(candidates) > 1 else title
            rows.append((name, f"{part.queries:,}", *scores, str(difference)))
    axes.set_yticks(range(len(slices)), [_label(title) for title in slices], color=COLOURS["ink"])
    axes.set_ylim(len(slices) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.2f}".replace("-", "−") if abs(value) > 1e-9 else "0")
    if len(candidates) > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    return Plot(
        name="slices",
        svg=figure_svg(figure, "slices"),
        title="Difference in nDCG@10 on slices of the questions",
        description="; ".join(f"{row[0]}: {row[-1]}" for row in rows),
        columns=("slice", "questions", "baseline", "candidate", "difference [95 % interval]"),
        rows=rows,
        caption="A marker is the mean difference to the baseline, its line the 95 % interval; right of 0 is better. A "
        "slice has only some of the questions, so its interval is wider than that of all questions.",
    )


@plot_style()
def training_plot(scores: Mapping[str, float], metric: str, alpha: float | None) -> Plot:
    """Plot the dev score after each epoch, and for weights interpolated between the base's and the tuned ones.

    Args:
        scores: name of the weights -> score; `share A` are weights interpolated with alpha A.
        metric: the name of the score.
        alpha: the alpha of the saved model, if known.
    """
    values = list(scores.values())
    interpolated = [position for position, name in enumerate(scores) if "share" in name]
    epochs = [position for position in range(len(values)) if position not in interpolated]
    names = [name.replace("share", "alpha") for name in scores]
    figure, axes = new_axes(2.6)
    axes.plot(epochs, [values[position] for position in epochs], "o-", color=COLOURS["candidate"], linewidth=2,
              label="epochs")  # fmt: skip
    if interpolated:
        axes.plot(interpolated, [values[position] for position in interpolated], "D", color=COLOURS["second"],
                  label="between base and tuned")  # fmt: skip
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    for position, value in enumerate(values):
        axes.annotate(f"{value:.3f}", (position, value), (0, 7 if position else -15), textcoords="offset points",
                      ha="center", color=COLOURS["ink"])  # fmt: skip
    axes.axhline(values[0], color=COLOURS["baseline"], linestyle=(0, (2, 3)), linewidth=1)
    slanted = len(names) > 6
    axes.set_xticks(range(len(names)), names, rotation=35 if slanted else 0, ha="right" if slanted else "center")
    axes.margins(x=0.08, y=0.25)
    axes.grid(axis="y")
    saved = "" if alpha is None else f" The saved model has alpha {alpha:g} (0 is the base model, 1 the tuned one)."
    return Plot(
        name="training",
        svg=figure_svg(figure, "training"),
        title=f"Training: {metric} on the dev questions",
        description="; ".join(f"{name} {value:.3f}" for name, value in zip(names, values, strict=True)),
        columns=("weights", f"dev {metric}"),
        rows=[(name, f"{value:.4f}") for name, value in zip(names, values, strict=True)],
        caption=f"The dashed line is the base model.{saved}",
    )


@plot_style()
def drops_plot(dropped: Mapping[str, int]) -> Plot:
    """Plot how many questions each filter dropped when the dataset was made."""
    ordered = sorted(dropped.items(), key=lambda item: -item[1])
    labels = [textwrap.fill(reason, MAX_LABEL_CHARACTERS, max_lines=3, placeholder="…") for reason, _ in ordered]
    figure, axes = new_axes(0.4 + 0.2 * sum(2 + label.count("\n") for label in labels), wide=True)
    axes.barh(range(len(ordered)), [count for _, count in ordered], color=COLOURS["soft"], height=0.6)
    for y, (_, count) in enumerate(ordered):
        axes.annotate(f"{count:,}", (count, y), (5, 0), textcoords="offset points", va="center",
                      color=COLOURS["ink"])  # fmt: skip
    axes.set_yticks(range(len(ordered)), labels, color=COLOURS["ink"])
    axes.set_ylim(len(ordered) - 0.5, -0.5)
    axes.margins(x=0.12)
    axes.set_xticks([])
    return Plot(
        name="drops",
        svg=figure_svg(figure, "drops"),
        title="Questions that the filters dropped",
        description="; ".join(f"{reason}: {count:,}" for reason, count in ordered),
        columns=("reason", "questions"),
        rows=[(reason, f"{count:,}") for reason, count in ordered],
    )


def _is_bounded(difference: Difference) -> bool:
    return not difference.is_unknown


def _label(text: str) -> str:
    return text if len(text) <= MAX_LABEL_CHARACTERS else text[: MAX_LABEL_CHARACTERS - 1].rstrip() + "…"
