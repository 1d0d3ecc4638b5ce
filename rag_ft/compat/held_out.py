"""Questions that are held out from the training of the engines."""

from __future__ import annotations

from dataclasses import replace

from rag_ft.compat.dataset import EmbeddingQAFinetuneDataset, question_and_passage
from rag_ft.compat.warn import warn
from rag_ft.dataset.qa_dataset import Passage, QADataset, Query


def with_dev(train: EmbeddingQAFinetuneDataset, val: EmbeddingQAFinetuneDataset | None, all_docs: bool) -> QADataset:
    """Return a dataset with the training questions as train, and those validation questions as dev that are not in it."""
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
