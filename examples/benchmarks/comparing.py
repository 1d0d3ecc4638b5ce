"""A comparison of 10,000 questions over 100,000 passages, embeddings given, beside loops over LlamaIndex retrievers.

    python examples/benchmarks/comparing.py --passages 100000 --questions 10000

Two embeddings and BM25 are compared, then also both embeddings mixed with BM25. The loops ask the same retrievers
question by question, some of the questions, without building their indexes. Writes results/comparing.json.
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
        spread = np.random.default_rng([number, sum(map(ord, self.model_name))]).normal(size=384)
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


def embedding_seconds(model: Given, texts: list[str], questions: list[str]) -> float:
    """What the embedding itself takes: it is not what is measured."""
    began = time.perf_counter()
    for start in range(0, len(texts), 8_192):
        model.get_text_embedding_batch(texts[start : start + 8_192])
    for question in questions:
        model.get_query_embedding(question)
    return time.perf_counter() - began


def timed(asked: QADataset, before: Given, after: Given, hybrids: bool, embedding: float) -> dict[str, object]:
    """Seconds and memory of one comparison."""
    memory = Memory()
    memory.start()
    began = time.perf_counter()
    found = compare(asked, before, after, options=CompareOptions(hybrids=hybrids), show_progress=True)
    seconds = time.perf_counter() - began
    print(found)
    return {
        "seconds_without_embedding": round(seconds - 2 * embedding, 1),
        "seconds_embedding": round(2 * embedding, 1),
        "memory_megabytes": round(memory.stop()),
        "retrievers": found.details,
    }


def loop(retriever: BaseRetriever, questions: list[str]) -> float:
    """Seconds for one question."""
    began = time.perf_counter()
    for question in questions:
        retriever.retrieve(question)
    return (time.perf_counter() - began) / len(questions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--looped", type=int, default=200, help="questions that each loop asks")
    arguments = parser.parse_args()
    asked = dataset(arguments.passages, arguments.questions)
    texts = asked.passage_texts
    before, after = Given(model_name="before"), Given(model_name="after")
    embedding = embedding_seconds(before, list(texts.values()), [query.text for query in asked.queries.values()])
    result: dict[str, object] = {"passages": arguments.passages, "questions": arguments.questions}
    five = timed(asked, before, after, True, embedding)
    three = timed(asked, before, after, False, embedding)
    nodes = [TextNode(id_=key, text=text) for key, text in texts.items()]
    index = rebuild_index(nodes, before, chromadb.EphemeralClient(), "loop")
    questions = [asked.queries[query].text for query in list(asked.qrels["test"])[: arguments.looped]]
    hybrid = HybridRetriever(index, Fusion("zscore", 0.5), similarity_top_k=100)
    hybrid.keywords.bm25()  # made at the first question else
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
