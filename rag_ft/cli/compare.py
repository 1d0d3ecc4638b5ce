"""`rag-ft compare`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.cli import options
from rag_ft.cli.console import begin, say
from rag_ft.cli.inputs import ModelOptions, approve_vectors, named_fields, request_policy
from rag_ft.cli.results import exit_by_verdict, show_comparison
from rag_ft.errors import InputError
from rag_ft.evaluation.retriever_choice import MARGIN

if TYPE_CHECKING:
    from rag_ft.dataset.qa_dataset import QADataset
    from rag_ft.evaluation.comparison import Comparison


def compare(
    dataset: options.Dataset,
    baseline: options.Baseline,
    candidate: options.Candidates,
    split: options.Split = "test",
    earlier: options.ComparedEarlier = None,
    max_length: options.ComparedLength = None,
    device: options.Device = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    field: options.Fields = None,
    json: options.ReportJson = None,
    html: options.Html = None,
    markdown: options.Markdown = None,
    query_table: options.QueryTable = None,
    regressions: options.Regressions = None,
    embed_url: options.EmbedUrl = None,
    max_cost: options.MaxCost = 5.0,
    tolerance: options.Tolerance = MARGIN,
    require_improvement: options.RequireImprovement = False,
) -> None:
    """Compare models on held-out questions by hit rate, MRR and nDCG, with a verdict on each."""
    show_progress = begin(quiet)
    from rag_ft.evaluation.compare import compare as compare_models
    from rag_ft.evaluation.options import CompareOptions
    from rag_ft.evaluation.runs.candidates import max_length_of
    from rag_ft.evaluation.verdict import VerdictRules

    outputs = Outputs(json=json, html=html, markdown=markdown, query_table=query_table, regressions=regressions)
    outputs.check(dataset, earlier)
    questions = compared_questions(dataset, earlier, split, named_fields(field), seed)
    models = ModelOptions(device=device, max_length=max_length, url=embed_url, request_policy=request_policy(max_cost))
    candidates = [models.candidate(name) for name in candidate]
    longest = max((max_length_of(model) for model in candidates), default=0)
    loaded_baseline = models.candidate(baseline, longest)
    approve_vectors([loaded_baseline, *candidates], questions, {split, "dev"})
    comparison = compare_models(
        questions,
        loaded_baseline,
        candidates,
        split=split,
        options=CompareOptions(name=dataset.name, rules=VerdictRules(margin=tolerance)),
        seed=seed,
        show_progress=show_progress,
    )
    show_comparison(comparison)
    arguments = {"--baseline": baseline, "--candidate": candidate, "--earlier": earlier, "--split": split,
                 "--seed": seed, "--max-length": max_length,
                 "--tolerance": tolerance if tolerance != MARGIN else None}  # fmt: skip
    outputs.write(comparison, questions, candidate[0], command_line(dataset, arguments))
    if regressions is not None:
        export_regressions(comparison, questions, regressions, dataset, seed)
    exit_by_verdict(comparison, require_improvement)


def compared_questions(
    dataset: Path, earlier: Path | None, split: str, fields: dict[str, str] | None, seed: int
) -> QADataset:
    """Load the questions of a comparison, together with those of an earlier dataset if given."""
    from rag_ft.dataset.formats.load import load_dataset
    from rag_ft.dataset.merging import REPLAY_ALL, merge_datasets
    from rag_ft.dataset.splitting import hold_out_dev

    questions = load_dataset(dataset, split, fields=fields)
    questions.require(split)
    if earlier is None:
        return questions
    earlier_questions = load_dataset(earlier, split, fields=fields)
    earlier_questions.require(split)
    if split == "test":  # as in training, each dataset has its own dev split, to learn the mix with BM25
        earlier_questions, questions = hold_out_dev(earlier_questions, seed=seed), hold_out_dev(questions, seed=seed)
    return merge_datasets(earlier_questions, questions, REPLAY_ALL)


def command_line(dataset: Path, arguments: dict[str, Any]) -> str:
    """Return the command that repeats a comparison, for the report."""
    words = ["rag-ft", "compare", str(dataset)]
    for option, values in arguments.items():
        for value in values if isinstance(values, list) else [values]:
            words += [option, str(value)] if value is not None else []
    return shlex.join(words)


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """The files to which a comparison is written.

    Attributes:
        json: the metrics.
        html: the report as HTML.
        markdown: the report as Markdown.
        query_table: the result of every question.
        regressions: the questions that got worse: a file or a folder.
    """

    json: Path | None
    html: Path | None
    markdown: Path | None
    query_table: Path | None
    regressions: Path | None

    def check(self, *datasets: Path | None) -> None:
        """Check the files before anything is computed.

        Raises:
            InputError: if a file is a folder or has a wrong suffix, or the regressions would replace a dataset.
        """
        from rag_ft.evaluation.next_round import check_target
        from rag_ft.report.query_table import check_suffix

        for file in (self.query_table, self.json, self.html, self.markdown):
            if file is not None and file.is_dir():
                raise InputError(f"{file} is a folder: choose a file")
        if self.query_table is not None:
            check_suffix(self.query_table)
        if self.regressions is not None:
            for dataset in datasets:
                check_target(self.regressions, dataset)

    def write(self, comparison: Comparison, questions: QADataset, candidate: str, command: str) -> None:
        """Write the metrics, the reports and the table of questions."""
        from rag_ft.files import write_text
        from rag_ft.report.html import write_report
        from rag_ft.report.markdown import to_markdown
        from rag_ft.report.query_table import write_questions

        if self.json is not None:
            comparison.save(self.json)
        record = training_record(candidate)
        if self.html is not None:
            write_report(comparison, self.html, questions, record, command=command)
        if self.markdown is not None:
            write_text(self.markdown, to_markdown(comparison, questions, record, command=command))
        if self.query_table is not None:
            write_questions(comparison, questions, self.query_table)


def training_record(candidate: str) -> dict[str, Any]:
    """Return the training record of a tuned model, or an empty one for any other candidate."""
    from rag_ft.embedding.contract import read_model_record

    folder = Path(candidate.removeprefix("hybrid:"))
    return read_model_record(folder) if folder.is_dir() else {}


def export_regressions(comparison: Comparison, questions: QADataset, target: Path, dataset: Path, seed: int) -> None:
    """Write the questions that got worse, and print how to evaluate the retrained model."""
    from rag_ft.evaluation.next_round import prepare_next_round, write_regressions
    from rag_ft.evaluation.verdict import MIN_QUESTIONS

    next_round = prepare_next_round(comparison, questions, seed=seed)
    if not next_round.regressions:
        say("no regressions in the exportable half of the documents: nothing is exported")
        return
    write_regressions(next_round, target, dataset)
    say(f"{next_round}\n{target}")
    if target.suffix:
        say(
            "these questions are no longer held out: evaluate the retrained model on the next round's dataset "
            "(--regressions FOLDER)",
            style="yellow",
        )
    elif next_round.questions_left < MIN_QUESTIONS:
        say(
            f"{next_round.questions_left} questions are too few for a verdict: add more before the next round",
            style="yellow",
        )
