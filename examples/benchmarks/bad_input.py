"""Forty trainings on bad input: how many shipped models are worse than the base, with and without model selection.

    python examples/benchmarks/bad_input.py covidqa --other-domain scifact

There are ten seeds of each of four kinds, on a subset of 300 passages: `shuffled` (questions assigned to passages at
random, in dev too), `other-domain` (the questions of another domain, whose passages are added to the 300), `few` (20
pairs) and `hot` (a learning rate ten times too high). A model is worse if the interval of its difference on the test
questions of the subset is below 0. Each training adds a line to results/bad_input.jsonl, and is not run again.
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

from rag_ft import QADataset, TrainedModel, load_dataset
from rag_ft.embedding.encoding import encode
from rag_ft.embedding.loading import load_sentence_transformer
from rag_ft.evaluation import Run, score_runs
from rag_ft.evaluation.roles import BASELINE
from rag_ft.training.plan import plan_training
from rag_ft.training.prepare import Choices, prepare
from rag_ft.training.selection.weights import Weights
from rag_ft.training.train import Training, checkpoints_of

FILE = RESULTS / "bad_input.jsonl"
OTHER_DOMAIN = "other-domain"
KINDS = ["shuffled", OTHER_DOMAIN, "few", "hot"]
STORED_KINDS = {OTHER_DOMAIN: "foreign"}
"""Kind -> its name in the results, if that differs."""

SHIPPED, UNSELECTED = "shipped", "without the guard"
"""Names in the results: the model that selection shipped, and the tuned weights without selection."""

PASSAGES = 300


def subset(dataset: QADataset, seed: int) -> QADataset:
    """Return about 300 passages with the questions about them, half of them for test and half for training."""
    rng = random.Random(seed)
    chosen: dict[str, None] = {}
    for split, size in (("test", PASSAGES // 2), ("train", PASSAGES)):
        questions = list(dataset.require(split).items())
        rng.shuffle(questions)
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


def bad_training_data(kind: str, dataset: QADataset, other_domain: QADataset, seed: int) -> QADataset:
    """Return the training part of a dataset, made bad."""
    rng = random.Random(seed)
    train = dataset.qrels["train"]
    if kind == "shuffled":
        answers = list(train.values())
        rng.shuffle(answers)
        return dataset.with_qrels({"train": dict(zip(train, answers, strict=True))})
    if kind == OTHER_DOMAIN:
        other = subset(other_domain, seed)
        return QADataset(
            dataset.passages | other.passages, dataset.queries | other.queries, {"train": other.qrels["train"]}
        )
    if kind == "few":
        return dataset.with_qrels({"train": dict(rng.sample(sorted(train.items()), 20))})
    return dataset.with_qrels({"train": train})


def ranking(model: object, dataset: QADataset) -> list[list[str]]:
    """Return the first 10 passages for each test question."""
    ids = list(dataset.passages)
    passages = encode(model, [dataset.passage_texts[key] for key in ids], "document")  # type: ignore[arg-type]
    queries = encode(model, [dataset.queries[q].text for q in dataset.require("test")], "query")  # type: ignore[arg-type]
    top = np.argsort(-queries @ passages.T, axis=1, kind="stable")[:, :10]
    return [[ids[place] for place in row] for row in top]


def rows() -> list[dict]:
    """Read the earlier results. Those trainings are not run again."""
    if not FILE.exists():
        return []
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def train(
    dataset: QADataset, output: Path, seed: int, settings: dict[str, float], max_length: int
) -> tuple[TrainedModel, Weights | None]:
    """Train as `train_model` does; return the shipped model, and the tuned weights before selection if it trained."""
    model = load_sentence_transformer("local", max_length=max_length)
    plan = plan_training(prepare(dataset, model, Choices(settings=settings, seed=seed, adapt_max_length=False)), output)
    with checkpoints_of(plan, output) as checkpoints:
        training = Training(plan=plan)
        if checkpoints is not None:
            training.run(checkpoints)
        trained = training.save(output, "local")
    return trained, training.fitted.rounds[-1].weights if training.fitted is not None else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection")
    parser.add_argument("--other-domain", required=True, help="a collection of another domain")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--max-length", type=int, default=128, help="of all models; 128 is four times as fast as 256")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    whole = load_dataset(arguments.data / arguments.collection)
    other_domain = load_dataset(arguments.data / arguments.other_domain)
    done = {(row["kind"], row["seed"]) for row in rows()}
    for seed in range(arguments.seeds):
        for kind in arguments.kinds:
            stored_kind = STORED_KINDS.get(kind, kind)
            if (stored_kind, seed) in done:
                continue
            dataset = subset(whole, seed)
            data = bad_training_data(kind, dataset, other_domain, seed)
            base = load_sentence_transformer("local", max_length=arguments.max_length)
            rankings = {BASELINE: ranking(base, dataset)}
            settings = {"learning_rate": 1e-3} if kind == "hot" else {}
            started = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                trained, weights = train(data, Path(folder) / "m", seed, settings, arguments.max_length)
                tuned = load_sentence_transformer(str(trained.folder))
                rankings["candidate"] = ranking(tuned, dataset)
            if weights is not None:
                tuned.load_state_dict(weights)
            rankings["candidate-2"] = ranking(tuned, dataset)
            names = {BASELINE: "base", "candidate": SHIPPED, "candidate-2": UNSELECTED}
            comparison = score_runs(
                dataset, "test", {role: Run(lists, names[role]) for role, lists in rankings.items()}
            )
            seconds = round(time.monotonic() - started, 1)
            row = {"kind": stored_kind, "seed": seed, "share": trained.alpha, "seconds": seconds}
            row |= {"findings": trained.findings, "refused": trained.record["training"]["refused"], "dev": trained.dev}
            for role, name in list(names.items())[1:]:
                difference = comparison.differences[role]["ndcg@10"]
                row[name] = {
                    "difference": difference.mean,
                    "ci95": difference.ci95,
                    "verdict": comparison.verdicts[role],
                }
            print(row, flush=True)
            with FILE.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row | {"machine": machine()}) + "\n")
    counts: Counter[tuple[str, str]] = Counter()
    for row in rows():
        counts[row["kind"], "trainings"] += 1
        for name in (SHIPPED, UNSELECTED):
            counts[row["kind"], f"{name}: worse"] += row[name]["ci95"][1] < 0
            counts[row["kind"], f"{name}: says ship"] += row[name]["verdict"] == "ship"
    for (kind, what), count in sorted(counts.items()):
        print(f"{kind:10s} {what:28s} {count}")


if __name__ == "__main__":
    main()
