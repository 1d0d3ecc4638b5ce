"""The record of a training in `rag_ft.json`: the same entries for models, adapters and the compatibility engines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_ft.dataset.text.sketch import sketch_of
from rag_ft.embedding.stored_names import stored_name
from rag_ft.training.examples.train_questions import question_sources, questions_sketch
from rag_ft.training.selection.select import why_base

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag_ft.dataset.qa_dataset import QADataset
    from rag_ft.evaluation.significance import Difference
    from rag_ft.training.selection.dev_set import Dev
    from rag_ft.training.selection.select import Selection

STORED_STATUS = {"seen": "known", "unseen": "new"}


def selection_record(selection: Selection, dev: Dev | None, alphas: Sequence[float]) -> dict[str, Any]:
    """Return the record of a selection: what was selected, on which dev set, and why.

    Args:
        selection: the result of the selection.
        dev: the dev set, if there is one.
        alphas: the weights of the tuned model that were allowed.
    """
    return {
        "dev_questions": len(dev.sources) if dev is not None else 0,
        "dev_makings": dict(Counter(dev.sources)) if dev is not None else {},
        "dev_documents": dict(Counter(STORED_STATUS[each] for each in dev.documents)) if dev is not None else {},
        f"dev_{dev.metric if dev is not None else 'ndcg@10'}": _rounded(selection.scores),
        "gain": gain_to_dict(selection.gain),
        "selected": stored_name(selection.name),
        "share": selection.alpha,
        "base_stays_because": None if selection.alpha else why_base(dev, alphas, selection.refused),
        "refused": {stored_name(name): reason for name, reason in selection.refused.items()},
        "refused_gains": {stored_name(name): gain_to_dict(gain) for name, gain in selection.refused_gains.items()},
        "general": _rounded(selection.general),
    }


def dataset_record(dataset: QADataset, earlier_questions: Sequence[str] = ()) -> dict[str, Any]:
    """Return the record of the training questions.

    Args:
        dataset: the dataset that was trained on.
        earlier_questions: hashes of questions that the model was trained on before.
    """
    trained_on = [*dataset.texts("train"), *(pair.query for pair in dataset.scored_pairs)]
    return {
        "question_styles": question_sources(dataset.questions("train")),
        # A check-up uses these hashes to recognise that a model was already tuned on a corpus.
        "corpus": sketch_of(dataset.passage_texts.values()),
        # A comparison uses these hashes to refuse test questions that a model was trained on.
        "questions": questions_sketch(trained_on, earlier_questions),
    }


def parts_record(
    dev: Dev | None, base: NDArray[np.float64] | None, shipped: NDArray[np.float64] | None
) -> dict[str, dict[str, float]]:
    """Return the dev scores on each source of questions, and on seen and unseen documents, if there are several.

    Args:
        dev: the dev set.
        base: the base model's values, shape (units,).
        shipped: the shipped model's values, shape (units,); None if the base is shipped.
    """
    if dev is None or base is None:
        return {}
    shipped = base if shipped is None else shipped
    record = {}
    for template, labels in (("{}", dev.sources), ("on {} documents", dev.documents)):
        distinct = list(dict.fromkeys(labels))
        for label in distinct if len(distinct) > 1 else []:
            part = np.asarray(labels) == label
            means = {"base": base[part].mean(), "shipped": shipped[part].mean()}
            record[stored_name(template.format(label))] = {"questions": int(part.sum())} | {
                name: round(float(mean), 4) for name, mean in means.items()
            }
    return record


def gain_to_dict(gain: Difference | None) -> dict[str, Any] | None:
    """Return a gain as stored in `rag_ft.json`; the bounds of an unknown interval are null."""
    if gain is None:
        return None
    bounds = [None, None] if gain.is_unknown else [round(bound, 4) for bound in gain.ci95]
    return {"mean": round(gain.mean, 4), "ci95": bounds}


def _rounded(scores: Mapping[str, float]) -> dict[str, float]:
    return {stored_name(name): round(score, 4) for name, score in scores.items()}
