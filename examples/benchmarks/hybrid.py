"""Hybrids of an embedding and BM25: their quality on human questions, and the latency of a query on many passages.

    python examples/benchmarks/hybrid.py quality covidqa scifact tenk-lyft:tenk-uber --models MODELS --seeds 0 1 2
    python examples/benchmarks/hybrid.py latency --passages 100000

MODELS is the folder that `training.py --keep MODELS` wrote, with models called COLLECTION-SEED. The fusion is learned
on the dev questions of the collection that the model was trained on, and the test questions are used once. Each model
adds a line to results/hybrid.jsonl. Without a collection, the script prints the table of all lines. `latency` writes
results/hybrid-latency.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import numpy as np
import psutil
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import QueryBundle, TextNode
from quality import RESULTS, machine

from rag_ft import FineTunedEmbedding, HybridRetriever, compare, load_dataset, rebuild_index
from rag_ft.embedding import ModelSpec
from rag_ft.evaluation import CompareOptions, Hybrid, learn_fusion_of
from rag_ft.evaluation.metrics import HEADLINE
from rag_ft.evaluation.resampling import resampling_groups
from rag_ft.evaluation.significance import paired_bootstrap
from rag_ft.retrieval import Fusion

FILE = RESULTS / "hybrid.jsonl"
ROLES = {
    "bm25": "BM25",
    "baseline": "base",
    "candidate": "tuned",
    "candidate-2": "tuned, reciprocal ranks",
    "hybrid-baseline": "hybrid base",
    "hybrid-candidate": "hybrid tuned",
}


def quality(arguments: argparse.Namespace) -> None:
    for collection in arguments.collections:
        name, _, test_name = collection.partition(":")
        for seed in arguments.seeds:
            dataset = load_dataset(arguments.data / name)
            tuned = FineTunedEmbedding.load(arguments.models / f"{name}-{seed}")
            base = FineTunedEmbedding.load(ModelSpec(name="local", max_length=tuned.max_length))
            rrf = Hybrid(tuned, Fusion("rrf"))
            if test_name:
                test = load_dataset(arguments.data / test_name)
                hybrids = [Hybrid(model, learn_fusion_of(dataset, model, seed=seed).fusion) for model in (base, tuned)]
                options = CompareOptions(hybrids=False)
                comparison = compare(test, base, [tuned, rrf, *hybrids], options=options, seed=seed, show_progress=True)
                role_of = {"hybrid-baseline": "candidate-3", "hybrid-candidate": "candidate-4"}
            else:
                test = dataset
                comparison = compare(test, base, [tuned, rrf], seed=seed, show_progress=True)
                role_of = {}
            values = {role: comparison.per_query[role_of.get(role, role)][HEADLINE] for role in ROLES}
            hits = {role: comparison.per_query[role_of.get(role, role)]["hit_rate@5"] for role in ROLES}
            groups, _ = resampling_groups(test, "test")
            recipe = tuned.record.get("recipe", {})
            row = {
                "collection": collection,
                "seed": seed,
                "settings": {name: recipe[name] for name in ("mine",) if recipe.get(name)},
                "ndcg@10": {role: round(float(each.mean()), 4) for role, each in values.items()},
                "hit_rate@5": {role: round(float(each.mean()), 4) for role, each in hits.items()},
                "hybrid_tuned_against": {
                    role: str(paired_bootstrap(values["hybrid-candidate"] - values[role], groups))
                    for role in ("bm25", "baseline", "candidate", "candidate-2", "hybrid-baseline")
                },
                "fusion": comparison.details[role_of.get("hybrid-candidate", "hybrid-candidate")]["fusion"],
                "recommendation": comparison.conclusion.to_dict() if comparison.conclusion else None,
            }
            print(json.dumps(row, indent=1), flush=True)
            with FILE.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row | {"machine": machine()}) + "\n")
    print(table())


def table() -> str:
    """Return all results as a Markdown table with the mean over seeds and the range."""
    rows: dict[str, list[dict]] = defaultdict(list)
    for line in FILE.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        settings = "".join(f", {name} {value}" for name, value in row.get("settings", {}).items())
        rows[row["collection"] + settings].append(row)
    lines = ["| collection | seeds | " + " | ".join(ROLES.values()) + " |", "|---" * (len(ROLES) + 2) + "|"]
    for collection, found in sorted(rows.items()):
        cells = []
        for role in ROLES:
            values = [row["ndcg@10"][role] for row in found]
            spread = f" ({min(values):.3f} to {max(values):.3f})" if max(values) > min(values) else ""
            cells.append(f"{mean(values):.3f}{spread}")
        lines.append(f"| {collection} | {len(found)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


class RandomEmbedding(BaseEmbedding):
    """An embedding that costs nothing: 384 random numbers, seeded by the text."""

    @classmethod
    def class_name(cls) -> str:
        return "RandomEmbedding"

    def _get_text_embedding(self, text: str) -> list[float]:
        return np.random.default_rng(sum(map(ord, text))).normal(size=384).astype(np.float32).tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def passages(count: int) -> Iterator[TextNode]:
    """Yield passages of 120 words with the frequencies of a language."""
    rng = np.random.default_rng(0)
    for number in range(count):
        words = np.minimum(rng.zipf(1.3, size=120), 200_000)
        yield TextNode(id_=f"passage-{number}", text=" ".join(f"w{word}" for word in words))


def latency(arguments: argparse.Namespace) -> None:
    process, rng = psutil.Process(), np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        index = rebuild_index(
            passages(arguments.passages), RandomEmbedding(model_name="drawn"), folder, "many", show_progress=True
        )
        before = process.memory_info().rss
        start = time.perf_counter()
        retriever = HybridRetriever(index, Fusion("zscore", 0.4), similarity_top_k=10)
        words = retriever.keywords.bm25()
        first = time.perf_counter() - start
        memory = (process.memory_info().rss - before) / 1e6
        start = time.perf_counter()
        second = HybridRetriever(index, Fusion("zscore", 0.4), similarity_top_k=10)
        second.keywords.bm25()
        reopened = time.perf_counter() - start
        milliseconds = []
        for _ in range(500):
            question = " ".join(f"w{word}" for word in np.minimum(rng.zipf(1.3, size=10), 200_000))
            vector = rng.normal(size=384).astype(np.float32).tolist()
            bundle = QueryBundle(question, embedding=retriever.embed_model.get_query_embedding(question) or vector)
            start = time.perf_counter()
            retriever.retrieve(bundle)
            milliseconds.append(1000 * (time.perf_counter() - start))
        index.insert_nodes([TextNode(id_="new", text="w1 heliograph")])
        start = time.perf_counter()
        retriever.keywords.refresh()
        refreshed = time.perf_counter() - start
    found = {
        "passages": arguments.passages,
        "words_in_a_passage": 120,
        "milliseconds_p50": round(float(np.percentile(milliseconds, 50)), 1),
        "milliseconds_p95": round(float(np.percentile(milliseconds, 95)), 1),
        "word_index_megabytes": round(words.megabytes),
        "process_grew_megabytes": round(memory),
        "word_index_seconds": {
            "first": round(first, 1),
            "reopened": round(reopened, 1),
            "one insert": round(refreshed, 1),
        },
        "machine": machine(),
    }
    print(json.dumps(found, indent=2))
    (RESULTS / "hybrid-latency.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    quality_parser = commands.add_parser("quality")
    quality_parser.add_argument("collections", nargs="*", help="TRAIN, or TRAIN:TEST")
    quality_parser.add_argument("--models", type=Path)
    quality_parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    quality_parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    quality_parser.set_defaults(act=quality)
    latency_parser = commands.add_parser("latency")
    latency_parser.add_argument("--passages", type=int, default=100_000)
    latency_parser.set_defaults(act=latency)
    arguments = parser.parse_args()
    arguments.act(arguments)


if __name__ == "__main__":
    main()
