"""An adapter over a frozen model, compared with LlamaIndex's own linear adapter.

    pip install llama-index-embeddings-adapter
    python examples/benchmarks/adapter.py human covidqa scifact tenk-lyft:tenk-uber
    python examples/benchmarks/adapter.py seen covidqa

`human` trains on a collection's own training questions and evaluates on its test questions, which are about unseen
documents. A:B trains on A and evaluates on B. `seen` trains on questions generated from all passages without a model,
and evaluates on the collection's human test questions. LlamaIndex's adapter is trained with the defaults of its engine
(a linear map that starts as the identity, batches of 10 in order, in-batch negatives, AdamW at 2e-5, one epoch). Since
these hardly change it, it is also trained for four epochs at 1e-3. Vectors are computed once (--cache). Results are in
results/adapter.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from llama_index.core.base.embeddings.base import BaseEmbedding
from quality import RESULTS, machine, without_labels

from rag_ft import FineTunedEmbedding, QADataset, compare, load_dataset
from rag_ft.adapters import AdapterRecipe, train_adapter
from rag_ft.embedding import CachedEmbedding
from rag_ft.evaluation import CompareOptions
from rag_ft.evaluation.metrics import HEADLINE

FILE = RESULTS / "adapter.json"


def as_llama_index_does(
    dataset: QADataset, model: CachedEmbedding, folder: Path, epochs: int = 1, rate: float = 2e-5
) -> tuple[BaseEmbedding, float]:
    """Return LlamaIndex's embedding with its adapter, and the seconds of training without embedding."""
    from llama_index.embeddings.adapter import AdapterEmbeddingModel, LinearLayer

    texts = dataset.passage_texts
    train = dataset.require("train")
    queries = torch.tensor(model.query_embeddings([dataset.queries[query].text for query in train]))
    passages = torch.tensor(model.get_text_embedding_batch([texts[next(iter(grades))] for grades in train.values()]))
    start = time.perf_counter()
    layer = LinearLayer(queries.shape[1], queries.shape[1])
    optimizer = torch.optim.AdamW(layer.parameters(), lr=rate)
    steps = epochs * -(-len(queries) // 10)
    warmup = int(steps * 0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / max(1, warmup), (steps - step) / max(1, steps - warmup))
    )
    for _ in range(epochs):
        for first in range(0, len(queries), 10):
            anchors = torch.nn.functional.normalize(layer(queries[first : first + 10]), dim=1)
            positives = torch.nn.functional.normalize(passages[first : first + 10], dim=1)
            loss = torch.nn.functional.cross_entropy(20 * anchors @ positives.T, torch.arange(len(anchors)))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    seconds = time.perf_counter() - start
    layer.save(str(folder))
    return AdapterEmbeddingModel(model, str(folder), device="cpu"), seconds


def run(questions: str, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    train_name, _, test_name = name.partition(":")
    dataset = load_dataset(arguments.data / train_name)
    if questions == "seen":
        dataset = without_labels(dataset, 0.0, arguments.seed)
    test = load_dataset(arguments.data / test_name) if test_name else dataset
    model = CachedEmbedding(FineTunedEmbedding.load(arguments.base_model), arguments.cache)
    with tempfile.TemporaryDirectory() as folder:
        ours = train_adapter(
            dataset, model, Path(folder) / "ours", recipe=AdapterRecipe(seed=arguments.seed), cache=arguments.cache,
            show_progress=True,
        )  # fmt: skip
        theirs, seconds = as_llama_index_does(dataset, model, Path(folder) / "theirs")
        longer, more = as_llama_index_does(dataset, model, Path(folder) / "longer", epochs=4, rate=1e-3)
        candidates = {"rag_ft": ours.embed_model(model), "llama_index": theirs, "llama_index_longer": longer}
        comparison = compare(test, model, list(candidates.values()), options=CompareOptions(name=name, hybrids=False))
    roles = list(comparison.differences)
    training = ours.record["training"]
    return {
        "trained_on": f"{train_name}, {'questions made of all passages' if questions == 'seen' else 'human questions'}",
        "asked": test_name or train_name,
        "questions": len(test.require("test")),
        "pairs": training["pairs"],
        "base": round(comparison.models["baseline"][HEADLINE], 4),
        "seconds": dict(zip(candidates, (training["seconds"], round(seconds, 1), round(more, 1)), strict=True)),
        "adapters": {
            each: {
                HEADLINE: round(comparison.models[role][HEADLINE], 4),
                "difference": str(comparison.differences[role][HEADLINE]),
                "verdict": comparison.verdicts[role],
            }
            for each, role in zip(candidates, roles, strict=True)
        },
        "chosen": {key: ours.record["adapter"][key] for key in ("kind", "strength", "share")},
        "dev": training["dev_ndcg@10"],
        "refused": training["refused"],
        "level": training["level"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", choices=["human", "seen"])
    parser.add_argument("collections", nargs="+")
    parser.add_argument("--base-model", default="local")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("/tmp/rag_ft-vectors.sqlite"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    results = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    # The keys of older results call documents that training sees "known".
    kind = "known" if arguments.questions == "seen" else arguments.questions
    for name in arguments.collections:
        seeded = f" seed {arguments.seed}" if arguments.seed else ""
        results[f"{kind} {name}{seeded}"] = row = run(arguments.questions, name, arguments)
        print(name, json.dumps(row, indent=2), flush=True)
        FILE.write_text(json.dumps(results | {"machine": machine()}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
