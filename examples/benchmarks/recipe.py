"""Cross-validation of learning rates over the training documents, without any test question.

    python examples/benchmarks/recipe.py covidqa scifact --learning-rates 5e-5 1e-4 2e-4

The train and dev questions of a collection are divided into folds by document. Each fold in turn is the dev split of a
training on the others. The figures are nDCG@10 of the base model and of the tuned weights (alpha 1, after the best
epoch) on each fold. They are written to examples/benchmarks/results/recipe.json.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

from quality import RESULTS, machine

from rag_ft import QADataset, Recipe, load_dataset, train_model


def folds(dataset: QADataset, count: int, seed: int) -> list[QADataset]:
    """Split the questions `count` times, each time with other documents as dev, without the test questions."""
    questions = dataset.qrels["train"] | dataset.qrels.get("dev", {})
    unit_of = dataset.split_units
    units = sorted({unit_of[passage] for relevant in questions.values() for passage in relevant})
    random.Random(seed).shuffle(units)
    fold_of = {unit: place % count for place, unit in enumerate(units)}
    datasets = []
    for fold in range(count):
        dev = {q: grades for q, grades in questions.items() if any(fold_of[unit_of[p]] == fold for p in grades)}
        train = {q: grades for q, grades in questions.items() if q not in dev}
        datasets.append(dataset.with_qrels({"train": train, "dev": dev}))
    return datasets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", nargs="+")
    parser.add_argument("--learning-rates", nargs="+", type=float, default=[5e-5, 1e-4, 2e-4])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--max-pairs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    file = RESULTS / "recipe.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for collection in arguments.collections:
        dataset = load_dataset(arguments.data / collection)
        for rate in arguments.learning_rates:
            recipe = replace(Recipe(seed=arguments.seed), learning_rate=rate, alphas=(1.0,))
            rows = []
            for part in folds(dataset, arguments.folds, arguments.seed):
                with tempfile.TemporaryDirectory() as folder:
                    trained = train_model(
                        part, Path(folder) / "model", "local", recipe=recipe, max_pairs=arguments.max_pairs
                    )
                rows.append(trained.dev)
            tuned = [row["alpha 1"] for row in rows]
            print(
                f"{collection} {rate:g}: {mean(row['base'] for row in rows):.3f} -> {mean(tuned):.3f} "
                f"(sd over folds {stdev(tuned):.3f})",
                flush=True,
            )
            results[f"{collection} {rate:g}"] = {"folds": rows, "machine": machine()}
            file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
