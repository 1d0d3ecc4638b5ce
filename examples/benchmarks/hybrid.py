"""The embedding and BM25 mixed: quality on human questions over seeds, and what a question costs on many passages.

    python examples/benchmarks/hybrid.py quality covidqa scifact tenk-lyft:tenk-uber --models MODELS --seeds 0 1 2
    python examples/benchmarks/hybrid.py latency --passages 100000

MODELS holds what `training.py --keep MODELS` kept, as COLLECTION-SEED. The mix is learned on the dev questions of the
collection that was trained on; the test questions are looked at once. A line of results/hybrid.jsonl for each model;
with no collection, the table of all lines is printed. `latency` writes results/hybrid-latency.json.
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
        name, _, tested = collection.partition(":")
        for seed in arguments.seeds:
            dataset = load_dataset(arguments.data / name)
            tuned = FineTunedEmbedding.load(arguments.models / f"{name}-{seed}")
            base = FineTunedEmbedding.load(ModelSpec(name="local", max_length=tuned.max_length))
            ranks = Hybrid(tuned, Fusion())
            if tested:
                test = load_dataset(arguments.data / tested)
                mixes = [Hybrid(model, learn_fusion_of(dataset, model, seed=seed).fusion) for model in (base, tuned)]
                options = CompareOptions(hybrids=False)
                found = compare(test, base, [tuned, ranks, *mixes], options=options, seed=seed, show_progress=True)
                named = {"hybrid-baseline": "candidate-3", "hybrid-candidate": "candidate-4"}
            else:
                test = dataset
                found = compare(test, base, [tuned, ranks], seed=seed, show_progress=True)
                named = {}
            values = {role: found.per_query[named.get(role, role)][HEADLINE] for role in ROLES}
            hits = {role: found.per_query[named.get(role, role)]["hit_rate@5"] for role in ROLES}
            groups, _ = resampling_groups(test, "test")
            recipe = tuned.record.get("recipe", {})
            row = {
                "collection": collection,
                "seed": seed,
                "settings": {name: recipe[name] for name in ("mine", "focus") if recipe.get(name)},
                "ndcg@10": {role: round(float(each.mean()), 4) for role, each in values.items()},
                "hit_rate@5": {role: round(float(each.mean()), 4) for role, each in hits.items()},
                "hybrid_tuned_against": {
                    role: str(paired_bootstrap(values["hybrid-candidate"] - values[role], groups))
                    for role in ("bm25", "baseline", "candidate", "candidate-2", "hybrid-baseline")
                },
                "fusion": found.details[named.get("hybrid-candidate", "hybrid-candidate")]["fusion"],
                "recommendation": found.recommendation.to_dict() if found.recommendation else None,
            }
            print(json.dumps(row, indent=1), flush=True)
            with FILE.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row | {"machine": machine()}) + "\n")
    print(table())


def table() -> str:
    """All results as a Markdown table: the mean over seeds, and the range."""
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


class Drawn(BaseEmbedding):
    """384 numbers from the words of a text: the embedding's own time is not what is measured."""

    @classmethod
    def class_name(cls) -> str:
        return "Drawn"

    def _get_text_embedding(self, text: str) -> list[float]:
        return np.random.default_rng(sum(map(ord, text))).normal(size=384).astype(np.float32).tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def passages(count: int) -> Iterator[TextNode]:
    """Passages of 120 words whose frequencies fall as those of a language do."""
    draw = np.random.default_rng(0)
    for number in range(count):
        words = np.minimum(draw.zipf(1.3, size=120), 200_000)
        yield TextNode(id_=f"passage-{number}", text=" ".join(f"w{word}" for word in words))


def latency(arguments: argparse.Namespace) -> None:
    process, draw = psutil.Process(), np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        index = rebuild_index(
            passages(arguments.passages), Drawn(model_name="drawn"), folder, "many", show_progress=True
        )
        before = process.memory_info().rss
        began = time.perf_counter()
        retriever = HybridRetriever(index, Fusion("zscore", 0.4), similarity_top_k=10)
        words = retriever.keywords.bm25()
        first = time.perf_counter() - began
        memory = (process.memory_info().rss - before) / 1e6
        began = time.perf_counter()
        again = HybridRetriever(index, Fusion("zscore", 0.4), similarity_top_k=10)
        again.keywords.bm25()
        reopened = time.perf_counter() - began
        taken = []
        for _ in range(500):
            question = " ".join(f"w{word}" for word in np.minimum(draw.zipf(1.3, size=10), 200_000))
            vector = draw.normal(size=384).astype(np.float32).tolist()
            bundle = QueryBundle(question, embedding=retriever.embed_model.get_query_embedding(question) or vector)
            began = time.perf_counter()
            retriever.retrieve(bundle)
            taken.append(1000 * (time.perf_counter() - began))
        index.insert_nodes([TextNode(id_="new", text="w1 heliograph")])
        began = time.perf_counter()
        retriever.keywords.refresh()
        followed = time.perf_counter() - began
    found = {
        "passages": arguments.passages,
        "words_in_a_passage": 120,
        "milliseconds_p50": round(float(np.percentile(taken, 50)), 1),
        "milliseconds_p95": round(float(np.percentile(taken, 95)), 1),
        "word_index_megabytes": round(words.megabytes),
        "process_grew_megabytes": round(memory),
        "word_index_seconds": {
            "first": round(first, 1),
            "reopened": round(reopened, 1),
            "one insert": round(followed, 1),
        },
        "machine": machine(),
    }
    print(json.dumps(found, indent=2))
    (RESULTS / "hybrid-latency.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    good = commands.add_parser("quality")
    good.add_argument("collections", nargs="*", help="TRAIN, or TRAIN:TEST")
    good.add_argument("--models", type=Path)
    good.add_argument("--seeds", nargs="+", type=int, default=[0])
    good.add_argument("--data", type=Path, default=Path("../shared/data"))
    good.set_defaults(act=quality)
    fast = commands.add_parser("latency")
    fast.add_argument("--passages", type=int, default=100_000)
    fast.set_defaults(act=latency)
    arguments = parser.parse_args()
    arguments.act(arguments)


if __name__ == "__main__":
    main()
