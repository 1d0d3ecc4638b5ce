"""Forty trainings on bad input: how many shipped models are worse than the base, and how many without the guard.

    python examples/benchmarks/bad_input.py covidqa --foreign scifact

Ten seeds of each of four kinds, on a subset of 300 passages: `shuffled` (questions dealt to passages at random, dev
too), `foreign` (the questions of another domain, whose passages stand beside the 300), `few` (20 pairs) and `hot` (a
learning rate ten times too high). A model is worse where the interval of its difference on the subset's test questions
lies below 0. A line of results/bad_input.jsonl for each training; one that is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from quality import RESULTS, machine

from rag_ft import QADataset, load_dataset, train_model
from rag_ft.embedding.encoding import encode
from rag_ft.embedding.loading import load_sentence_transformer
from rag_ft.evaluation import Run, score_runs
from rag_ft.evaluation.roles import BASELINE
from rag_ft.training.loop import rounds
from rag_ft.training.selection.select import select

FILE = RESULTS / "bad_input.jsonl"
KINDS = ["shuffled", "foreign", "few", "hot"]
PASSAGES = 300


def subset(dataset: QADataset, seed: int) -> QADataset:
    """About 300 passages with the questions on them: a half for each of test and training."""
    draw = random.Random(seed)
    chosen: dict[str, None] = {}
    for split, size in (("test", PASSAGES // 2), ("train", PASSAGES)):
        questions = list(dataset.require(split).items())
        draw.shuffle(questions)
        for _, grades in questions:
            if len(chosen) >= size:
                break
            chosen |= dict.fromkeys(grades)
    passages = {key: passage for key, passage in dataset.passages.items() if key in chosen}
    qrels = {
        split: {query: grades for query, grades in part.items() if grades.keys() <= chosen.keys()}
        for split, part in dataset.qrels.items()
    }
    return QADataset(passages, dataset.queries, qrels)


def spoilt(kind: str, dataset: QADataset, foreign: QADataset, seed: int) -> QADataset:
    """The training part of a dataset, made bad."""
    draw = random.Random(seed)
    train = dataset.qrels["train"]
    if kind == "shuffled":
        answers = list(train.values())
        draw.shuffle(answers)
        return dataset.with_qrels({"train": dict(zip(train, answers, strict=True))})
    if kind == "foreign":
        other = subset(foreign, seed)
        return QADataset(
            dataset.passages | other.passages, dataset.queries | other.queries, {"train": other.qrels["train"]}
        )
    if kind == "few":
        return dataset.with_qrels({"train": dict(draw.sample(sorted(train.items()), 20))})
    return dataset.with_qrels({"train": train})


def ranking(model: object, dataset: QADataset) -> list[list[str]]:
    """The first 10 passages of each test question."""
    ids = list(dataset.passages)
    passages = encode(model, [dataset.passage_texts[key] for key in ids], "document")  # type: ignore[arg-type]
    queries = encode(model, [dataset.queries[q].text for q in dataset.require("test")], "query")  # type: ignore[arg-type]
    top = np.argsort(-queries @ passages.T, axis=1, kind="stable")[:, :10]
    return [[ids[place] for place in row] for row in top]


def rows() -> list[dict]:
    """What was found before: those trainings are not made again."""
    if not FILE.exists():
        return []
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection")
    parser.add_argument("--foreign", required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--max-length", type=int, default=128, help="of all models: four times as fast as 256")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    whole, foreign = (
        load_dataset(arguments.data / arguments.collection),
        load_dataset(arguments.data / arguments.foreign),
    )
    unguarded: dict[str, object] = {}

    def remembering(model, base, tuned, *rest, **named):  # type: ignore[no-untyped-def]
        unguarded["weights"] = tuned
        return select(model, base, tuned, *rest, **named)

    rounds.select = remembering  # type: ignore[assignment]
    done = {(row["kind"], row["seed"]) for row in rows()}
    for seed in range(arguments.seeds):
        for kind in arguments.kinds:
            if (kind, seed) in done:
                continue
            dataset = subset(whole, seed)
            data = spoilt(kind, dataset, foreign, seed)
            base = load_sentence_transformer("local", max_length=arguments.max_length)
            rankings = {BASELINE: ranking(base, dataset)}
            settings = {"learning_rate": 1e-3} if kind == "hot" else {}
            started = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                trained = train_model(
                    data, Path(folder) / "m", "local", max_length=arguments.max_length, seed=seed, settings=settings
                )
                tuned = load_sentence_transformer(str(trained.folder))
                rankings["candidate"] = ranking(tuned, dataset)
            if "weights" in unguarded:
                tuned.load_state_dict(unguarded.pop("weights"))
            rankings["candidate-2"] = ranking(tuned, dataset)
            names = {BASELINE: "base", "candidate": "shipped", "candidate-2": "without the guard"}
            compared = score_runs(dataset, "test", {role: Run(lists, names[role]) for role, lists in rankings.items()})
            row = {"kind": kind, "seed": seed, "share": trained.share, "seconds": round(time.monotonic() - started, 1)}
            row |= {"findings": trained.findings, "refused": trained.record["training"]["refused"], "dev": trained.dev}
            for role, name in list(names.items())[1:]:
                difference = compared.differences[role]["ndcg@10"]
                row[name] = {"difference": difference.mean, "ci95": difference.ci95, "verdict": compared.verdicts[role]}
            print(row, flush=True)
            with FILE.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row | {"machine": machine()}) + "\n")
    counts: Counter[tuple[str, str]] = Counter()
    for row in rows():
        counts[row["kind"], "trainings"] += 1
        for name in ("shipped", "without the guard"):
            counts[row["kind"], f"{name}: worse"] += row[name]["ci95"][1] < 0
            counts[row["kind"], f"{name}: says ship"] += row[name]["verdict"] == "ship"
    for (kind, what), count in sorted(counts.items()):
        print(f"{kind:10s} {what:28s} {count}")


if __name__ == "__main__":
    main()
