"""A/B test under load: a hundred concurrent clients of `ABQueryEngine`, while one variant fails half of the time.

    python examples/benchmarks/ab_load.py --seconds 60

Two processes with fifty clients each ask questions and vote, with one vote log for all. Half of the clients are
threads, half are tasks of an event loop. Each client becomes another user after ten questions. The variants are
LlamaIndex query engines that take 50 ms and more. Variant b fails half of the time, at once or after a wait. The vote
log then shows whether every client was served, every vote is there, each user saw one variant, and each variant got its
fraction of the users. Results are in results/ab-load.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import random
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import Response
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from quality import RESULTS, machine

from rag_ft.ab import ABQueryEngine, ab_session
from rag_ft.ab.sessions import variant_of
from rag_ft.feedback import Votes
from rag_ft.feedback.shown_query import shown_queries

PASSAGES = [
    NodeWithScore(node=TextNode(id_=f"p{n}", text=f"Passage {n} of the handbook."), score=1.0) for n in range(5)
]
QUESTIONS_PER_USER = 10
WAIT_SECONDS = 0.05


class Variant(BaseQueryEngine):
    """A query engine that answers after a wait, or fails at once or after the wait."""

    def __init__(self, name: str, failure_rate: float = 0.0) -> None:
        super().__init__(callback_manager=None)
        self.name, self.failure_rate = name, failure_rate

    def _get_prompt_modules(self) -> dict[str, Any]:
        return {}

    def _query(self, query_bundle: QueryBundle) -> Response:
        if random.random() < self.failure_rate:
            time.sleep(random.choice((0, WAIT_SECONDS)))
            raise ConnectionError("the server is down")
        time.sleep(WAIT_SECONDS * random.uniform(1, 2))
        return Response(f"{self.name} says so.", list(PASSAGES))

    async def _aquery(self, query_bundle: QueryBundle) -> Response:
        if random.random() < self.failure_rate:
            await asyncio.sleep(random.choice((0, WAIT_SECONDS)))
            raise ConnectionError("the server is down")
        await asyncio.sleep(WAIT_SECONDS * random.uniform(1, 2))
        return Response(f"{self.name} says so.", list(PASSAGES))


def clients(file: str, process: int, count: int, seconds: float, results: Any) -> None:
    """Run the clients of one process, and put what they saw into the queue."""
    engine = ABQueryEngine(Variant("Old"), Variant("New", failure_rate=0.5), votes=Votes(file))
    end = time.monotonic() + seconds
    seconds_each: list[float] = []
    unserved: list[str] = []
    votes: dict[str, str] = {}

    def user(client: int, number: int) -> str:
        return f"user-{process}-{client}-{number // QUESTIONS_PER_USER}"

    def thread(client: int) -> None:
        number = 0
        while time.monotonic() < end:
            start = time.perf_counter()
            try:
                with ab_session(user(client, number)):
                    metadata = engine.query("Who says so?").metadata
            except Exception as error:
                unserved.append(repr(error))
                continue
            seconds_each.append(time.perf_counter() - start)
            engine.vote(metadata["ab_query"], metadata["ab_side"])
            votes[metadata["ab_query"]] = metadata["ab_side"]
            number += 1

    async def task(client: int) -> None:
        number = 0
        while time.monotonic() < end:
            start = time.perf_counter()
            try:
                with ab_session(user(client, number)):
                    metadata = (await engine.aquery("Who says so?")).metadata
            except Exception as error:
                unserved.append(repr(error))
                continue
            seconds_each.append(time.perf_counter() - start)
            await asyncio.to_thread(engine.vote, metadata["ab_query"], metadata["ab_side"])
            votes[metadata["ab_query"]] = metadata["ab_side"]
            number += 1

    async def tasks() -> None:
        await asyncio.gather(*(task(client) for client in range(0, count, 2)))

    threads = [threading.Thread(target=thread, args=(client,)) for client in range(1, count, 2)]
    threads.append(threading.Thread(target=asyncio.run, args=(tasks(),)))
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    results.put((seconds_each, unserved, votes))


def measure(seconds: float, count: int, processes: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "votes.jsonl")
        context = multiprocessing.get_context("spawn")
        results = context.Queue()
        per_process = count // processes
        running = [
            context.Process(target=clients, args=(file, n, per_process, seconds, results)) for n in range(processes)
        ]
        for process in running:
            process.start()
        parts = [results.get() for _ in running]
        for process in running:
            process.join()
        shown_by_id = shown_queries(Votes(file).rows())
        size = Path(file).stat().st_size
    times = np.array([took for each, _, _ in parts for took in each])
    unserved = [reason for _, reasons, _ in parts for reason in reasons]
    votes = {query: variant for _, _, part in parts for query, variant in part.items()}
    users = Counter(variant_of(session) for session in {shown.row["session"] for shown in shown_by_id.values()})
    other_variant = sum(
        shown.row["side"] != variant_of(shown.row["session"]) and not shown.row["failed"]
        for shown in shown_by_id.values()
    )
    reassigned = sum(shown.assigned != variant_of(shown.row["session"]) for shown in shown_by_id.values())
    of_b = [shown for shown in shown_by_id.values() if shown.assigned == "b"]
    total = sum(users.values())
    return {
        "clients": count,
        "processes": processes,
        "seconds": seconds,
        "questions_served": len(times),
        "questions_not_served": len(unserved),
        "first_reason": unserved[:1],
        "votes_given": len(votes),
        "votes_in_the_file": sum(shown.vote is not None for shown in shown_by_id.values()),
        "votes_that_differ": sum(shown_by_id[query].vote != variant for query, variant in votes.items()),
        "users": total,
        "users_of_b": round(users["b"] / total, 4),
        "users_of_b_standard_error": round(0.5 / math.sqrt(total), 4),
        "questions_that_left_their_side_without_a_failure": other_variant,
        "questions_that_were_dealt_anew": reassigned,
        "failures_of_b": round(sum("b" in shown.failed for shown in of_b) / len(of_b), 3),
        "failures_of_a": sum("a" in shown.failed for shown in shown_by_id.values()),
        "questions_a_second": round(len(times) / seconds, 1),
        "milliseconds": {str(q): round(1000 * float(np.quantile(times, q)), 1) for q in (0.5, 0.95, 0.99)},
        "megabytes_of_votes": round(size / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    result = {"machine": machine(), **measure(arguments.seconds, arguments.clients, arguments.processes)}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "ab-load.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
