"""Questions that are held out, and which weights they choose: the best, and the base's where all others do worse."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rag_ft.compat.dataset import EmbeddingQAFinetuneDataset, question_and_passage
from rag_ft.compat.warn import warn
from rag_ft.dataset.qa_dataset import Passage, QADataset, Query
from rag_ft.training.loop.fit_result import FitResult
from rag_ft.training.recipe import Recipe
from rag_ft.training.selection.dev_score import dev_score
from rag_ft.training.selection.dev_set import DevQuestions, State, copy_weights, interpolate_weights

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class Chosen:
    """Which weights the model has now, and the figures of all candidates."""

    share: float
    dev: dict[str, float]


def dev_figure(dev: DevQuestions, model: SentenceTransformer) -> float:
    """nDCG@10 of a model on the held-out questions."""
    return dev_score(dev.values(model), dev)


def choose_weights(
    model: SentenceTransformer, base: State, fit: FitResult, recipe: Recipe, dev: DevQuestions | None
) -> Chosen:
    """Give a model the best of the tuned weights, or of those nearer to the base; the base's where all do worse."""
    tuned = fit.weights or copy_weights(model)
    if dev is None:
        warn("there are too few questions to hold some out: nothing tells whether the tuned model is better")
        model.load_state_dict(tuned)
        return Chosen(1.0, {})
    model.load_state_dict(base)
    found = {"base": dev_figure(dev, model)} | fit.scores
    best = (0.0, found["base"], base)
    for share in sorted(recipe.shares):  # of two that do as well the larger one
        weights = interpolate_weights(base, tuned, share)
        model.load_state_dict(weights)
        score = found[f"share {share:g}"] = dev_figure(dev, model)
        if np.isfinite(score) and score >= best[1]:
            best = (share, score, weights)
    model.load_state_dict(best[2])
    return Chosen(best[0], found)


def with_dev(train: EmbeddingQAFinetuneDataset, val: EmbeddingQAFinetuneDataset | None, all_docs: bool) -> QADataset:
    """Training questions as split train, those of a validation dataset that are not among them as split dev."""
    dataset = train.to_dataset(first_only=not all_docs)
    if val is None:
        return dataset
    known = set(question_and_passage(train, all_docs=True))
    held_out = val.to_dataset("dev")
    names = {
        key: key if dataset.passages.get(key, passage).text == passage.text else f"val:{key}"
        for key, passage in held_out.passages.items()
    }
    passages = {names[key]: Passage(names[key], passage.text) for key, passage in held_out.passages.items()}
    queries: dict[str, Query] = {}
    qrels: dict[str, dict[str, int]] = {}
    leaked = 0
    for key, relevant in held_out.qrels["dev"].items():
        text = held_out.queries[key].text
        if any((text, held_out.passages[passage].text) in known for passage in relevant):
            leaked += 1
            continue
        name = f"val:{key}" if key in dataset.queries else key
        queries[name] = Query(name, text)
        qrels[name] = {names[passage]: grade for passage, grade in relevant.items()}
    if leaked:
        rest = "the others choose" if qrels else "a part of the training questions is held out in their place"
        warn(f"{leaked} questions of val_dataset are trained on, and would approve of anything: {rest}")
    return replace(
        dataset,
        passages=dataset.passages | passages,
        queries=dataset.queries | queries,
        qrels=dataset.qrels | ({"dev": qrels} if qrels else {}),
    )
