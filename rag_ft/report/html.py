"""The report: one HTML file that opens from disk, the verdict first, the evidence after it. Also as Markdown."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.errors import InputError
from rag_ft.evaluation.comparison import DEPTH, Comparison
from rag_ft.evaluation.metrics import HEADLINE
from rag_ft.evaluation.rank_changes import RankChange, check_same_questions, largest, compute_rank_changes
from rag_ft.evaluation.significance import RESAMPLES
from rag_ft.evaluation.slices import Slice
from rag_ft.evaluation.verdict import KINDS
from rag_ft.files import write_text
from rag_ft.report import plots
from rag_ft.report.console import best_score, label, metric_names, roles, subject
from rag_ft.report.drawing import Plot
from rag_ft.report.rendering import as_script, environment, shortened, source_of
from rag_ft.report.reproducing import how_to_reproduce

if TYPE_CHECKING:
    from rag_ft.ab.answers import JudgedAnswers

MOST_ROWS = 5_000
"""Questions in the table of a report, those that moved most and those that are answered worst; a file takes all."""

SHOWN_INSTEAD = 3
"""Passages that came instead, in that table."""

MOST_ANSWERS = 200
"""Judged answers in a report; the file of votes has all."""

IN_MARKDOWN = 5
"""Wins and losses that are named in Markdown, each."""

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


def write_report(
    comparison: Comparison,
    file: str | Path,
    dataset: QADataset | None = None,
    training: Mapping[str, Any] | None = None,
    title: str = "",
    command: str = "",
    answers: JudgedAnswers | None = None,
) -> Path:
    """Write the report of a comparison: one HTML file that needs no network and no other file.

    Args:
        comparison: with one candidate at least; single questions are shown where it still has its rankings.
        file: the HTML file.
        dataset: what was compared on, for the curves, the questions, and what the filters left out.
        training: the content of the model's `rag_ft.json`.
        title: shown above the verdict.
        command: by which the comparison is made again.
        answers: of two query engines, with what a judge said of them (`rag_ft.judge_answers`): side by side.

    Returns:
        The file.

    Raises:
        InputError: where there is no candidate, or the dataset is another one.

    Example:
        >>> import tempfile
        >>> from llama_index.core import MockEmbedding
        >>> from rag_ft import Passage, QADataset, Query, compare, write_report
        >>> passages = {"a": Passage("a", "Leave is booked in HELM."), "b": Passage("b", "Badges open doors.")}
        >>> dataset = QADataset(passages, {"q": Query("q", "Where is leave booked?")}, {"test": {"q": {"a": 1}}})
        >>> comparison = compare(dataset, MockEmbedding(embed_dim=8), "bm25")
        >>> file = write_report(comparison, tempfile.mkdtemp() + "/report.html", dataset, title="Handbook")
        >>> "Not decided: the test cannot tell yet" in file.read_text()
        True
    """
    from markupsafe import Markup

    moves = _moves(comparison, dataset)
    templates = environment(autoescape=True)
    style, script = (source_of(templates, name) for name in ("report.css", "report.js"))
    text = templates.get_template("report.html.j2").render(
        **_facts(comparison, dataset, training, title, command),
        answers=answers,
        shown_answers=_shown_answers(answers),
        plots=_plots(comparison, dataset, training, moves),
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        questions=Markup(as_script(_table(comparison, dataset, moves))) if dataset is not None and moves else "",
        moved=_counts(moves),
        shown_rows=min(MOST_ROWS, comparison.queries),
    )
    # A lone surrogate in some document cannot be written as UTF-8, and must not cost the report.
    write_text(Path(file), text.encode("utf-8", "replace").decode())
    return Path(file)


def to_markdown(
    comparison: Comparison,
    dataset: QADataset | None = None,
    training: Mapping[str, Any] | None = None,
    title: str = "",
    command: str = "",
    answers: JudgedAnswers | None = None,
) -> str:
    """The report as Markdown, for a pull request: the arguments of `write_report` but the file.

    Raises:
        InputError: where there is no candidate, or the dataset is another one.
    """
    moves = _moves(comparison, dataset)
    named = {}
    for role, found in moves.items():
        named[role] = {kind: largest(found, kind, IN_MARKDOWN) for kind in ("win", "loss")}
    return (
        environment(autoescape=False)
        .get_template("report.md.j2")
        .render(
            **_facts(comparison, dataset, training, title, command),
            answers=answers,
            moved=_counts(moves),
            named=named,
            dataset=dataset,
        )
        .strip()
        + "\n"
    )


def _moves(comparison: Comparison, dataset: QADataset | None) -> dict[str, list[RankChange]]:
    """Candidate -> what became of each question; empty where that is not known any more."""
    if not comparison.candidates:
        raise InputError("the comparison has no candidate, and a report needs one: compare at least two models")
    if dataset is None or not comparison.rankings:
        return {}
    check_same_questions(comparison, dataset)
    return {role: compute_rank_changes(comparison, dataset, role) for role in comparison.candidates}


def _facts(
    comparison: Comparison, dataset: QADataset | None, training: Mapping[str, Any] | None, title: str, command: str
) -> dict[str, Any]:
    """What both forms of the report say."""
    return {
        "comparison": comparison,
        "candidate": comparison.candidates[0],
        "title": title,
        "subject": subject(comparison),
        "headlines": HEADLINES,
        "headline": HEADLINE,
        "roles": roles(comparison),
        "label": lambda role: label(comparison, role),
        "metrics": metric_names(comparison),
        "best": {metric: best_score(comparison, metric) for metric in metric_names(comparison)},
        "shown_hit_rate": _shown_hit_rate(comparison),
        "keywords_win": _keywords_win(comparison),
        "slices": named_slices(comparison),
        "definitions": {name: DEFINITIONS[name.split("@")[0]] for name in _kinds(comparison)},
        "resamples": RESAMPLES,
        "searched": [role for role in roles(comparison) if "exact_agreement" in comparison.details.get(role, {})],
        "record": dict(training or {}),
        "command": command,
        "reproduce": how_to_reproduce(comparison, dataset, training),
        "info": dataset.info if dataset is not None else {},
    }


def named_slices(comparison: Comparison) -> dict[str, Slice]:
    """The kinds of questions as people read them: known and new ones first, then the others; empty ones left out."""
    first = {KINDS.get(name, name): part for name, part in comparison.slices.items()}
    return {name: part for name, part in (first | comparison.aspects).items() if part.queries}


def _plots(
    comparison: Comparison,
    dataset: QADataset | None,
    training: Mapping[str, Any] | None,
    moves: Mapping[str, Sequence[RankChange]],
) -> dict[str, list[Plot]]:
    """Section -> its plots; those that there is nothing to draw for are left out."""
    found: dict[str, list[Plot]] = {
        "figures": [plots.headline_plot(comparison)],
        "slices": [],
        "ranks": [],
        "training": [],
        "drops": [],
    }
    if dataset is not None and moves:
        found["figures"].append(plots.hit_rate_plot(comparison, dataset))
        found["ranks"] = [plots.rank_plot(several, role, len(moves) > 1) for role, several in moves.items()]
    if parts := named_slices(comparison):
        found["slices"] = [plots.slices_plot(comparison, parts)]
    record = (training or {}).get("training", {})
    for name, scores in record.items():
        if name.startswith("dev_") and ("@" in name or name == "dev_spearman") and scores:
            metric = name.removeprefix("dev_").replace("ndcg", "nDCG")
            found["training"] = [plots.training_plot(scores, metric, record.get("share"))]
    dropped = dataset.info.get("dropped") if dataset is not None else None
    if isinstance(dropped, dict) and dropped:
        found["drops"] = [plots.drops_plot(dropped)]
    return found


def _shown_answers(judged: JudgedAnswers | None) -> list[tuple[str, str, dict[str, str]]]:
    """(question, better side, answers): the candidate's losses first, then its wins, then the ties."""
    if judged is None:
        return []
    order = {"a": 0, "b": 1}
    asked = sorted(judged.answers, key=lambda question: order.get(judged.better.get(question, "tie"), 2))
    return [(each, judged.better.get(each, "tie"), judged.answers[each]) for each in asked[:MOST_ANSWERS]]


def _counts(moves: Mapping[str, Sequence[RankChange]]) -> dict[str, dict[str, int]]:
    return {
        role: {kind: sum(move.kind == kind for move in found) for kind in ("win", "loss", "same")}
        for role, found in moves.items()
    }


def _table(comparison: Comparison, dataset: QADataset, moves: Mapping[str, Sequence[RankChange]]) -> dict[str, Any]:
    """What the table of questions is made of, with each text once."""
    texts = dataset.passage_texts
    passages: dict[str, int] = {}
    causes: dict[str, int] = {}
    slices: dict[str, int] = {}

    def row(move: RankChange) -> dict[str, Any]:
        return {
            "q": shortened(dataset.queries[move.query].text),
            "b": move.before,
            "a": move.after,
            "w": passages.setdefault(move.wanted, len(passages)),
            "i": [passages.setdefault(passage, len(passages)) for passage in move.instead[:SHOWN_INSTEAD]],
            "c": [[causes.setdefault(cause, len(causes)), shown] for cause, shown in move.causes.items()],
            "s": [slices.setdefault(name, len(slices)) for name in move.slices],
        }

    # Those that moved most first, then those whose answer stands lowest.
    rows = {
        role: [
            row(move)
            for move in sorted(found, key=lambda move: (-abs(move.change), -(move.after or DEPTH + 1)))[:MOST_ROWS]
        ]
        for role, found in moves.items()
    }
    return {
        "depth": DEPTH,
        "candidates": [[role, label(comparison, role)] for role in rows],
        "causes": list(causes),
        "slices": list(slices),
        "passages": [[dataset.passages[key].document, shortened(texts[key])] for key in passages],
        "rows": rows,
    }


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
