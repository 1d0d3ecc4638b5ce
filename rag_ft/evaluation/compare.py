"""Candidates on the same questions: each is searched as an app would search it, then judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.text.sketch import QUESTION_SKETCH_SIZE, share_in
from rag_ft.errors import InputError
from rag_ft.evaluation.aspects import characters_read_by
from rag_ft.evaluation.comparison import BASELINE, Comparison, judge
from rag_ft.evaluation.metrics import DEFAULT_METRICS, HEADLINE
from rag_ft.evaluation.runs.candidate_runner import CandidateRunner
from rag_ft.evaluation.runs.candidates import Hybrid, display_name, kind_of, model_of
from rag_ft.evaluation.verdict import VerdictRules

if TYPE_CHECKING:
    from rag_ft.evaluation.runs.candidates import Candidate


def compare(
    dataset: QADataset,
    baseline: Candidate,
    candidates: Sequence[Candidate] | Candidate,
    *,
    split: str = "test",
    name: str = "",
    metrics: Sequence[str] = DEFAULT_METRICS,
    rules: VerdictRules | None = None,
    hybrids: bool = True,
    seed: int = 0,
    show_progress: bool = False,
) -> Comparison:
    """Compare retrievers on the questions of one split: embeddings through a Chroma index, and BM25 beside them.

    Args:
        dataset: with questions in the split; the whole corpus is searched.
        baseline: what is in use: an embedding, a `Hybrid`, a LlamaIndex retriever whose nodes have the ids of the
            passages, or `"bm25"`.
        candidates: one or several that might replace it, likewise.
        split: whose questions are asked.
        name: of the dataset, for the report.
        metrics: names like `ndcg@10`; the headline metric is always among them.
        rules: of the verdict.
        hybrids: show the baseline and the first candidate mixed with BM25 too, where they are embeddings. The mix is
            learned on dev questions, which must not be those of `split`.
        seed: of the bootstrap.
        show_progress: progress bars while passages are embedded.

    Raises:
        InputError: where the split has no question, or a model was trained on its test questions.
        OutsideError: where an embedding or a retriever fails.

    Example:
        >>> from rag_ft import FineTunedEmbedding, Passage, QADataset, Query, compare
        >>> passages = {"a": Passage("a", "Visitors wear a badge."), "b": Passage("b", "A Kittiwake is a claim form.")}
        >>> dataset = QADataset(passages, {"q": Query("q", "How do I get my money back?")}, {"test": {"q": {"b": 1}}})
        >>> comparison = compare(dataset, "bm25", FineTunedEmbedding.load("local"))
        >>> comparison.models["baseline"]["mrr@10"], comparison.models["candidate"]["mrr@10"]
        (0.0, 1.0)
        >>> comparison.verdict, comparison.reasons["candidate"]
        ('inconclusive', '1 questions are too few to tell: at least 50 are needed')
    """
    from llama_index.core.base.embeddings.base import BaseEmbedding

    dataset.require(split)
    given = list(candidates) if isinstance(candidates, Sequence) and not isinstance(candidates, str) else [candidates]
    if not given:
        raise InputError("there is no candidate to compare with the baseline: give at least one")
    roles: dict[str, Candidate] = {BASELINE: baseline}
    roles |= {"candidate" if place == 0 else f"candidate-{place + 1}": each for place, each in enumerate(given)}
    if hybrids:
        for role in (BASELINE, "candidate"):
            if isinstance(model := roles[role], BaseEmbedding):
                roles[f"hybrid-{role}"] = Hybrid(model)
    if not any(isinstance(each, str) for each in roles.values()):
        roles["bm25"] = "bm25"
    seen = _trained_on(roles, dataset, split)
    found = CandidateRunner(dataset, split, seed, show_progress).of(roles)
    comparison = judge(
        dataset,
        split,
        {role: value.passages for role, value in found.items()},
        {role: display_name(each) for role, each in roles.items()},
        name,
        metrics,
        seed,
        {role: value.details | {"kind": kind_of(roles[role])} for role, value in found.items()},
        rules,
        characters_read_by(given, dataset, split),
    )
    notes = (*comparison.notes, *seen, *_other_bases(roles), *_on_dev_alone(roles, comparison))
    return replace(comparison, notes=notes)


SEEN = 0.1
"""Share of the test questions that a model was trained on, over which its figures would mean nothing: single questions
are asked twice by chance."""


def _trained_on(roles: Mapping[str, Candidate], dataset: QADataset, split: str) -> list[str]:
    """A note for each model that was trained on some of the questions.

    Raises:
        InputError: where it was trained on many of those of the test split.
    """
    texts = [dataset.queries[query].text for query in dataset.qrels[split]]
    models: dict[int, tuple[str, Any]] = {}
    for role, each in roles.items():
        models.setdefault(id(model_of(each)), (role, model_of(each)))
    notes = []
    for role, model in models.values():
        training = getattr(model, "record", {}).get("training", {})
        share = share_in(training.get("questions", ()), texts, QUESTION_SKETCH_SIZE)
        if not share or training.get("share") == 0:  # then it has the base model's weights
            continue
        name = display_name(model)
        if share > SEEN and split == "test":
            raise InputError(
                f"{name} was trained on {share:.0%} of the {split} questions, so that its figures would mean nothing: "
                "compare on questions that it has not seen"
            )
        notes.append(f"The {role} ({name}) was trained on {share:.1%} of these questions.")
    return notes


def _other_bases(roles: Mapping[str, Candidate]) -> list[str]:
    """A note for each model that was tuned from another one than the baseline."""
    before = getattr(getattr(model_of(roles[BASELINE]), "contract", None), "base_model", None)
    notes = []
    for role, each in roles.items():
        record = getattr(each, "record", {})
        tuned_from = record.get("base_model") if record.get("training") else None
        # By the last part, since a folder may be named in several ways.
        if role != BASELINE and before and tuned_from and Path(tuned_from).name != Path(before).name:
            notes.append(
                f"The {role} ({display_name(each)}) was tuned from {tuned_from}, and the baseline is {before}: the "
                "difference is one of the base models too."
            )
    return notes


GAINED = 0.02
"""In nDCG@10: a gain on dev that should show on other questions too."""


def _on_dev_alone(roles: Mapping[str, Candidate], comparison: Comparison) -> list[str]:
    """A note for each model whose gain on dev, when it was tuned, does not show on these questions."""
    notes = []
    for role, differences in comparison.differences.items():
        record = getattr(roles[role], "record", {})
        training = record.get("training", {})
        gain, here = training.get("gain"), differences[HEADLINE].mean
        if not gain or gain["mean"] < GAINED or here > 0 or f"dev_{HEADLINE}" not in training:
            continue
        if not _is_start_of(model_of(roles[BASELINE]), record):
            continue
        made = ", ".join(f"{count} {source}" for source, count in training.get("dev_makings", {}).items())
        notes.append(
            f"The {role} ({display_name(roles[role])}) gained {gain['mean']:+.3f} on its dev questions ({made}) and "
            f"{here:+.3f} on these: what it learned from is not like them. Train on some questions of this kind, or "
            "generate other styles, with an LLM that has seen some."
        )
    return notes


def _is_start_of(baseline: object, record: Mapping[str, Any]) -> bool:
    """Whether a tuned model was trained from a baseline: its base model, or the tuned one that it goes on from."""
    before = getattr(baseline, "record", {})
    if generations := record.get("generations"):
        return bool(before) and generations[-1].get("weights_sha256") == before.get("weights_sha256")
    name = getattr(getattr(baseline, "contract", None), "base_model", "")
    return not before.get("training") and Path(name).name == Path(record.get("base_model") or "").name
