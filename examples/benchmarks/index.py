"""The index: speed and exactness of a rebuild, latency of a query, and a million passages.

    python examples/benchmarks/index.py speed tenk-uber scifact
    python examples/benchmarks/index.py scale --passages 1000000

`speed` builds an index of each collection with LlamaIndex's defaults (`HuggingFaceEmbedding` and `VectorStoreIndex`
over Chroma) and with `rebuild_index`, and then measures the exported backends. `scale` fills a Chroma server in the
same way with vectors that cost nothing (64 random numbers), and writes such vectors with Chroma's client alone for
comparison. Results are in results/index-*.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import psutil
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode
from quality import RESULTS, machine

from rag_ft import FineTunedEmbedding, QADataset, load_dataset, rebuild_index
from rag_ft.embedding.loading import local_model_folder
from rag_ft.evaluation.fidelity import measure_fidelity
from rag_ft.index.nodes import nodes_from_texts


def peak_bf16(seconds: float = 2.0) -> float:
    """Return the peak GFLOP/s of bfloat16 products with the shapes of the model."""
    import torch

    best = 0.0
    for rows in (2048, 8192):
        one, other = torch.randn(rows, 1536).bfloat16(), torch.randn(1536, 1536).bfloat16()
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            one @ other
            count += 1
        best = max(best, 2 * rows * 1536 * 1536 * count / (time.perf_counter() - start) / 1e9)
    return best


def flops(model: FineTunedEmbedding, texts: list[str]) -> float:
    """Return the floating-point operations for some texts, without padding."""
    transformer = model.sentence_transformer
    config = transformer[0].auto_model.config
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    max_length = transformer.max_seq_length
    lengths = np.array([min(len(ids), max_length) for ids in transformer.tokenizer(texts)["input_ids"]], dtype=float)
    dense = lengths.sum() * 2 * (4 * width * width + 2 * width * inner) * layers
    attention = (lengths**2).sum() * 4 * width * layers
    return float(dense + attention)


def nodes_of(dataset: QADataset) -> list[TextNode]:
    return nodes_from_texts(dataset.passage_texts, {key: p.document for key, p in dataset.passages.items()})


def as_llama_index_does(nodes: list[TextNode]) -> tuple[float, BaseEmbedding]:
    """Return the seconds to build an index with LlamaIndex's defaults, and its embedding."""
    from llama_index.core import StorageContext, VectorStoreIndex
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding
    from llama_index.vector_stores.chroma import ChromaVectorStore

    model = HuggingFaceEmbedding(str(local_model_folder()), device="cpu")
    model.get_text_embedding("warm up")
    with tempfile.TemporaryDirectory() as folder:
        collection = chromadb.PersistentClient(folder).create_collection("theirs")
        storage = StorageContext.from_defaults(vector_store=ChromaVectorStore(collection))
        start = time.perf_counter()
        VectorStoreIndex(nodes, storage_context=storage, embed_model=model)
        return time.perf_counter() - start, model


def latency(model: BaseEmbedding, queries: list[str]) -> dict[str, float]:
    """Return the milliseconds for one query, at the median and the 95th percentile."""
    model.get_query_embedding("warm up")
    milliseconds = []
    for query in queries:
        start = time.perf_counter()
        model.get_query_embedding(query)
        milliseconds.append(1000 * (time.perf_counter() - start))
    return {
        "p50": round(float(np.quantile(milliseconds, 0.5)), 2),
        "p95": round(float(np.quantile(milliseconds, 0.95)), 2),
    }


def speed(arguments: argparse.Namespace) -> None:
    found: dict[str, Any] = {"peak_bf16_gflops": round(peak_bf16())}
    for name in arguments.collections:
        dataset = load_dataset(arguments.data / name)
        nodes = nodes_of(dataset)
        texts = list(dataset.passage_texts.values())
        queries = [dataset.queries[query].text for query in dataset.require("test")][:200]
        ours = FineTunedEmbedding.load("local")
        ours.get_text_embedding("warm up")
        row: dict[str, Any] = {"passages": len(nodes)}
        seconds, theirs = as_llama_index_does(nodes)
        row["llama_index_seconds"] = round(seconds, 1)
        row["llama_index_query_ms"] = latency(theirs, queries)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            rebuild_index(nodes, ours, folder, name)
            took = time.perf_counter() - start
        start = time.perf_counter()
        ours.get_text_embedding_batch(texts)
        encoding = time.perf_counter() - start
        row |= {
            "rag_ft_seconds": round(took, 1),
            "times_faster": round(seconds / took, 2),
            "encoding_seconds": round(encoding, 1),
            "share_of_peak": round(flops(ours, texts) / encoding / 1e9 / found["peak_bf16_gflops"], 3),
            "query_ms": latency(ours, queries),
        }
        exact = FineTunedEmbedding.load("local", precision="fp32")
        row["bf16"] = str(measure_fidelity(exact, ours, dataset, "test"))
        for backend, int8 in arguments.backends:
            variant = FineTunedEmbedding.load(arguments.exported, backend=backend, int8=int8)
            row[backend + " int8" * int8] = str(measure_fidelity(exact, variant, dataset, "test"))
            row[backend + " int8" * int8 + " query_ms"] = latency(variant, queries)
        found[name] = row
        print(name, json.dumps(row, indent=2), flush=True)
    found["machine"] = machine()
    (RESULTS / f"{arguments.name}.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


class RandomEmbedding(BaseEmbedding):
    """An embedding that costs nothing: 64 random numbers, seeded by the text."""

    @classmethod
    def class_name(cls) -> str:
        return "RandomEmbedding"

    def _get_text_embedding(self, text: str) -> list[float]:
        return np.random.default_rng(abs(hash(text))).normal(size=64).astype(np.float32).tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def short_passages(count: int, memory: list[float]) -> Iterator[TextNode]:
    """Yield short passages, and note the memory of the process in between."""
    process = psutil.Process()
    for number in range(count):
        if number % 10_000 == 0:
            memory.append(process.memory_info().rss / 1e6)
        yield TextNode(id_=f"passage-{number}", text=f"Passage {number} says what form {number * 7919 % count} is for.")


def scale(arguments: argparse.Namespace) -> None:
    import sys

    sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
    from fakes.chroma_server import chroma_server

    with tempfile.TemporaryDirectory() as folder, chroma_server(Path(folder)) as address:
        memory: list[float] = []
        start = time.perf_counter()
        rebuild_index(short_passages(arguments.passages, memory), RandomEmbedding(model_name="drawn"), address, "many")
        seconds = time.perf_counter() - start
        host, port = address.removeprefix("http://").split(":")
        client = chromadb.HttpClient(host=host, port=int(port))
        plain = client.create_collection("plain", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None)
        count = min(arguments.passages, 100_000)
        generator = np.random.default_rng(0)
        start = time.perf_counter()
        for first in range(0, count, 2048):
            numbers = range(first, min(first + 2048, count))
            plain.add(
                ids=[f"passage-{number}" for number in numbers],
                embeddings=generator.normal(size=(len(numbers), 64)).astype(np.float32),
                documents=[f"Passage {number} says what form {number} is for." for number in numbers],
            )
        alone = time.perf_counter() - start
    memory_before = memory[min(5, len(memory) - 1)]
    found = {
        "passages": arguments.passages,
        "seconds": round(seconds, 1),
        "inserts_per_second": round(arguments.passages / seconds),
        "chroma_alone_inserts_per_second": f"{count / alone:.0f} (the first {count:,}, without metadata)",
        "memory_mb_after_50000": round(memory_before),
        "memory_mb_growth_after_that": round(max(memory) - memory_before),
        "machine": machine(),
    }
    print(json.dumps(found, indent=2))
    (RESULTS / "index-scale.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    speed_parser = commands.add_parser("speed")
    speed_parser.add_argument("collections", nargs="+")
    speed_parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    speed_parser.add_argument("--name", default="index-speed", help="name of the results file")
    speed_parser.add_argument("--exported", type=Path, help="a model folder with exported backends")
    speed_parser.add_argument(
        "--backends", nargs="*", default=[], type=lambda name: (name.removesuffix("-int8"), name.endswith("-int8")),
        help="onnx, onnx-int8, openvino",
    )  # fmt: skip
    speed_parser.set_defaults(act=speed)
    scale_parser = commands.add_parser("scale")
    scale_parser.add_argument("--passages", type=int, default=1_000_000)
    scale_parser.set_defaults(act=scale)
    arguments = parser.parse_args()
    arguments.act(arguments)


if __name__ == "__main__":
    main()
