"""The embeddings server: many concurrent callers, long lists, overload, and memory over 100,000 requests.

    python examples/benchmarks/serving.py single lists overload memory

The server (`rag-ft serve local`) and its callers are two processes on the same cores. Each part adds its figures to
results/serving.json. `single` sends one question after another from one caller, from 64 callers, and from 64 callers to
a server that encodes one text at a time. `lists` sends lists of passages, and compares with one call of rag_ft's own
`encode`. `overload` has 1,000 concurrent callers.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from quality import RESULTS, machine

from rag_ft import load_dataset

FILE = RESULTS / "serving.json"
SERVE = "from rag_ft.cli import main; main()"
ONE_AT_A_TIME = """
import sys
from rag_ft.server.app import create_app
from rag_ft.server.running import bound_socket, serve
app = create_app("local", name="acme")
app.state.served.batch_tokens = 1
listening = bound_socket("127.0.0.1", 0)
listening.listen()
print(f"at http://127.0.0.1:{listening.getsockname()[1]}/v1", flush=True)
serve(app, listening)
"""


@contextmanager
def server(program: str = SERVE) -> Iterator[tuple[int, psutil.Process]]:
    """Run a server, and yield its port and process."""
    arguments = ["serve", "local", "--name", "acme", "--port", "0", "--quiet"] if program == SERVE else []
    environment = {name: value for name, value in os.environ.items() if name != "RAG_FT_API_KEY"}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        yield int(address.rsplit(":", 1)[1].removesuffix("/v1")), psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


class Caller:
    """A client with one open connection. It writes plain bytes, to leave the cores to the server."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def ask(self, texts: str | list[str], model: str) -> tuple[int, dict[str, str], bytes]:
        """Send texts, and return status, headers and body of the answer."""
        if not hasattr(self, "reader"):
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**24)
        body = json.dumps({"model": model, "input": texts, "encoding_format": "base64"}).encode()
        head = "POST /v1/embeddings HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
        self.writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        answer = await self.reader.readexactly(int(headers["content-length"]))
        return int(lines[0].split()[1]), headers, answer


async def load(port: int, callers: int, questions: list[str], go_on: Callable[[int], bool]) -> dict[str, Any]:
    """Send questions from several callers until `go_on` returns False for the number of answers."""
    milliseconds: list[float] = []
    statuses: Counter[int] = Counter()
    queue = itertools.cycle(questions)
    without_retry_after = 0

    async def ask_on() -> None:
        nonlocal without_retry_after
        caller = Caller(port)
        while go_on(statuses[200]):
            start = time.perf_counter()
            status, headers, _ = await caller.ask(next(queue), "acme-query")
            statuses[status] += 1
            if status == 200:
                milliseconds.append(1000 * (time.perf_counter() - start))
            elif "retry-after" not in headers:
                without_retry_after += 1
            else:
                await asyncio.sleep(float(headers["retry-after"]))
        caller.writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(ask_on() for _ in range(callers)))
    seconds = time.perf_counter() - start
    return {
        "callers": callers,
        "seconds": round(seconds, 1),
        "per_second": round(statuses[200] / seconds, 1),
        "p50_ms": round(float(np.quantile(milliseconds, 0.5)), 1),
        "p95_ms": round(float(np.quantile(milliseconds, 0.95)), 1),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "refused_without_retry_after": without_retry_after,
    }


def for_seconds(seconds: float) -> Callable[[int], bool]:
    end = time.perf_counter() + seconds
    return lambda answers: time.perf_counter() < end


def run_load(port: int, callers: int, questions: list[str], seconds: float) -> dict[str, Any]:
    asyncio.run(load(port, callers, questions, for_seconds(1)))
    return asyncio.run(load(port, callers, questions, for_seconds(seconds)))


def single(questions: list[str], passages: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with server() as (port, _):
        found["one caller"] = run_load(port, 1, questions, arguments.seconds / 2)
        found["64 callers"] = run_load(port, 64, questions, arguments.seconds)
    with server(ONE_AT_A_TIME) as (port, _):
        found["64 callers, one text encoded at a time"] = run_load(port, 64, questions, arguments.seconds / 2)
    concurrent = found["64 callers"]["per_second"]
    for name in ("one caller", "64 callers, one text encoded at a time"):
        found[f"times the throughput of {name}"] = round(concurrent / found[name]["per_second"], 2)
    return found


def lists(questions: list[str], passages: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    async def send(port: int, size: int, callers: int) -> float:
        parts = [passages[first : first + size] for first in range(0, len(passages), size)]
        queue = iter(parts)

        async def ask_on() -> None:
            caller = Caller(port)
            for part in queue:
                status, _, _ = await caller.ask(part, "acme-passage")
                assert status == 200, status

        start = time.perf_counter()
        await asyncio.gather(*(ask_on() for _ in range(callers)))
        return len(passages) / (time.perf_counter() - start)

    rates: dict[str, list[float]] = {}
    shapes = ((len(passages), 1), (256, 1), (256, 4))
    for _ in range(arguments.rounds):
        rates.setdefault("encode", []).append(float(subprocess.run(
            [sys.executable, __file__, "encode", "--passages", str(len(passages)), "--data", str(arguments.data)],
            check=True, capture_output=True, text=True,
        ).stdout))  # fmt: skip
        with server() as (port, _):
            asyncio.run(Caller(port).ask(passages[:64], "acme-passage"))
            for size, callers in shapes:
                name = f"lists of {size}, {callers} caller{'s' * (callers > 1)}"
                rates.setdefault(name, []).append(asyncio.run(send(port, size, callers)))
    found: dict[str, Any] = {"passages": len(passages)}
    for name, values in rates.items():
        found[f"{name}: texts a second"] = [round(value, 1) for value in values]
        if name != "encode":
            ratios = [value / plain for value, plain in zip(values, rates["encode"], strict=True)]
            found[f"{name}: share of encode"] = [round(ratio, 3) for ratio in ratios]
    return found


def encode_alone(passages: list[str]) -> None:
    """Print how many texts a second `encode` encodes in this process."""
    from rag_ft.embedding.encoding import encode
    from rag_ft.embedding.loading import load_sentence_transformer

    model = load_sentence_transformer("local")
    encode(model, passages[:64], "document")
    start = time.perf_counter()
    encode(model, passages, "document")
    print(len(passages) / (time.perf_counter() - start))


def overload(questions: list[str], passages: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    with server() as (port, process):
        found = asyncio.run(load(port, 1000, questions, for_seconds(arguments.seconds / 2)))
        after = asyncio.run(load(port, 1, questions, for_seconds(2)))
        return {
            "1,000 callers": found,
            "one caller afterwards": after,
            "rss_mb": round(process.memory_info().rss / 1e6),
        }


def memory(questions: list[str], passages: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    with server() as (port, process):
        asyncio.run(load(port, 64, ["short"], lambda answers: answers < 2_000))
        rss = [process.memory_info().rss / 1e6]
        start = time.perf_counter()
        for _ in range(10):
            asyncio.run(load(port, 64, ["short", "a little longer"], lambda answers: answers < arguments.requests / 10))
            rss.append(process.memory_info().rss / 1e6)
        seconds = time.perf_counter() - start
    return {
        "requests": arguments.requests,
        "per_second": round(arguments.requests / seconds, 1),
        "rss_mb_each_tenth": [round(value, 1) for value in rss],
    }


PARTS = {"single": single, "lists": lists, "overload": overload, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=[*PARTS, "encode"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--passages", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--requests", type=int, default=100_000)
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.data / "scifact")
    questions = [dataset.queries[query].text for query in dataset.require("test")]
    passages = list(dataset.passage_texts.values())[: arguments.passages]
    if arguments.parts == ["encode"]:
        encode_alone(passages)
        return
    found = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    for part in arguments.parts:
        found[part] = PARTS[part](questions, passages, arguments)
        found["machine"] = machine()
        print(part, json.dumps(found[part], indent=2), flush=True)
        FILE.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
