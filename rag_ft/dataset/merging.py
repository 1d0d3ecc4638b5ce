"""An earlier dataset and a later one as one: for tuning on, without forgetting and without a leak between them."""

from __future__ import annotations

import random
from collections.abc import Container
from dataclasses import replace

from rag_ft.dataset.qa_dataset import QADataset, Qrels
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups
from rag_ft.errors import InputError

EARLIER = "earlier:"
"""Put before an id of the earlier dataset that the later one uses for something else."""

ALL = 0.999
"""A share of the earlier questions that leaves none of them out."""


def merge_datasets(earlier: QADataset, later: QADataset, replay: float = 0.3, seed: int = 0) -> QADataset:
    """Join two datasets: all of the later one, and of the earlier one dev and test and a share of the training.

    What the two have in common (an id with the same text, a passage with the same text and document) stands once. A
    training question of one that nearly repeats a dev or test question of the other is left out, and a dev question
    that repeats a test question.

    Args:
        earlier: what a model was tuned on.
        later: what it is tuned on now.
        replay: share of the earlier questions among all training questions, and of the earlier scored pairs among all
            of them; fewer where there are not so many.
        seed: of the draw.

    Returns:
        A dataset whose `info["earlier_questions"]` names the ones that the later dataset does not have.

    Raises:
        InputError: where replay is no share.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.dataset.merging import merge_datasets
        >>> old = QADataset({"p": Passage("p", "A claim is a form.")}, {"q": Query("q", "What is a claim?")},
        ...                 {"test": {"q": {"p": 1}}})
        >>> new = QADataset({"p": Passage("p", "Leave is asked for.")}, {"q": Query("q", "How do I get leave?")},
        ...                 {"test": {"q": {"p": 1}}})
        >>> merged = merge_datasets(old, new)
        >>> merged, merged.info["earlier_questions"]
        (QADataset(2 passages of 2 documents; questions: test 2), ['earlier:q'])
    """
    if not 0 <= replay < 1:
        raise InputError(f"replay is {replay:g}: give a share from 0 to below 1")
    same = {(passage.text, passage.doc_id): key for key, passage in later.passages.items()}
    renamed = {}
    for key, passage in earlier.passages.items():
        if key in later.passages and later.passages[key].text == passage.text:
            renamed[key] = key
        else:
            # Rows of a table have numbers for ids: the same text of the same document is the same passage.
            renamed[key] = same.get((passage.text, passage.doc_id)) or _free(key, later.passages, earlier.passages)
    asked = {
        key: key
        if key in later.queries and later.queries[key].text == query.text
        else _free(key, later.queries, earlier.queries)
        for key, query in earlier.queries.items()
    }
    passages = {
        renamed[key]: replace(
            passage,
            id=renamed[key],
            # Another text under a known id is a changed passage, and of the same document as before.
            doc_id=passage.doc_id or (renamed[key] if renamed[key] != key else ""),
        )
        for key, passage in earlier.passages.items()
    } | later.passages
    queries = {asked[key]: replace(query, id=asked[key]) for key, query in earlier.queries.items()} | later.queries
    before: dict[str, Qrels] = {
        split: {asked[query]: {renamed[p]: grade for p, grade in grades.items()} for query, grades in part.items()}
        for split, part in earlier.qrels.items()
    }
    new = later.qrels.get("train", {})
    old = {query: grades for query, grades in before.get("train", {}).items() if query not in new}
    count = min(len(old), round(len(new) * replay / (1 - replay))) if new else len(old)
    kept = set(random.Random(seed).sample(sorted(old), count))
    before["train"] = {query: grades for query, grades in old.items() if query in kept}
    splits = list(dict.fromkeys([*later.qrels, *before]))
    qrels = {split: {**before.get(split, {}), **later.qrels.get(split, {})} for split in splits}
    qrels = _without_leaks(qrels, {key: query.text for key, query in queries.items()})
    mine = {query for part in later.qrels.values() for query in part}
    negatives = {
        asked[query]: [renamed[p] for p in found] for query, found in earlier.negatives.items() if asked[query] in kept
    } | later.negatives
    sources = {
        asked[query]: {renamed[p]: source for p, source in found.items()}
        for query, found in earlier.negative_sources.items()
        if asked[query] in kept and asked[query] not in later.negatives
    }
    scored = earlier.scored_pairs
    room = round(len(later.scored_pairs) * replay / (1 - replay)) if later.scored_pairs else len(scored)
    if room < len(scored):
        scored = [scored[place] for place in sorted(random.Random(seed).sample(range(len(scored)), room))]
    merged = QADataset(
        passages,
        queries,
        qrels,
        negatives=negatives,
        scored_pairs=[*scored, *later.scored_pairs],
        negative_sources=sources | later.negative_sources,
    )
    named = [query for part in qrels.values() for query in part if query not in mine]
    named += later.info.get("earlier_questions", ())  # of an even earlier dataset
    return merged.with_info(later.info | {"earlier_questions": list(dict.fromkeys(named))})


def _free(key: str, later: Container[str], earlier: Container[str]) -> str:
    """An id that neither dataset uses for something else: either may be a merged one itself."""
    new = key
    while new in later or (new != key and new in earlier):
        new = EARLIER + new
    return new


def _without_leaks(qrels: dict[str, Qrels], texts: dict[str, str]) -> dict[str, Qrels]:
    """Leave out of train what nearly repeats a question of dev or test, and out of dev what repeats one of test."""
    ids = list(dict.fromkeys(query for part in qrels.values() for query in part))
    group = dict(zip(ids, near_duplicate_groups([texts[query] for query in ids]), strict=True))
    held_out: set[int] = set()
    found = dict(qrels)
    for split in ("test", "dev", "train"):
        part = found.get(split, {})
        left = {query: grades for query, grades in part.items() if group[query] not in held_out}
        held_out |= {group[query] for query in left}
        if split in found:
            found[split] = left
    return found
