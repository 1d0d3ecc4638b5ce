"""A comparison as one HTML file that opens from disk: the verdict first, then the evidence for it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.evaluation.comparison import Comparison
from rag_ft.evaluation.rank_changes import RankChange
from rag_ft.evaluation.significance import RESAMPLES
from rag_ft.files import write_text
from rag_ft.report import plots
from rag_ft.report.contents import ReportContents
from rag_ft.report.judged_answers import AnswerComparison
from rag_ft.report.rank_plot import rank_plot
from rag_ft.report.rendering import excerpt, script_json, template_environment, template_source
from rag_ft.report.svg import Plot
from rag_ft.retrieval.top_k import MAX_RANK

MAX_ROWS = 5_000
"""Maximum number of questions in the table of a report; `write_questions` writes all."""

MAX_RANKED_ABOVE = 3
"""Maximum number of passages that the table shows as ranked above the answer."""

MAX_ANSWERS = 200
"""Maximum number of judged answers in a report; the vote log has all."""

DEFINITIONS = {
    "hit_rate": "fraction of the questions with a relevant passage among the first k.",
    "mrr": "mean of 1 / rank of the first relevant passage; 0 beyond the first k.",
    "ndcg": "relevant passages count more the higher they rank among the first k; 1 is ideal.",
    "recall": "fraction of the relevant passages that are among the first k.",
    "precision": "fraction of the first k passages that are relevant.",
    "map": "mean of the precision at each relevant passage within the first k.",
}


def write_report(
    comparison: Comparison,
    file: str | Path,
    dataset: QADataset | None = None,
    training: Mapping[str, Any] | None = None,
    title: str = "",
    command: str = "",
    answers: AnswerComparison | None = None,
) -> Path:
    """Write a comparison as one HTML file, which needs no network and no other file.

    Args:
        comparison: a comparison with at least one candidate; single questions are shown if it has its rankings.
        file: the HTML file.
        dataset: the dataset of the comparison, for the curves, the questions, and what the filters dropped.
        training: the contents of the model's `rag_ft.json`.
        title: shown above the verdict.
        command: the command that reproduces the comparison.
        answers: answers of two query engines that an LLM judged (`rag_ft.ab.judge_answers`), shown side by side.

    Returns:
        The file.

    Raises:
        InputError: if the comparison has no candidate, or was made on another dataset.

    Example:
        >>> import tempfile
        >>> from llama_index.core import MockEmbedding
        >>> from rag_ft import Passage, QADataset, Query, compare, write_report
        >>> passages = {"a": Passage("a", "Leave is booked in HELM."), "b": Passage("b", "Badges open doors.")}
        >>> dataset = QADataset(passages, {"q": Query("q", "Where is leave booked?")}, {"test": {"q": {"a": 1}}})
        >>> comparison = compare(dataset, MockEmbedding(embed_dim=8), "bm25")
        >>> file = write_report(comparison, tempfile.mkdtemp() + "/report.html", dataset, title="Handbook")
        >>> "Not decided: no clear result yet" in file.read_text()
        True
    """
    from markupsafe import Markup

    contents = ReportContents(
        comparison=comparison, dataset=dataset, training=training, title=title, command=command, answers=answers
    )
    environment = template_environment("report", autoescape=True)
    style, script = (template_source(environment, name) for name in ("report.css", "report.js"))
    text = environment.get_template("report.html.j2").render(
        **contents.template_values(),
        record=dict(training or {}),
        info=dataset.info if dataset is not None else {},
        shown_hit_rate=_shown_hit_rate(comparison),
        shown_answers=_shown_answers(answers),
        shown_rows=min(MAX_ROWS, comparison.queries),
        definitions=_definitions(comparison),
        resamples=RESAMPLES,
        searched=[role for role in comparison.roles if "exact_agreement" in comparison.details.get(role, {})],
        plots=_plots(contents),
        questions=Markup(script_json(_questions(contents))) if contents.rank_changes else "",
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    # A document may have a lone surrogate, which cannot be encoded as UTF-8: it must not make the report fail.
    write_text(Path(file), text.encode("utf-8", "replace").decode())
    return Path(file)


def _plots(contents: ReportContents) -> dict[str, list[Plot]]:
    """Draw the plots of each section; a section without data has none."""
    comparison, dataset, changes = contents.comparison, contents.dataset, contents.rank_changes
    record = (contents.training or {}).get("training", {})
    measured = [
        name for name in record if name.startswith("dev_") and ("@" in name or name == "dev_spearman") and record[name]
    ]
    dropped = dataset.info.get("dropped") if dataset is not None else None
    sections: dict[str, list[Plot]] = {
        "figures": [plots.headline_plot(comparison)],
        "ranks": [rank_plot(of_role, role, len(changes) > 1) for role, of_role in changes.items()],
        "slices": [plots.slices_plot(comparison, contents.slices)] if contents.slices else [],
        "training": [],
        "drops": [plots.drops_plot(dropped)] if isinstance(dropped, dict) and dropped else [],
    }
    if dataset is not None and changes:
        sections["figures"].append(plots.hit_rate_plot(comparison, dataset))
    if measured:
        metric = measured[-1].removeprefix("dev_").replace("ndcg", "nDCG")
        sections["training"].append(plots.training_plot(record[measured[-1]], metric, record.get("share")))
    return sections


def _shown_answers(judged: AnswerComparison | None) -> list[tuple[str, str, Mapping[str, str]]]:
    """Return (question, better variant, answers): first those that b loses, then those that b wins, then ties."""
    if judged is None:
        return []
    order = {"a": 0, "b": 1}
    questions = sorted(judged.answers, key=lambda question: order.get(judged.better.get(question, "tie"), 2))
    return [
        (question, judged.better.get(question, "tie"), judged.answers[question]) for question in questions[:MAX_ANSWERS]
    ]


def _questions(contents: ReportContents) -> dict[str, Any]:
    """Return the data of the table of questions, which report.js reads. Each text is stored once."""
    dataset = contents.dataset
    assert dataset is not None
    texts = dataset.own_texts
    passages: dict[str, int] = {}
    causes: dict[str, int] = {}
    slices: dict[str, int] = {}

    def row(change: RankChange) -> dict[str, Any]:
        return {
            "q": excerpt(dataset.queries[change.query].text),
            "b": change.before,
            "a": change.after,
            "w": passages.setdefault(change.relevant, len(passages)),
            "i": [passages.setdefault(passage, len(passages)) for passage in change.ranked_above[:MAX_RANKED_ABOVE]],
            "c": [[causes.setdefault(cause, len(causes)), text] for cause, text in change.failure_causes.items()],
            "s": [slices.setdefault(name, len(slices)) for name in change.slices],
        }

    def by_size(change: RankChange) -> tuple[float, int]:
        """Put the largest changes first, then the lowest ranks."""
        return -abs(change.gain), -(change.after or MAX_RANK + 1)

    rows = {
        role: [row(change) for change in sorted(changes, key=by_size)[:MAX_ROWS]]
        for role, changes in contents.rank_changes.items()
    }
    return {
        "depth": MAX_RANK,
        "candidates": [[role, contents.comparison.label(role)] for role in rows],
        "causes": list(causes),
        "slices": list(slices),
        "passages": [[dataset.passages[key].document, excerpt(texts[key])] for key in passages],
        "rows": rows,
    }


def _shown_hit_rate(comparison: Comparison) -> tuple[str, int] | None:
    """Return (name, k) of the hit rate that explains the verdict: at 5, or the first one measured."""
    names = [name for name in comparison.metrics if name.startswith("hit_rate@")]
    if not names:
        return None
    name = "hit_rate@5" if "hit_rate@5" in names else names[0]
    return name, int(name.split("@")[1])


def _definitions(comparison: Comparison) -> dict[str, str]:
    """Return the definition of each metric that was measured, as `name@k`."""
    return {f"{name}@k": DEFINITIONS[name] for name in (metric.split("@")[0] for metric in comparison.metrics)}
