"""A comparison of 10,000 questions over 100,000 passages with given vectors, beside loops over LlamaIndex retrievers.

    python examples/benchmarks/comparing.py --passages 100000 --questions 10000

It compares two embeddings and BM25, and then also the hybrids of both embeddings with BM25. The loops send some of the
questions to the same retrievers one by one, without building their indexes. Results are in results/comparing.json.
"""

from __future__ import annotations

import argparse
import json
import threading
import time

import chromadb
import numpy as np
import psutil
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode
from quality import RESULTS, machine

from rag_ft import HybridRetriever, Passage, QADataset, Query, compare, rebuild_index
from rag_ft.evaluation import CompareOptions
from rag_ft.retrieval import Fusion
from rag_ft.retrieval.bm25_retriever import BM25Retriever

VOCABULARY_SIZE = 30_000


class Given(BaseEmbedding):
    """An embedding that costs nothing: drawn vectors of passages, and of questions near their passage."""

    @classmethod
    def class_name(cls) -> str:
        return "Given"

    def _vector(self, text: str, noise: float) -> list[float]:
        name = text.split(" ", 1)[0].strip("pq")
        number = int(name) if name.isdigit() else 0
        vector = np.random.default_rng(number).normal(size=384)
        spread = np.random.default_rng([number, sum(map(ord, self.model_name))]).normal(size=384)
        return (vector + noise * spread).astype(np.float32).tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vector(text, 0.0)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vector(query, 4.0 if self.model_name == "before" else 3.5)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


def dataset(passages: int, questions: int) -> QADataset:
    """Make passages of 80 words with a language's frequencies (no stop words), and questions of 8 of their words."""
    rng = np.random.default_rng(0)
    words = [np.minimum(rng.zipf(1.2, size=80) + 50, VOCABULARY_SIZE) for _ in range(passages)]
    texts = {f"p{n}": f"p{n} " + " ".join(f"w{word}" for word in row) for n, row in enumerate(words)}
    numbers = rng.choice(passages, questions + 200, replace=False)
    queries = {
        f"q{n}": Query(f"q{n}", f"q{n} " + " ".join(f"w{word}" for word in rng.choice(words[n], 8))) for n in numbers
    }
    relevant = {f"q{n}": {f"p{n}": 1} for n in numbers}
    names = list(relevant)
    return QADataset(
        {key: Passage(key, text, "", f"d{int(key[1:]) // 20}") for key, text in texts.items()}, queries,
        {"dev": {name: relevant[name] for name in names[:200]}, "test": {name: relevant[name] for name in names[200:]}},
    )  # fmt: skip


class Memory(threading.Thread):
    """Measures the peak memory of the process while something runs, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self._stopped = 0.0, threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(0.1):
            self.peak = max(self.peak, psutil.Process().memory_info().rss / 1e6)

    def stop(self) -> float:
        self._stopped.set()
        self.join()
        return self.peak


def embedding_seconds(model: Given, texts: list[str], questions: list[str]) -> float:
    """Return the seconds of the embedding itself, which are not measured."""
    start = time.perf_counter()
    for first in range(0, len(texts), 8_192):
        model.get_text_embedding_batch(texts[first : first + 8_192])
    for question in questions:
        model.get_query_embedding(question)
    return time.perf_counter() - start


def timed(data: QADataset, before: Given, after: Given, hybrids: bool, embedding: float) -> dict[str, object]:
    """Return the seconds and memory of one comparison."""
    memory = Memory()
    memory.start()
    start = time.perf_counter()
    comparison = compare(data, before, after, options=CompareOptions(hybrids=hybrids), show_progress=True)
    seconds = time.perf_counter() - start
    print(comparison)
    return {
        "seconds_without_embedding": round(seconds - 2 * embedding, 1),
        "seconds_embedding": round(2 * embedding, 1),
        "memory_megabytes": round(memory.stop()),
        "retrievers": comparison.details,
    }


def loop(retriever: BaseRetriever, questions: list[str]) -> float:
    """Return the seconds for one question."""
    start = time.perf_counter()
    for question in questions:
        retriever.retrieve(question)
    return (time.perf_counter() - start) / len(questions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--looped", type=int, default=200, help="number of questions in each loop")
    arguments = parser.parse_args()
    data = dataset(arguments.passages, arguments.questions)
    texts = data.passage_texts
    before, after = Given(model_name="before"), Given(model_name="after")
    embedding = embedding_seconds(before, list(texts.values()), [query.text for query in data.queries.values()])
    result: dict[str, object] = {"passages": arguments.passages, "questions": arguments.questions}
    five = timed(data, before, after, True, embedding)
    three = timed(data, before, after, False, embedding)
    nodes = [TextNode(id_=key, text=text) for key, text in texts.items()]
    index = rebuild_index(nodes, before, chromadb.EphemeralClient(), "loop")
    questions = [data.queries[query].text for query in list(data.qrels["test"])[: arguments.looped]]
    hybrid = HybridRetriever(index, Fusion("zscore", 0.5), similarity_top_k=100)
    hybrid.keywords.bm25()  # else the first question would build it
    each = {
        "embedding": loop(index.as_retriever(similarity_top_k=100), questions),
        "bm25": loop(BM25Retriever(nodes, similarity_top_k=100), questions),
        "hybrid": loop(hybrid, questions),
    }
    dense = 2 * each["embedding"] * arguments.questions
    words, mixed = each["bm25"] * arguments.questions, 2 * each["hybrid"] * arguments.questions
    result |= {
        "two_embeddings_and_bm25": three,
        "and_both_mixed_with_bm25": five,
        "loop_milliseconds_a_question": {name: round(1000 * seconds, 1) for name, seconds in each.items()},
        "times_as_fast_as_loops_over_the_same": {
            "two_embeddings_and_bm25": round((dense + words) / float(str(three["seconds_without_embedding"])), 1),
            "and_both_mixed_with_bm25": round(
                (dense + words + mixed) / float(str(five["seconds_without_embedding"])), 1
            ),
        },
        "machine": machine(),
    }
    print(json.dumps(result, indent=2))
    (RESULTS / "comparing.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
