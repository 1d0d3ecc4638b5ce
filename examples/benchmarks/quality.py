"""nDCG@10 on human test questions before and after training, with human training questions and without any.

    python examples/benchmarks/quality.py labelled covidqa
    python examples/benchmarks/quality.py labelled tenk-lyft --test tenk-uber
    python examples/benchmarks/quality.py unlabelled scifact --max-pairs 1000
    python examples/benchmarks/quality.py unlabelled covidqa --unseen-documents 0

Collections are BEIR folders in --data. Each run writes one file into examples/benchmarks/results/, with the machine and
the versions.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from rag_ft import FineTunedEmbedding, QADataset, compare, generate_qa_dataset, load_dataset, train_model
from rag_ft.dataset import RealQuestion
from rag_ft.embedding import ModelSpec
from rag_ft.evaluation import CompareOptions
from rag_ft.evaluation.metrics import HEADLINE, metrics_per_query
from rag_ft.index.nodes import nodes_from_texts
from rag_ft.retrieval.exact import ExactSearch

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, object]:
    """Return the machine and the versions that the figures were measured with."""
    packages = ("torch", "sentence-transformers", "transformers", "chromadb", "llama-index-core", "bm25s")
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "date": datetime.now(UTC).date().isoformat(),
    }


def without_labels(dataset: QADataset, unseen_documents: float, seed: int) -> QADataset:
    """Generate training questions from the passages alone; the human test questions stay the test."""
    documents = {key: passage.document for key, passage in dataset.passages.items()}
    test = dataset.require("test")
    human = [RealQuestion(dataset.queries[query].text, list(test[query]), id=query) for query in test]
    nodes = nodes_from_texts(dataset.passage_texts, documents)
    return generate_qa_dataset(
        nodes, use_llm=False, questions=human, unseen_documents=unseen_documents, seed=seed
    ).dataset


def exact_ndcg(model: FineTunedEmbedding, dataset: QADataset) -> float:
    """Return nDCG@10 on the test split by exact search, at the maximum length of the model."""
    test = dataset.require("test")
    rankings = ExactSearch(model, dataset.passage_texts).rank([dataset.queries[query].text for query in test], 10)
    return float(metrics_per_query(dict(zip(test, rankings, strict=True)), test, [HEADLINE])[HEADLINE].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["labelled", "unlabelled"])
    parser.add_argument("collection")
    parser.add_argument("--test", help="the collection with the test questions; the same one by default")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--base-model", default="local")
    parser.add_argument("--max-pairs", type=int)
    parser.add_argument(
        "--unseen-documents",
        type=float,
        default=0.2,
        help="unlabelled: fraction of the documents that training does not see",
    )
    parser.add_argument("--forgetting", help="an unrelated collection, to measure forgetting on")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.data / arguments.collection)
    if arguments.kind == "unlabelled":
        dataset = without_labels(dataset, arguments.unseen_documents, arguments.seed)
    test = load_dataset(arguments.data / arguments.test) if arguments.test else dataset
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        trained = train_model(
            dataset,
            Path(folder) / "model",
            arguments.base_model,
            max_pairs=arguments.max_pairs,
            seed=arguments.seed,
            show_progress=True,
        )
        seconds = time.monotonic() - started
        candidate = FineTunedEmbedding.load(trained.folder)
        baseline = FineTunedEmbedding.load(ModelSpec(name=arguments.base_model, max_length=candidate.max_length))
        options = CompareOptions(name=arguments.test or arguments.collection)
        comparison = compare(test, baseline, candidate, options=options)
        forgetting = {}
        if arguments.forgetting:
            other = load_dataset(arguments.data / arguments.forgetting)
            forgetting = {
                "collection": arguments.forgetting,
                "ndcg@10": {
                    "base": exact_ndcg(FineTunedEmbedding.load(arguments.base_model), other),
                    "tuned": exact_ndcg(candidate, other),
                },
            }
            print(forgetting)
    print(comparison)
    result = {
        "kind": arguments.kind,
        "train": arguments.collection,
        "seed": arguments.seed,
        "training_seconds": round(seconds, 1),
        "dev_ndcg@10": trained.dev,
        "recipe": trained.record["recipe"],
        "training": trained.record["training"],
        "max_length": trained.record["max_length"],
        "comparison": comparison.to_dict(),
        "forgetting": forgetting,
        "machine": machine(),
    }
    RESULTS.mkdir(exist_ok=True)
    suffix = (
        ""
        if arguments.kind == "labelled" or arguments.unseen_documents == 0.2
        else f"-new{arguments.unseen_documents:g}"
    )
    name = f"{arguments.kind}-{arguments.collection}{suffix}-seed{arguments.seed}.json"
    (RESULTS / name).write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
