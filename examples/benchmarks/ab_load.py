"""A/B under load: a hundred clients at once on `ABQueryEngine`, while one variant fails half of the time.

    python examples/benchmarks/ab_load.py --seconds 60

Two processes with fifty clients each, half of them threads and half of them tasks of an event loop, ask and vote on one
file of votes. Each client is another user after ten questions. The variants are LlamaIndex query engines that take 50 ms
and more; b fails half of the time, at once or after a wait. Counted from the file afterwards: is every client served,
is every vote there, does each user see one variant, does each variant get its fraction of users. Results are in
results/ab-load.json.
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
QUESTIONS_OF_A_USER = 10
WAIT = 0.05


class Variant(BaseQueryEngine):
    """Answers after a wait, or fails: at once, or after the wait."""

    def __init__(self, name: str, fails: float = 0.0) -> None:
        super().__init__(callback_manager=None)
        self.name, self.fails = name, fails

    def _get_prompt_modules(self) -> dict[str, Any]:
        return {}

    def _query(self, query_bundle: QueryBundle) -> Response:
        if random.random() < self.fails:
            time.sleep(random.choice((0, WAIT)))
            raise ConnectionError("the server is down")
        time.sleep(WAIT * random.uniform(1, 2))
        return Response(f"{self.name} says so.", list(PASSAGES))

    async def _aquery(self, query_bundle: QueryBundle) -> Response:
        if random.random() < self.fails:
            await asyncio.sleep(random.choice((0, WAIT)))
            raise ConnectionError("the server is down")
        await asyncio.sleep(WAIT * random.uniform(1, 2))
        return Response(f"{self.name} says so.", list(PASSAGES))


def clients(file: str, process: int, count: int, seconds: float, results: Any) -> None:
    """Fifty clients of one process; what each has seen goes into the queue."""
    engine = ABQueryEngine(Variant("Old"), Variant("New", fails=0.5), votes=Votes(file))
    until = time.monotonic() + seconds
    asked: list[float] = []
    unserved: list[str] = []
    votes: dict[str, str] = {}

    def user(client: int, number: int) -> str:
        return f"user-{process}-{client}-{number // QUESTIONS_OF_A_USER}"

    def thread(client: int) -> None:
        number = 0
        while time.monotonic() < until:
            began = time.perf_counter()
            try:
                with ab_session(user(client, number)):
                    metadata = engine.query("Who says so?").metadata
            except Exception as error:
                unserved.append(repr(error))
                continue
            asked.append(time.perf_counter() - began)
            engine.vote(metadata["ab_query"], metadata["ab_side"])
            votes[metadata["ab_query"]] = metadata["ab_side"]
            number += 1

    async def task(client: int) -> None:
        number = 0
        while time.monotonic() < until:
            began = time.perf_counter()
            try:
                with ab_session(user(client, number)):
                    metadata = (await engine.aquery("Who says so?")).metadata
            except Exception as error:
                unserved.append(repr(error))
                continue
            asked.append(time.perf_counter() - began)
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
    results.put((asked, unserved, votes))


def measure(seconds: float, count: int, processes: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "votes.jsonl")
        context = multiprocessing.get_context("spawn")
        results = context.Queue()
        share = count // processes
        running = [context.Process(target=clients, args=(file, n, share, seconds, results)) for n in range(processes)]
        for process in running:
            process.start()
        parts = [results.get() for _ in running]
        for process in running:
            process.join()
        kept = shown_queries(Votes(file).rows())
        size = Path(file).stat().st_size
    times = np.array([took for asked, _, _ in parts for took in asked])
    unserved = [reason for _, reasons, _ in parts for reason in reasons]
    given = {query: side for _, _, votes in parts for query, side in votes.items()}
    users = Counter(variant_of(session) for session in {shown.row["session"] for shown in kept.values()})
    strayed = sum(
        shown.row["side"] != variant_of(shown.row["session"]) and not shown.row["failed"] for shown in kept.values()
    )
    turned = sum(shown.assigned != variant_of(shown.row["session"]) for shown in kept.values())
    of_b = [shown for shown in kept.values() if shown.assigned == "b"]
    total = sum(users.values())
    return {
        "clients": count,
        "processes": processes,
        "seconds": seconds,
        "questions_served": len(times),
        "questions_not_served": len(unserved),
        "first_reason": unserved[:1],
        "votes_given": len(given),
        "votes_in_the_file": sum(shown.vote is not None for shown in kept.values()),
        "votes_that_differ": sum(kept[query].vote != side for query, side in given.items()),
        "users": total,
        "users_of_b": round(users["b"] / total, 4),
        "users_of_b_standard_error": round(0.5 / math.sqrt(total), 4),
        "questions_that_left_their_side_without_a_failure": strayed,
        "questions_that_were_dealt_anew": turned,
        "failures_of_b": round(sum("b" in shown.failed for shown in of_b) / len(of_b), 3),
        "failures_of_a": sum("a" in shown.failed for shown in kept.values()),
        "questions_a_second": round(len(times) / seconds, 1),
        "milliseconds": {str(share): round(1000 * float(np.quantile(times, share)), 1) for share in (0.5, 0.95, 0.99)},
        "megabytes_of_votes": round(size / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    found = {"machine": machine(), **measure(given.seconds, given.clients, given.processes)}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "ab-load.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
