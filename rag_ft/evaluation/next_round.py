"""The next round: the worst regressions as training pairs, and a test that stays fair after training on them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_ft.dataset.formats.beir import check_output, write_beir
from rag_ft.dataset.formats.tables import JSON_LINES
from rag_ft.dataset.qa_dataset import QADataset, best_graded
from rag_ft.errors import InputError
from rag_ft.evaluation.comparison import Comparison
from rag_ft.evaluation.failure_causes import NEAR_DUPLICATE
from rag_ft.evaluation.rank_changes import RankChange, compute_rank_changes, largest
from rag_ft.files import write_jsonl

MAX_REGRESSIONS = 200
"""Maximum number of regressions to export."""


@dataclass(frozen=True)
class NextRound:
    """The regressions to train on next, and the dataset to train and test on.

    Attributes:
        regressions: the questions that got worse, the worst first, all about one half of the documents.
        dataset: the same dataset with these questions in train, the passages ranked above their answers as negatives,
            and a test about the other half of the documents only.
        split: the split that the regressions come from.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.evaluation import RankChange, NextRound
        >>> passages = {"a": Passage("a", "Leave is booked in HELM."), "b": Passage("b", "Badges open doors.")}
        >>> queries = {"q1": Query("q1", "How do I get holidays?"), "q2": Query("q2", "How do I get in?")}
        >>> dataset = QADataset(passages, queries, {"train": {"q1": {"a": 1}}, "test": {"q2": {"b": 1}}})
        >>> print(NextRound([RankChange("q1", 1, 2, relevant="a", ranked_above=("b",))], dataset, "test"))
        1 regression on one half of the documents; 1 questions about the other half remain for test
    """

    regressions: list[RankChange]
    dataset: QADataset
    split: str

    @property
    def questions_left(self) -> int:
        """The number of questions that remain to test on."""
        return len(self.dataset.qrels.get(self.split, {}))

    def __str__(self) -> str:
        count = len(self.regressions)
        return (
            f"{count} {'regression' if count == 1 else 'regressions'} on one half of the documents; "
            f"{self.questions_left} questions about the other half remain for {self.split}"
        )


def prepare_next_round(
    comparison: Comparison, dataset: QADataset, role: str | None = None, *, count: int = MAX_REGRESSIONS, seed: int = 0
) -> NextRound:
    """Move the worst regressions from the test to training, so that the rest of the test stays fair.

    A test without the candidate's regressions would overestimate the candidate. So the documents are first halved at
    random, independently of the results: regressions are taken from one half, and the next test asks about the other.
    The next test also omits questions that nearly repeat an exported one, and regressions that nearly repeat a dev
    question are not exported.

    Args:
        comparison: a comparison with its rankings.
        dataset: the dataset of the comparison.
        role: the candidate; the first one if None.
        count: maximum number of regressions, the worst ones.
        seed: seeds the choice of the halves. The same dataset and seed give the same halves.

    Raises:
        InputError: if the split is train, or the comparison has no rankings.

    Example:
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.evaluation import Run, prepare_next_round, score_runs
        >>> passages = {f"p{n}": Passage(f"p{n}", f"Part {n * 7919} of it.", doc_id=f"d{n}") for n in range(20)}
        >>> queries = {f"q{n}": Query(f"q{n}", f"What about rule {n * 104729}?") for n in range(20)}
        >>> dataset = QADataset(passages, queries, {"test": {f"q{n}": {f"p{n}": 1} for n in range(20)}})
        >>> runs = {"baseline": Run([[f"p{n}"] for n in range(20)]),
        ...         "candidate": Run([["p0", f"p{n}"] for n in range(20)])}
        >>> next_round = prepare_next_round(score_runs(dataset, "test", runs), dataset)
        >>> qrels = next_round.dataset.qrels
        >>> next_round.questions_left > 5, set(qrels["train"]) & set(qrels["test"])
        (True, set())
    """
    split = comparison.split
    if split == "train":
        raise InputError("the train questions are already trained on: export regressions of dev or test")
    qrels = dataset.require(split)
    units = dataset.split_units
    exportable = _half_of(sorted({units[next(iter(relevant))] for relevant in qrels.values()}), seed)
    group = dataset.near_duplicate_queries(dict.fromkeys(query for part in dataset.qrels.values() for query in part))
    held_out = {group[query] for name in ("dev", "test") if name != split for query in dataset.qrels.get(name, {})}
    regressions = [
        change
        for change in largest(compute_rank_changes(comparison, dataset, role), "loss")
        if all(units[passage] in exportable for passage in qrels[change.query]) and group[change.query] not in held_out
    ][:count]
    exported = {group[change.query] for change in regressions}
    remaining = {
        query: relevant
        for query, relevant in qrels.items()
        if not any(units[passage] in exportable for passage in relevant) and group[query] not in exported
    }
    train = dataset.qrels.get("train", {}) | {change.query: qrels[change.query] for change in regressions}
    parts = {**dataset.qrels, "train": train, split: remaining}
    negatives = dict(dataset.negatives) | {
        change.query: passages for change in regressions if (passages := _negatives(change))
    }
    used = {query for part in parts.values() for query in part}
    next_dataset = dataset.with_questions(
        {key: query for key, query in dataset.queries.items() if key in used},
        {name: part for name, part in parts.items() if part},
        {query: passages for query, passages in negatives.items() if query in used},
    )
    info = {
        "candidate": comparison.names.get(role or comparison.candidates[0], ""),
        "split": split,
        "seed": seed,
        "questions": len(regressions),
    }
    return NextRound(regressions, next_dataset.with_info(dataset.info | {"losses": info}), split)


def _half_of(units: list[int], seed: int) -> set[int]:
    """Draw half of the units. The seed has a prefix, so that it is not the draw that held out unseen documents."""
    return set(random.Random(f"looked at {seed}").sample(units, max(1, len(units) // 2)))


def write_regressions(next_round: NextRound, target: str | Path, source: str | Path | None = None) -> Path:
    """Write the regressions for the next training.

    Args:
        next_round: the result of `prepare_next_round`.
        target: a `.jsonl` file or a folder. A file gets the pairs, as `read_labelled_pairs` reads them: question,
            positive, negative, document. Each line says that its question is no longer held out, but other tests may
            still ask it. A folder gets the whole dataset of the next round, whose test does not: train and compare on
            that.
        source: the dataset of the comparison, which is never overwritten.

    Raises:
        InputError: if the target is the source, has another suffix, or exists.

    Example:
        >>> import tempfile
        >>> from rag_ft import Passage, QADataset, Query
        >>> from rag_ft.dataset import read_labelled_pairs
        >>> from rag_ft.evaluation import Run, prepare_next_round, score_runs, write_regressions
        >>> passages = {"a": Passage("a", "Leave is booked in HELM."), "b": Passage("b", "Badges open doors.")}
        >>> queries = {"q1": Query("q1", "How do I get holidays?"), "q2": Query("q2", "How do I get in?")}
        >>> dataset = QADataset(passages, queries, {"test": {"q1": {"a": 1}, "q2": {"b": 1}}})
        >>> runs = {"baseline": Run([["a", "b"], ["b", "a"]]), "candidate": Run([["b", "a"], ["a", "b"]])}
        >>> next_round = prepare_next_round(score_runs(dataset, "test", runs), dataset)
        >>> file = write_regressions(next_round, tempfile.mkdtemp() + "/losses.jsonl")
        >>> len(read_labelled_pairs(file))
        1
    """
    target = Path(target)
    check_target(target, source)
    if target.suffix:
        write_jsonl(target, _rows(next_round))
    else:
        write_beir(next_round.dataset, target)
    return target


def check_target(target: str | Path, source: str | Path | None = None) -> None:
    """Raise an `InputError` if regressions cannot be written to a target, before anything is computed.

    Args:
        target: a `.jsonl` file or a folder.
        source: the dataset of the comparison.

    Raises:
        InputError: if the target is the source, has another suffix, or exists.
    """
    target = Path(target)
    if source is not None and target.resolve() == Path(source).resolve():
        raise InputError(f"{target} is the dataset of the comparison, which is never overwritten: choose another path")
    if not target.suffix:
        check_output(target)
    elif target.suffix.lower() not in JSON_LINES:
        raise InputError(f"{target}: write regressions to a .jsonl file or a folder")


def _negatives(change: RankChange) -> list[str]:
    """Return the passages ranked above the answer, without its near-duplicates, which may answer too."""
    near_duplicates = change.failure_causes.get(NEAR_DUPLICATE, "").split(", ")
    return [passage for passage in change.ranked_above if passage not in near_duplicates]


def _rows(next_round: NextRound) -> Iterator[dict[str, Any]]:
    dataset = next_round.dataset
    for change in next_round.regressions:
        grades = dataset.qrels["train"][change.query]
        answers = best_graded(grades)[:1] if dataset.queries[change.query].one_answer else grades
        relevant = [dataset.passages[passage] for passage in answers]
        yield {
            "id": change.query,
            "question": dataset.queries[change.query].text,
            "positive": [dataset.passage_texts[passage.id] for passage in relevant],
            "negative": [dataset.passage_texts[passage] for passage in dataset.negatives.get(change.query, [])],
            "document": [passage.document for passage in relevant],
            "held_out": False,
            "exported_from": next_round.split,
            "rank_before": change.before,
            "rank_after": change.after,
            "cause": "; ".join(change.failure_causes),
        }
