"""A comparison of 10,000 questions over 100,000 passages, embeddings given, beside a loop over a LlamaIndex retriever.

    python examples/benchmarks/comparing.py --passages 100000 --questions 10000

Two embeddings, BM25, and both mixes are compared; the loop asks one embedding's index, and only for some of the
questions. Writes results/comparing.json.
"""

from __future__ import annotations

import argparse
import json
import threading
import time

import chromadb
import numpy as np
import psutil
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode
from quality import RESULTS, machine

from rag_ft import Passage, QADataset, Query, compare, rebuild_index

WORDS = 30_000


class Given(BaseEmbedding):
    """Vectors that are there already: of passages, and of questions near their passage."""

    @classmethod
    def class_name(cls) -> str:
        return "Given"

    def _vector(self, text: str, noise: float) -> list[float]:
        name = text.split(" ", 1)[0].strip("pq")
        number = int(name) if name.isdigit() else 0
        draw = np.random.default_rng(number)
        vector = draw.normal(size=384)
        spread = np.random.default_rng(number + sum(map(ord, self.model_name))).normal(size=384)
        return (vector + noise * spread).astype(np.float32).tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vector(text, 0.0)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vector(query, 4.0 if self.model_name == "before" else 3.5)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


def dataset(passages: int, questions: int) -> QADataset:
    """Passages of 80 words with a language's frequencies (no stop words), questions of 8 words of their passage."""
    draw = np.random.default_rng(0)
    words = [np.minimum(draw.zipf(1.2, size=80) + 50, WORDS) for _ in range(passages)]
    texts = {f"p{n}": f"p{n} " + " ".join(f"w{word}" for word in row) for n, row in enumerate(words)}
    asked = draw.choice(passages, questions + 200, replace=False)
    queries = {
        f"q{n}": Query(f"q{n}", f"q{n} " + " ".join(f"w{word}" for word in draw.choice(words[n], 8))) for n in asked
    }
    relevant = {f"q{n}": {f"p{n}": 1} for n in asked}
    names = list(relevant)
    return QADataset(
        {key: Passage(key, text, "", f"d{int(key[1:]) // 20}") for key, text in texts.items()}, queries,
        {"dev": {name: relevant[name] for name in names[:200]}, "test": {name: relevant[name] for name in names[200:]}},
    )  # fmt: skip


class Memory(threading.Thread):
    """The most that the process takes while something runs, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self._stopped = 0.0, threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(0.1):
            self.most = max(self.most, psutil.Process().memory_info().rss / 1e6)

    def stop(self) -> float:
        self._stopped.set()
        self.join()
        return self.most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--looped", type=int, default=200, help="questions that the loop asks")
    arguments = parser.parse_args()
    asked = dataset(arguments.passages, arguments.questions)
    texts = asked.passage_texts
    before, after = Given(model_name="before"), Given(model_name="after")
    # What an embedding takes is not what is measured: its calls are timed by themselves and taken off.
    began = time.perf_counter()
    before.get_text_embedding_batch(list(texts.values()))
    [before.get_query_embedding(query.text) for query in asked.queries.values()]
    embedding = 2 * (time.perf_counter() - began)
    memory = Memory()
    memory.start()
    began = time.perf_counter()
    found = compare(asked, before, after, show_progress=True)
    seconds = time.perf_counter() - began
    most = memory.stop()
    print(found)
    client = chromadb.EphemeralClient()
    index = rebuild_index([TextNode(id_=key, text=text) for key, text in texts.items()], before, client, "loop")
    retriever = index.as_retriever(similarity_top_k=100)
    queries = [asked.queries[query].text for query in list(asked.qrels["test"])[: arguments.looped]]
    began = time.perf_counter()
    for query in queries:
        retriever.retrieve(query)
    loop = (time.perf_counter() - began) / len(queries) * arguments.questions
    result = {
        "passages": arguments.passages,
        "questions": arguments.questions,
        "seconds_without_embedding": round(seconds - embedding, 1),
        "seconds_embedding": round(embedding, 1),
        "memory_megabytes": round(most),
        "loop_seconds_one_side": round(loop, 1),
        "times_as_fast_as_two_loops": round(2 * loop / (seconds - embedding), 1),
        "details": found.details,
        "machine": machine(),
    }
    print(json.dumps(result, indent=2))
    (RESULTS / "comparing.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
