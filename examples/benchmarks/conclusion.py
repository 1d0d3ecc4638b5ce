"""What a comparison concludes to use, compared with the best retriever on test, and with what `check` says before.

    python examples/benchmarks/conclusion.py run covidqa scifact tenk-lyft:tenk-uber handbook demo --seeds 0 1 2
    python examples/benchmarks/conclusion.py table

Each run trains with the defaults (on human questions, or on questions generated without an LLM from the handbook and
the demo's documents), compares, and adds a line to results/conclusion.jsonl: nDCG@10 of each retriever on test and on
the questions that chose one, the retriever of the conclusion, and the one that the rule of version 0.1.0 would choose
on test itself (the simplest one that is not significantly worse than the best). With seed 0 `check` is run on the same
dataset, and its figures are compared with those of a comparison. --models keeps the models, so that a run can be
repeated.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from quality import RESULTS, machine

from rag_ft import (
    Comparison,
    FineTunedEmbedding,
    QADataset,
    check,
    compare,
    cut_into_nodes,
    generate_qa_dataset,
    load_dataset,
    read_documents,
    train_model,
)  # fmt: skip
from rag_ft.dataset import read_questions
from rag_ft.demo import acme_folder
from rag_ft.embedding import ModelSpec
from rag_ft.evaluation.metrics import HEADLINE
from rag_ft.evaluation.resampling import resampling_groups
from rag_ft.evaluation.retriever_choice import Choice
from rag_ft.evaluation.significance import paired_bootstrap

FILE = RESULTS / "conclusion.jsonl"


def datasets_of(collection: str, data: Path, seed: int) -> tuple[QADataset, QADataset]:
    """Return the dataset to train on, and the one to compare on."""
    name, _, test_name = collection.partition(":")
    if name == "demo":
        nodes = cut_into_nodes(read_documents(acme_folder() / "documents"))
        real = read_questions(acme_folder() / "questions.jsonl")
        dataset = generate_qa_dataset(nodes, use_llm=False, questions=real, seed=seed).dataset
    elif name == "handbook":
        dataset = generate_qa_dataset(cut_into_nodes(read_documents(data / name)), use_llm=False, seed=seed).dataset
    else:
        dataset = load_dataset(data / name)
    return dataset, load_dataset(data / test_name) if test_name else dataset


def chosen_on_test(comparison: Comparison, dataset: QADataset) -> str:
    """Return the simplest role that is not significantly worse than the best on test: the rule of version 0.1.0."""
    values = {role: metrics[HEADLINE] for role, metrics in comparison.per_query.items()}
    groups = resampling_groups(dataset, comparison.split)[0]
    best = max(values, key=lambda role: float(values[role].mean()))
    simplicity = Choice(kinds={role: str(each.get("kind", "")) for role, each in comparison.details.items()}).simplicity
    near = [
        role for role in values if role == best or paired_bootstrap(values[role] - values[best], groups).ci95[1] >= 0
    ]
    return min(near, key=simplicity)


def run(collection: str, seed: int, data: Path, models: Path) -> dict[str, Any]:
    dataset, test = datasets_of(collection, data, seed)
    folder = models / f"{collection.partition(':')[0]}-{seed}"
    if not folder.exists():
        train_model(dataset, folder, "local", seed=seed)
    tuned = FineTunedEmbedding.load(folder)
    base = FineTunedEmbedding.load(ModelSpec(name="local", max_length=tuned.max_length))
    comparison = compare(test, base, tuned, seed=seed)
    conclusion = comparison.conclusion
    assert conclusion is not None
    row = {
        "collection": collection,
        "seed": seed,
        "alpha": tuned.record["training"]["share"],
        "verdict": comparison.verdict,
        "test": {role: round(figures[HEADLINE], 4) for role, figures in comparison.models.items()},
        "chosen_by": conclusion.scores,
        "questions": f"{conclusion.questions} {conclusion.questions_from}",
        "chosen": conclusion.role,
        "chosen_on_test": chosen_on_test(comparison, test),
        "conclusion": str(conclusion),
        "costs": conclusion.costs,
        "machine": machine(),
    }
    return row | ({"check": check_against_compare(test)} if seed == 0 else {})


def check_against_compare(test: QADataset) -> dict[str, Any]:
    """Return what `check` says, and how far its figures are from those of a comparison of the base with BM25."""
    checkup = check(test, "local")
    untuned = compare(test, FineTunedEmbedding.load("local"), "bm25")
    assert untuned.conclusion is not None
    roles = {"base": "baseline", "bm25": "candidate", "hybrid": "hybrid-baseline"}
    differences = [
        abs(checkup.figures[name][HEADLINE] - untuned.models[role][HEADLINE]) for name, role in roles.items()
    ]
    return {
        "answer": checkup.answer,
        "use": checkup.use,
        "compare_uses": untuned.conclusion.kind,
        "largest_difference": max(differences),
        **{name: round(figures[HEADLINE], 4) for name, figures in checkup.figures.items()},
        "minutes": checkup.minutes,
    }


def table() -> str:
    """Return the results as a Markdown table: means over seeds."""
    rows: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for line in FILE.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows[row["collection"]][row["seed"]] = row
    titles = ("seeds", "BM25", "base", "tuned", "hybrid base", "hybrid tuned", "chosen", "the rule of 0.1.0", "to use")
    lines = ["| collection | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    for collection, by_seed in rows.items():
        found = list(by_seed.values())

        def average(role: str, found: list[dict[str, Any]] = found) -> str:
            return f"{mean(row['test'][role] for row in found):.3f}"

        def of(key: str, found: list[dict[str, Any]] = found) -> str:
            return f"{mean(row['test'][row[key]] for row in found):.3f}"

        roles = ("bm25", "baseline", "candidate", "hybrid-baseline", "hybrid-candidate")
        used = ", ".join(row["chosen"] for row in found)
        cells = [*map(average, roles), of("chosen"), of("chosen_on_test"), used]
        lines.append(f"| {collection} | {len(found)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", choices=["run", "table"])
    parser.add_argument("collections", nargs="*", help="TRAIN, TRAIN:TEST, handbook, or demo")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--models", type=Path, default=Path("/tmp/rag_ft-models"), help="folder that keeps the models")
    arguments = parser.parse_args()
    arguments.models.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds if arguments.act == "run" else ():
        for collection in arguments.collections:
            row = run(collection, seed, arguments.data, arguments.models)
            print(json.dumps(row), flush=True)
            with FILE.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    print(table())


if __name__ == "__main__":
    main()
