"""The report: one HTML file that opens from disk, the verdict first, the evidence after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.errors import InputError
from rag_ft.evaluation.comparison import BASELINE, DEPTH, Comparison
from rag_ft.evaluation.metrics import HEADLINE, metrics_per_query
from rag_ft.evaluation.significance import RESAMPLES, Difference
from rag_ft.evaluation.table import best_score, label, metric_names, roles, subject
from rag_ft.evaluation.verdict import KINDS
from rag_ft.files import write_text

MOVED = 200
"""Questions in the table of those that moved most: half of the places are for wins, half for losses."""

EXCERPT = 300
"""Characters of a text in that table."""

DEEPEST = 20
"""The hit rate curve goes to this k."""

HEADLINES = {
    "ship": "Ship it: retrieval got better",
    "inconclusive": "Not decided: the test cannot tell yet",
    "keep-baseline": "Keep the baseline: no gain worth a change",
}

DEFINITIONS = {
    "hit_rate": "share of the questions with a passage that answers them among the first k.",
    "mrr": "mean of 1 / rank of the first passage that answers the question; 0 beyond the first k.",
    "ndcg": "passages that answer the question count more the higher they stand among the first k; 1 is ideal.",
    "recall": "passages that answer the question among the first k, as a share of all that do.",
    "precision": "passages that answer the question, as a share of the first k.",
    "map": "mean of the precision at each passage that answers the question, within the first k.",
}


@dataclass(frozen=True)
class Moved:
    """A question whose passage stands elsewhere now.

    Attributes:
        question: its text.
        before: the rank under the baseline of the first relevant passage, from 1; None: not found.
        after: the rank under the candidate.
        change: in 1 / log2(rank + 1), so that a move near the top counts most.
        wanted: the passage that answers it.
        instead: what the worse of both models put first.
    """

    question: str
    before: int | None
    after: int | None
    change: float
    wanted: Excerpt
    instead: Excerpt | None


@dataclass(frozen=True)
class Excerpt:
    """The start of a passage, and its document."""

    document: str
    text: str


@dataclass(frozen=True)
class Dot:
    """A model's headline figure on the chart; `low` and `high` end the interval, where there is one."""

    role: str
    label: str
    value: float
    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Curve:
    """A model's hit rate at k = 1, 2, ..., as numbers and as points of an SVG polyline."""

    role: str
    label: str
    values: list[float]
    points: str


@dataclass(frozen=True)
class Scale:
    """Figures between the first and the last tick, laid on pixels."""

    ticks: list[float]
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value; one outside the ticks lies on the border."""
        first, last = self.ticks[0], self.ticks[-1]
        share = (min(max(value, first), last) - first) / (last - first)
        return round(self.start + share * (self.end - self.start), 1)


def write_report(
    comparison: Comparison,
    file: str | Path,
    dataset: QADataset | None = None,
    training: dict[str, Any] | None = None,
    title: str = "",
) -> Path:
    """Write the report of a comparison: one HTML file that needs no network and no other file.

    Args:
        comparison: with one candidate at least; single questions are shown where it still has its rankings.
        file: the HTML file.
        dataset: what was compared on, for the curves and the questions that moved.
        training: the content of the model's `rag_ft.json`.
        title: shown above the verdict.

    Returns:
        The file.

    Raises:
        InputError: where there is no candidate, or the dataset is another one.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    if not comparison.candidates:
        raise InputError("the comparison has no candidate, and a report needs one: compare at least two models")
    environment = Environment(
        loader=PackageLoader("rag_ft", "evaluation/templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "score": lambda value: f"{value:.3f}",
        "signed": lambda value: f"{value:+z.3f}".replace("-", "−"),
        "percent": lambda value: f"{100 * value:.1f}\N{NO-BREAK SPACE}%",
        "interval": _interval,
        "rank": lambda rank: f"not in top {DEPTH}" if rank is None else str(rank),
        "p_value": lambda value: "< 0.001" if value < 0.001 else f"{value:.3f}",
    }
    curves: list[Curve] = []
    moved: list[Moved] = []
    curve_x, curve_y = Scale([1.0, float(DEEPEST)], 44, 464), Scale([0.0, 1.0], 244, 16)
    if dataset is not None and comparison.rankings:
        _check_same_questions(comparison, dataset)
        curves, curve_y = _curves(comparison, dataset, curve_x)
        moved = _moved(comparison, dataset)
    dots, dot_x = _dots(comparison)
    text = environment.get_template("report.html.j2").render(
        comparison=comparison,
        candidate=comparison.candidates[0],
        title=title,
        subject=subject(comparison),
        headlines=HEADLINES,
        headline=HEADLINE,
        roles=roles(comparison),
        label=lambda role: label(comparison, role),
        metrics=metric_names(comparison),
        best={metric: best_score(comparison, metric) for metric in metric_names(comparison)},
        shown_hit_rate=_shown_hit_rate(comparison),
        keywords_win=_keywords_win(comparison),
        aspects=comparison.aspects,
        slices={words: comparison.slices[name] for name, words in KINDS.items() if comparison.slices[name].queries},
        definitions={name: DEFINITIONS[name.split("@")[0]] for name in _kinds(comparison)},
        resamples=RESAMPLES,
        searched=[role for role in roles(comparison) if "exact_agreement" in comparison.details.get(role, {})],
        dots=dots,
        dot_x=dot_x,
        curves=curves,
        curve_x=curve_x,
        curve_y=curve_y,
        moved=_most_moved(moved),
        rose=sum(question.change > 0 for question in moved),
        fell=sum(question.change < 0 for question in moved),
        record=training or {},
    )
    # A lone surrogate in some document cannot be written as UTF-8, and must not cost the report.
    write_text(Path(file), text.encode("utf-8", "replace").decode())
    return Path(file)


def _interval(difference: Difference) -> str:
    """The interval in words, or that too few groups were there to have one."""
    low, high = difference.ci95
    if not (math.isfinite(low) and math.isfinite(high)):
        return "not known"
    return f"{low:+z.3f} to {high:+z.3f}".replace("-", "−")


def _shown_hit_rate(comparison: Comparison) -> tuple[str, int] | None:
    """(name, k) of the hit rate that the verdict is put into words with: at 5, or the first that was measured."""
    names = [name for name in metric_names(comparison) if name.startswith("hit_rate@")]
    if not names:
        return None
    name = "hit_rate@5" if "hit_rate@5" in names else names[0]
    return name, int(name.split("@")[1])


def _keywords_win(comparison: Comparison) -> bool:
    """Whether BM25 is ahead of the first candidate, which a reader should know before shipping it."""
    if "bm25" not in comparison.models:
        return False
    return comparison.models["bm25"][HEADLINE] > comparison.models[comparison.candidates[0]][HEADLINE]


def _kinds(comparison: Comparison) -> list[str]:
    """The measured metrics as `name@k`, each kind once."""
    return list(dict.fromkeys(f"{name.split('@')[0]}@k" for name in metric_names(comparison)))


def _check_same_questions(comparison: Comparison, dataset: QADataset) -> None:
    """Refuse a dataset that the rankings do not belong to: its texts would stand beside wrong ranks."""
    asked = len(dataset.require(comparison.split))
    if asked != comparison.queries or len(dataset.passages) != comparison.passages:
        raise InputError(
            f"the dataset has {asked} questions in split {comparison.split!r} and {len(dataset.passages)} passages, "
            f"but {comparison.queries} and {comparison.passages} were compared: give the dataset of the comparison"
        )


def _ticks(values: Sequence[float]) -> list[float]:
    """Round figures between 0 and 1 that enclose the values: at most about 6 of them."""
    low, high = max(0.0, min(values)), min(1.0, max(values))
    step = next((step for step in (0.02, 0.05, 0.1) if high - low <= 5 * step), 0.2)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if first == last:
        first, last = (first - 1, last) if first > 0 else (first, last + 1)
    return [round(place * step, 2) for place in range(first, last + 1)]


def _dots(comparison: Comparison) -> tuple[list[Dot], Scale]:
    """The headline figure of each model, and the interval of a candidate's difference, laid at the baseline."""
    figures = {role: comparison.models[role][HEADLINE] for role in roles(comparison)}
    ends: dict[str, tuple[float, float]] = {}
    for role in comparison.candidates:
        low, high = comparison.differences[role][HEADLINE].ci95
        if math.isfinite(low) and math.isfinite(high):
            ends[role] = (figures[BASELINE] + low, figures[BASELINE] + high)
    scale = Scale(_ticks([*figures.values(), *(end for pair in ends.values() for end in pair)]), 16, 464)
    dots = []
    for row, (role, value) in enumerate(figures.items()):
        bar = [scale(end) for end in ends.get(role, ())]
        dots.append(Dot(role, label(comparison, role), value, scale(value), 46.0 + 48 * row, *bar))
    return dots, scale


def _curves(comparison: Comparison, dataset: QADataset, x: Scale) -> tuple[list[Curve], Scale]:
    """The hit rate of each model at k = 1 to 20."""
    qrels = dataset.require(comparison.split)
    names = [f"hit_rate@{k}" for k in range(1, DEEPEST + 1)]
    values = {}
    for role in roles(comparison):
        found = metrics_per_query(dict(zip(qrels, comparison.rankings[role], strict=True)), qrels, names)
        values[role] = [float(found[name].mean()) for name in names]
    y = Scale(_ticks([value for curve in values.values() for value in curve]), 244, 16)
    return [
        Curve(role, label(comparison, role), curve, " ".join(f"{x(k)},{y(value)}" for k, value in enumerate(curve, 1)))
        for role, curve in values.items()
    ], y


def _moved(comparison: Comparison, dataset: QADataset) -> list[Moved]:
    """The questions whose rank under the first candidate is not that under the baseline, in their order."""
    texts = dataset.passage_texts

    def excerpt(passage: str) -> Excerpt:
        return Excerpt(dataset.passages[passage].document, _shortened(texts[passage]))

    found = []
    qrels = dataset.require(comparison.split)
    baselines, candidates = (comparison.rankings[role] for role in (BASELINE, comparison.candidates[0]))
    for (query, relevant), baseline, candidate in zip(qrels.items(), baselines, candidates, strict=True):
        before, after = _rank(baseline, relevant), _rank(candidate, relevant)
        if before == after:
            continue
        change = _worth(after) - _worth(before)
        better, worse = (candidate, baseline) if change > 0 else (baseline, candidate)
        wanted = next(passage for passage in better if passage in relevant)
        question = _shortened(dataset.queries[query].text)
        found.append(Moved(question, before, after, change, excerpt(wanted), excerpt(worse[0]) if worse else None))
    return found


def _most_moved(moved: Sequence[Moved]) -> list[Moved]:
    """The largest wins and the largest losses: losses are not crowded out where wins are many."""
    wins = sorted((question for question in moved if question.change > 0), key=lambda question: -question.change)
    losses = sorted((question for question in moved if question.change < 0), key=lambda question: question.change)
    half = MOVED // 2
    chosen = wins[: max(half, MOVED - len(losses))] + losses[: max(half, MOVED - len(wins))]
    return sorted(chosen, key=lambda question: -abs(question.change))


def _rank(ranking: Sequence[str], relevant: dict[str, int]) -> int | None:
    """The rank of the first relevant passage, from 1."""
    return next((rank for rank, passage in enumerate(ranking[:DEPTH], 1) if passage in relevant), None)


def _worth(rank: int | None) -> float:
    """What nDCG gives for a rank."""
    return 0.0 if rank is None else 1 / math.log2(rank + 1)


def _shortened(text: str) -> str:
    """The first characters of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else line[:EXCERPT].rstrip() + "…"
