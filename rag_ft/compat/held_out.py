"""The dev split of an engine's dataset: validation questions that are not in the training set."""

from __future__ import annotations

from dataclasses import replace

from rag_ft.compat.dataset import EmbeddingQAFinetuneDataset, question_and_passage
from rag_ft.compat.warn import warn
from rag_ft.dataset.qa_dataset import Passage, QADataset, Query


def with_dev(train: EmbeddingQAFinetuneDataset, val: EmbeddingQAFinetuneDataset | None, all_docs: bool) -> QADataset:
    """Return a dataset with the training questions as train, and the validation questions that are not in them as dev.

    Args:
        train: the training questions.
        val: the validation questions, if there are any.
        all_docs: train on all passages of a question instead of the first one.
    """
    dataset = train.to_dataset(first_only=not all_docs)
    if val is None:
        return dataset
    trained_on = set(question_and_passage(train, all_docs=True))
    held_out = val.to_dataset("dev")
    ids = {
        key: key if dataset.passages.get(key, passage).text == passage.text else f"val:{key}"
        for key, passage in held_out.passages.items()
    }
    passages = {ids[key]: Passage(ids[key], passage.text) for key, passage in held_out.passages.items()}
    queries: dict[str, Query] = {}
    qrels: dict[str, dict[str, int]] = {}
    leaked = 0
    for key, relevant in held_out.qrels["dev"].items():
        text = held_out.queries[key].text
        if any((text, held_out.passages[passage].text) in trained_on for passage in relevant):
            leaked += 1
            continue
        query = f"val:{key}" if key in dataset.queries else key
        queries[query] = Query(query, text)
        qrels[query] = {ids[passage]: grade for passage, grade in relevant.items()}
    if leaked:
        selection = "the others are used" if qrels else "some training questions are held out instead"
        warn(f"{leaked} questions of val_dataset are in the training set and cannot select a model: {selection}")
    return replace(
        dataset,
        passages=dataset.passages | passages,
        queries=dataset.queries | queries,
        qrels=dataset.qrels | ({"dev": qrels} if qrels else {}),
    )
