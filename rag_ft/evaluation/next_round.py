"""The worst losses as training pairs for the next round, and a test that stays fair after that."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_ft.dataset.formats.beir import check_output, write_beir
from rag_ft.dataset.formats.tables import JSON_LINES
from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups
from rag_ft.errors import InputError
from rag_ft.evaluation.comparison import Comparison
from rag_ft.evaluation.failure_causes import NEAR_DUPLICATE
from rag_ft.evaluation.rank_changes import RankChange, compute_rank_changes, largest
from rag_ft.files import write_jsonl

MOST = 200
"""Losses that are exported at most."""


@dataclass(frozen=True)
class NextRound:
    """What may be trained on next, and what is left to test on.

    Attributes:
        losses: the worst first; all of them about the half of the documents that was looked at.
        dataset: the same dataset, in which these questions train, with what came instead as their negatives, and test
            asks about the other half of the documents alone.
        split: that the losses come from.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.evaluation import RankChange, NextRound
        >>> passages = {"a": Passage("a", "Leave is booked in HELM."), "b": Passage("b", "Badges open doors.")}
        >>> queries = {"q1": Query("q1", "How do I get holidays?"), "q2": Query("q2", "How do I get in?")}
        >>> dataset = QADataset(passages, queries, {"train": {"q1": {"a": 1}}, "test": {"q2": {"b": 1}}})
        >>> print(NextRound([RankChange("q1", before=1, after=2, wanted="a", instead=("b",))], dataset, "test"))
        1 loss of the half of the documents that was looked at; 1 questions about the other half are left for test
    """

    losses: list[RankChange]
    dataset: QADataset
    split: str

    @property
    def left(self) -> int:
        """Questions that are left to test on."""
        return len(self.dataset.qrels.get(self.split, {}))

    def __str__(self) -> str:
        lost = f"{len(self.losses)} {'loss' if len(self.losses) == 1 else 'losses'}"
        return (
            f"{lost} of the half of the documents that was looked at; {self.left} questions about the other half are "
            f"left for {self.split}"
        )


def prepare_next_round(
    comparison: Comparison, dataset: QADataset, role: str | None = None, *, most: int = MOST, seed: int = 0
) -> NextRound:
    """Take the worst losses out of a test, to train on them, so that what is left of it still tells the truth.

    A test without the questions that a candidate lost would flatter it. So the documents are halved first, by a draw
    that knows nothing of the results: losses are taken from one half only, and the next test asks about the other
    half only. Questions of the next test that nearly repeat an exported one are left out too, and so is a loss that
    nearly repeats a question of dev.

    Args:
        comparison: with its rankings.
        dataset: that was compared on.
        role: the candidate; the first one where None.
        most: losses at most, the worst ones.
        seed: of the draw; the same dataset and seed give the same halves.

    Raises:
        InputError: where the questions were trained on already, or there are no rankings.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.evaluation.comparison import judge
        >>> from rag_ft.evaluation.next_round import prepare_next_round
        >>> passages = {f"p{n}": Passage(f"p{n}", f"Part {n * 7919} of it.", doc_id=f"d{n}") for n in range(20)}
        >>> queries = {f"q{n}": Query(f"q{n}", f"What about rule {n * 104729}?") for n in range(20)}
        >>> dataset = QADataset(passages, queries, {"test": {f"q{n}": {f"p{n}": 1} for n in range(20)}})
        >>> rankings = {"baseline": [[f"p{n}"] for n in range(20)], "candidate": [["p0", f"p{n}"] for n in range(20)]}
        >>> found = prepare_next_round(judge(dataset, "test", rankings, {}), dataset)
        >>> found.left > 5, set(found.dataset.qrels["train"]) & set(found.dataset.qrels["test"])
        (True, set())
    """
    split = comparison.split
    if split == "train":
        raise InputError("questions of train are trained on already: export losses of dev or test")
    qrels = dataset.require(split)
    units = dataset.split_units
    asked = sorted({units[next(iter(relevant))] for relevant in qrels.values()})
    # A draw of its own: with the seed alone it would begin as the one by which new documents were held out.
    looked_at = set(random.Random(f"looked at {seed}").sample(asked, max(1, len(asked) // 2)))
    ids = list(dict.fromkeys(query for part in dataset.qrels.values() for query in part))
    group = dict(zip(ids, near_duplicate_groups([dataset.queries[query].text for query in ids]), strict=True))
    held_out = {group[query] for name in ("dev", "test") if name != split for query in dataset.qrels.get(name, {})}
    losses = [
        move
        for move in largest(compute_rank_changes(comparison, dataset, role), "loss")
        if all(units[passage] in looked_at for passage in qrels[move.query]) and group[move.query] not in held_out
    ][:most]
    exported = {group[move.query] for move in losses}
    left = {
        query: relevant
        for query, relevant in qrels.items()
        if not any(units[passage] in looked_at for passage in relevant) and group[query] not in exported
    }
    train = dataset.qrels.get("train", {}) | {move.query: qrels[move.query] for move in losses}
    parts = {**dataset.qrels, "train": train, split: left}
    negatives = dict(dataset.negatives) | {move.query: found for move in losses if (found := _negatives(move))}
    used = {query for part in parts.values() for query in part}
    changed = dataset.with_questions(
        {key: query for key, query in dataset.queries.items() if key in used},
        {name: part for name, part in parts.items() if part},
        {query: found for query, found in negatives.items() if query in used},
    )
    info = {"candidate": comparison.names.get(role or comparison.candidates[0], ""), "split": split, "seed": seed}
    return NextRound(losses, changed.with_info(dataset.info | {"losses": info | {"questions": len(losses)}}), split)


def write_regressions(found: NextRound, target: str | Path, source: str | Path | None = None) -> Path:
    """Write the losses for the next training.

    Args:
        found: of `prepare_next_round`.
        target: a `.jsonl` file gets the pairs (question, positive, negative, document, as `read_labelled_pairs` takes
            them). They are no longer held out, which each line says, and nothing keeps another test from asking them.
            A folder gets the whole dataset of the next round, which no longer does: train and compare on that.
        source: the dataset that was compared on; it is never written over.

    Raises:
        InputError: where the target is the source, has another suffix, or is in the way.

    Example:
        >>> import tempfile
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.dataset import read_labelled_pairs
        >>> from rag_ft.evaluation import prepare_next_round, write_regressions
        >>> from rag_ft.evaluation.comparison import judge
        >>> passages = {"a": Passage("a", "Leave is booked in HELM."), "b": Passage("b", "Badges open doors.")}
        >>> queries = {"q1": Query("q1", "How do I get holidays?"), "q2": Query("q2", "How do I get in?")}
        >>> dataset = QADataset(passages, queries, {"test": {"q1": {"a": 1}, "q2": {"b": 1}}})
        >>> rankings = {"baseline": [["a", "b"], ["b", "a"]], "candidate": [["b", "a"], ["a", "b"]]}
        >>> found = prepare_next_round(judge(dataset, "test", rankings, {}), dataset)
        >>> file = write_regressions(found, tempfile.mkdtemp() + "/losses.jsonl")
        >>> len(read_labelled_pairs(file))
        1
    """
    target = Path(target)
    check_target(target, source)
    if target.suffix:
        write_jsonl(target, _rows(found))
    else:
        write_beir(found.dataset, target)
    return target


def check_target(target: str | Path, source: str | Path | None = None) -> None:
    """Refuse a place that losses cannot be written to, before anything is computed.

    Args:
        target: a `.jsonl` file or a folder.
        source: the dataset that is compared on.

    Raises:
        InputError: where the target is the source, has another suffix, or is in the way.
    """
    target = Path(target)
    if source is not None and target.resolve() == Path(source).resolve():
        raise InputError(f"{target} is the dataset that is compared on: choose another place, its test stays as it is")
    if not target.suffix:
        check_output(target)
    elif target.suffix.lower() not in JSON_LINES:
        raise InputError(f"{target}: losses are written as .jsonl, or as a folder (the dataset of the next round)")


def _negatives(move: RankChange) -> list[str]:
    """What came instead, without what nearly repeats the answer: that may answer too."""
    repeated = move.causes.get(NEAR_DUPLICATE, "").split(", ")
    return [passage for passage in move.instead if passage not in repeated]


def _rows(found: NextRound) -> Iterator[dict[str, Any]]:
    dataset = found.dataset
    for move in found.losses:
        relevant = [dataset.passages[passage] for passage in dataset.qrels["train"][move.query]]
        yield {
            "id": move.query,
            "question": dataset.queries[move.query].text,
            "positive": [dataset.passage_texts[passage.id] for passage in relevant],
            "negative": [dataset.passage_texts[passage] for passage in dataset.negatives.get(move.query, [])],
            "document": [passage.document for passage in relevant],
            "held_out": False,
            "exported_from": found.split,
            "rank_before": move.before,
            "rank_after": move.after,
            "cause": "; ".join(move.causes),
        }
