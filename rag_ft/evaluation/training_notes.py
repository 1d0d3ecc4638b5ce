"""Notes on what the compared models were trained on, as far as their folders say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.dataset.text.sketch import QUESTION_SKETCH_SIZE, fraction_in
from rag_ft.embedding.training_summary import TrainingSummary
from rag_ft.errors import InputError
from rag_ft.evaluation.metrics import HEADLINE
from rag_ft.evaluation.roles import BASELINE, CANDIDATE
from rag_ft.evaluation.runs.candidates import display_name, model_of

if TYPE_CHECKING:
    from rag_ft.dataset.qa_dataset import QADataset
    from rag_ft.evaluation.runs.candidates import Candidate
    from rag_ft.evaluation.significance import Difference

MAX_TRAINED_FRACTION = 0.1
"""Maximum fraction of the test questions that a model may be trained on: a few questions coincide by chance."""

MIN_DEV_GAIN = 0.02
"""Gain in nDCG@10 on dev questions that should show on other questions too."""


def notes_on_training_questions(roles: Mapping[str, Candidate], dataset: QADataset, split: str) -> list[str]:
    """Note each model that was trained on some of the questions.

    Raises:
        InputError: if a model was trained on many of the test questions.
    """
    texts = [dataset.queries[query].text for query in dataset.qrels[split]]
    models: dict[int, tuple[str, Any]] = {}
    for role, candidate in roles.items():
        models.setdefault(id(model_of(candidate)), (role, model_of(candidate)))
    notes = []
    for role, model in models.values():
        training = getattr(model, "record", {}).get("training", {})
        fraction = fraction_in(training.get("questions", ()), texts, QUESTION_SKETCH_SIZE)
        if not fraction or training.get("share") == 0:  # with alpha 0 it has the base model's weights
            continue
        name = display_name(model)
        if fraction > MAX_TRAINED_FRACTION and split == "test":
            raise InputError(
                f"{name} was trained on {fraction:.0%} of the {split} questions, so its metrics would be "
                "meaningless: compare on questions that it was not trained on"
            )
        notes.append(f"The {role} ({name}) was trained on {fraction:.1%} of these questions.")
    return notes


def base_kept(roles: Mapping[str, Candidate]) -> dict[str, str]:
    """Return each candidate that was tuned from the baseline, and whose training kept the base model -> why."""
    baseline = model_of(roles[BASELINE])
    kept = {}
    for role, candidate in roles.items():
        record = getattr(candidate, "record", {})
        if role.startswith(CANDIDATE) and record.get("training") and _was_tuned_from(baseline, record):
            summary = TrainingSummary.of(record)
            if summary.is_base:
                kept[role] = summary.base_kept_because
    return kept


def notes_on_base_models(roles: Mapping[str, Candidate]) -> list[str]:
    """Note each model that was tuned from another base model than the baseline's."""
    baseline = getattr(getattr(model_of(roles[BASELINE]), "contract", None), "base_model", None)
    notes = []
    for role, candidate in roles.items():
        record = getattr(candidate, "record", {})
        tuned_from = record.get("base_model") if record.get("training") else None
        # Only the last part counts, since a folder may be named in several ways.
        if role != BASELINE and baseline and tuned_from and Path(tuned_from).name != Path(baseline).name:
            notes.append(
                f"The {role} ({display_name(candidate)}) was tuned from {tuned_from}, and the baseline is {baseline}: "
                "part of the difference comes from the base models."
            )
    return notes


def notes_on_gains(roles: Mapping[str, Candidate], differences: Mapping[str, Mapping[str, Difference]]) -> list[str]:
    """Note each model that gained on its dev questions when it was tuned, but not on these questions."""
    notes = []
    for role, difference in differences.items():
        record = getattr(roles[role], "record", {})
        training = record.get("training", {})
        gain, here = training.get("gain"), difference[HEADLINE].mean
        if not gain or gain["mean"] < MIN_DEV_GAIN or here > 0 or f"dev_{HEADLINE}" not in training:
            continue
        if not _was_tuned_from(model_of(roles[BASELINE]), record):
            continue
        sources = ", ".join(f"{count} {source}" for source, count in training.get("dev_makings", {}).items())
        notes.append(
            f"The {role} ({display_name(roles[role])}) gained {gain['mean']:+.3f} on its dev questions ({sources}) and "
            f"{here:+.3f} on these: these questions differ from its training questions. Train on some questions of "
            "this kind, or generate questions in other styles, with some of these as examples for the LLM."
        )
    return notes


def _was_tuned_from(baseline: object, record: Mapping[str, Any]) -> bool:
    """Tell whether a tuned model started from the baseline: its base model, or the tuned model that it continues."""
    baseline_record = getattr(baseline, "record", {})
    if generations := record.get("generations"):
        weights = baseline_record.get("weights_sha256")
        return bool(baseline_record) and generations[-1].get("weights_sha256") == weights
    name = getattr(getattr(baseline, "contract", None), "base_model", "")
    return not baseline_record.get("training") and Path(name).name == Path(record.get("base_model") or "").name
