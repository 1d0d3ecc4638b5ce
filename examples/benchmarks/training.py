"""Training on human questions: rag_ft's defaults compared with those of others, in one run on one machine.

    python examples/benchmarks/training.py covidqa scifact tenk-lyft:tenk-uber --seeds 0 1 2
    python examples/benchmarks/training.py covidqa --ways rag_ft engine trainer --forgetting scifact
    python examples/benchmarks/training.py covidqa --set dimensions=[128]

`engine` trains like the embedding engine of llama-index-finetuning (`SentenceTransformer.fit`, batches of 10, 2 epochs,
a tenth of the steps as warm-up). `trainer` is the SentenceTransformers Trainer with its defaults (batches of 8, 3
epochs, learning rate 5e-5). Both train in float32 with dropout, at rag_ft's maximum length. The search is exact.

Each training adds a line to results/training.jsonl. The table of all of them is results/training.md; without arguments,
the script only makes the table.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from quality import RESULTS, exact_ndcg, machine
from sentence_transformers import InputExample, SentenceTransformer

from rag_ft import FineTunedEmbedding, QADataset, load_dataset, train_model
from rag_ft.embedding import ModelSpec
from rag_ft.embedding.loading import load_sentence_transformer
from rag_ft.evaluation.metrics import metrics_per_query
from rag_ft.retrieval.exact import ExactSearch
from rag_ft.training.max_length import fitting_max_length

FILE, TABLE = RESULTS / "training.jsonl", RESULTS / "training.md"
METRICS = ["ndcg@10", "mrr@10", "hit_rate@5"]


def figures(model: FineTunedEmbedding, dataset: QADataset) -> dict[str, float]:
    """Return the metrics on the test split, by exact search."""
    test = dataset.require("test")
    rankings = ExactSearch(model, dataset.passage_texts).rank([dataset.queries[query].text for query in test], 10)
    values = metrics_per_query(dict(zip(test, rankings, strict=True)), test, METRICS)
    return {metric: round(float(values[metric].mean()), 4) for metric in METRICS}


def length_for(dataset: QADataset) -> int:
    """Return the maximum length that rag_ft chooses."""
    texts = dataset.passage_texts
    return fitting_max_length(
        load_sentence_transformer("local"), [texts[passage] for _, passage in dataset.pairs("train")]
    )


def train_like_others(dataset: QADataset, way: str, folder: Path, length: int, seed: int) -> float:
    """Train with the defaults of others, and return the texts a second."""
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from torch.utils.data import DataLoader
    from transformers import set_seed

    set_seed(seed)
    model: SentenceTransformer = load_sentence_transformer("local", max_length=length)
    texts = dataset.passage_texts
    pairs = [(dataset.queries[query].text, texts[passage]) for query, passage in dataset.pairs("train")]
    loss = MultipleNegativesRankingLoss(model)
    started = time.monotonic()
    if way == "engine":
        epochs = 2
        loader = DataLoader([InputExample(texts=list(pair)) for pair in pairs], batch_size=10)
        model.fit(
            [(loader, loss)], epochs=epochs, warmup_steps=int(len(loader) * epochs * 0.1), show_progress_bar=False
        )
    else:
        from datasets import Dataset

        epochs = 3
        data = Dataset.from_dict({"anchor": [one for one, _ in pairs], "positive": [other for _, other in pairs]})
        arguments = SentenceTransformerTrainingArguments(
            output_dir=str(folder / "scratch"), seed=seed, use_cpu=model.device.type == "cpu", save_strategy="no",
            report_to="none", disable_tqdm=True,
        )  # fmt: skip
        SentenceTransformerTrainer(model=model, args=arguments, train_dataset=data, loss=loss).train()
    seconds = time.monotonic() - started
    model.save(str(folder / "model"), create_model_card=False)
    return 2 * epochs * len(pairs) / seconds


def setting(text: str) -> tuple[str, object]:
    """Parse `NAME=VALUE` with JSON or a word as the value."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def table() -> str:
    """Return all results as a Markdown table with mean and range over seeds. The latest run of a seed counts."""
    rows: dict[tuple[str, int, str], dict[int, dict]] = defaultdict(dict)
    for line in FILE.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        settings = {"epochs": row["recipe"]["epochs"]} if "recipe" in row else {}
        way = row["way"] + "".join(f", {name} {value}" for name, value in (settings | row.get("settings", {})).items())
        rows[row["collection"], row["max_length"], way][row["seed"]] = row
    lines = [
        "| collection | tokens | way | seeds | nDCG@10 | hit rate@5 | seconds | texts a second |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (collection, length, way), runs in sorted(rows.items()):
        found = list(runs.values())
        cells = [
            _spread([row["test"]["ndcg@10"] for row in found], "{:.3f}"),
            _spread([row["test"]["hit_rate@5"] for row in found], "{:.3f}"),
            _spread([row["seconds"] for row in found if "seconds" in row], "{:.0f}"),
            _spread([row["texts_per_second"] for row in found if "texts_per_second" in row], "{:.1f}"),
        ]
        lines.append(f"| {collection} | {length} | {way} | {len(found)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: Sequence[float], form: str) -> str:
    """Return the mean, and the range if there are several values; empty if there are none."""
    if not values:
        return ""
    spread = f" ({form.format(min(values))} to {form.format(max(values))})" if len(values) > 1 else ""
    return form.format(mean(values)) + spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", nargs="*", help="TRAIN, or TRAIN:TEST")
    parser.add_argument("--ways", nargs="+", default=["rag_ft"], choices=["base", "rag_ft", "engine", "trainer"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--forgetting", help="an unrelated collection, to measure forgetting on")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--keep", type=Path, help="folder for rag_ft's models, as COLLECTION-SEED, for hybrid.py")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of rag_ft's recipe instead of its defaults"
    )
    arguments = parser.parse_args()
    settings = dict(map(setting, arguments.set))
    for collection in arguments.collections:
        name, _, test_name = collection.partition(":")
        dataset = load_dataset(arguments.data / name)
        test = load_dataset(arguments.data / test_name) if test_name else dataset
        length = length_for(dataset)
        for seed in arguments.seeds:
            for way in arguments.ways:
                row: dict[str, Any] = {"collection": collection, "way": way, "seed": seed, "max_length": length}
                with tempfile.TemporaryDirectory() as scratch:
                    started = time.monotonic()
                    folder = Path(scratch) / "model"
                    if way == "rag_ft":
                        trained = train_model(
                            dataset, folder, "local", seed=seed, show_progress=True, settings=settings
                        )
                        row |= {"settings": settings} if settings else {}
                        row["texts_per_second"] = trained.record["training"]["texts_per_second"]
                        record = trained.record["training"]
                        row["training"] = {name: record[name] for name in record if name not in ("corpus", "questions")}
                        row["recipe"] = trained.record["recipe"]
                    elif way != "base":
                        row["texts_per_second"] = round(train_like_others(dataset, way, Path(scratch), length, seed), 1)
                    row["seconds"] = round(time.monotonic() - started, 1)
                    if arguments.keep and way == "rag_ft":
                        shutil.copytree(folder, arguments.keep / f"{name}-{seed}", dirs_exist_ok=True)
                    model = FineTunedEmbedding.load(
                        ModelSpec(name="local" if way == "base" else folder, max_length=length)
                    )
                    row["test"] = figures(model, test)
                    for dimension in row.get("recipe", {}).get("dimensions", ()):
                        cut = FineTunedEmbedding.load(ModelSpec(name=folder, max_length=length), dimension=dimension)
                        row[f"test at {dimension}"] = figures(cut, test)
                    if arguments.forgetting:
                        other = load_dataset(arguments.data / arguments.forgetting)
                        row["forgetting"] = {arguments.forgetting: round(exact_ndcg(model, other), 4)}
                print(row, flush=True)
                with FILE.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row | {"machine": machine()}) + "\n")
    TABLE.write_text(table() + "\n", encoding="utf-8")
    print(table())


if __name__ == "__main__":
    main()
