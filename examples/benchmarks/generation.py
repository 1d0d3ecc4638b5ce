"""The speed of question generation, the cost of faults, and the growth of the filters.

    python examples/benchmarks/generation.py speed
    python examples/benchmarks/generation.py faults
    python examples/benchmarks/generation.py scale --passages 100000

`speed` and `faults` use a local server with OpenAI's protocol and a latency of 500 ms (tests/fakes/openai_server.py, in
a process of its own). `scale` makes passages and questions of random words, and applies all filters except the judge,
and the split. Each size runs in a process of its own, so that its peak memory can be measured. Results are in
examples/benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quality import RESULTS, machine

from rag_ft import Passage, QADataset, Query

SERVER = Path(__file__).parents[2] / "tests" / "fakes" / "openai_server.py"
LATENCY = 0.5


@contextmanager
def server(faults: float) -> Iterator[str]:
    """Run a server with latency, and yield its address."""
    command = [sys.executable, str(SERVER), "--latency", str(LATENCY), "--faults", str(faults)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()


def numbered_passages(count: int) -> list[Passage]:
    """Make passages of the usual length, each with a number of its own."""
    rng = random.Random(0)
    words = ["harbour", "master", "permit", "vessel", "berth", "tide", "cargo", "signal", "customs", "mooring", "pilot"]
    return [
        Passage(f"p{n}", f"Form number {n} is signed by master {n}. " + " ".join(rng.choices(words, k=150)))
        for n in range(count)
    ]


def generate(address: str, count: int, workers: int) -> tuple[float, int, int]:
    """Return the seconds, the number of requests, and the number of passages with questions."""
    from rag_ft.generation.llm_questions import questions_from_llm
    from rag_ft.generation.question_options import QuestionOptions
    from rag_ft.generation.resolve_llm import resolve_llm

    llm = resolve_llm("openai-like:clerk", address)
    assert llm is not None
    llm.complete("warm up")
    journal = Path("/tmp") / f"rag_ft-journal-{random.random()}.jsonl"
    started = time.monotonic()
    try:
        options = QuestionOptions(workers=workers, journal=journal)
        generated = questions_from_llm(numbered_passages(count), llm, question_options=options)
    finally:
        journal.unlink(missing_ok=True)
    return time.monotonic() - started, generated.requests, len({passage for _, passage in generated.pairs})


def speed() -> dict[str, object]:
    rows = []
    for workers, count in ((32, 1000), (32, 1000), (32, 1000), (1, 40)):
        with server(0.0) as address:
            seconds, _, complete = generate(address, count, workers)
        ideal = count * LATENCY / workers
        rows.append({"workers": workers, "passages": count, "seconds": seconds, "of_ideal": seconds / ideal})
        print(f"{workers} workers, {count} passages: {seconds:.1f} s, {seconds / ideal:.3f} of the ideal {ideal:.1f} s")
        assert complete == count
    concurrent = min(row["seconds"] / row["passages"] for row in rows[:-1])
    sequential = rows[-1]["seconds"] / rows[-1]["passages"]
    print(f"one call at a time takes {sequential / concurrent:.1f} times as long")
    return {"runs": rows, "one_at_a_time": sequential / concurrent}


def faults() -> dict[str, object]:
    with server(0.3) as address:
        seconds, requests, complete = generate(address, 1000, 32)
        with urllib.request.urlopen(address.removesuffix("/v1") + "/v1/stats") as answer:
            stats = json.load(answer)
    # The first request warmed the client up, and only the server counts it.
    print(f"{complete} of 1000 passages, {requests} requests in {seconds:.1f} s; the server counted {stats}")
    return {"complete": complete, "requests": requests, "seconds": seconds, "server": stats}


def corpus(passages: int, seed: int = 0) -> tuple[QADataset, list[tuple[Query, str]]]:
    """Make passages of Zipf-distributed words, 8 in a document, some repeated, with three questions each, some bad."""
    import numpy as np

    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    vocabulary = np.array(["".join(rng.choice(letters, rng.integers(3, 11))) for _ in range(50_000)])
    rows: dict[str, Passage] = {}
    pairs: list[tuple[Query, str]] = []
    for place in range(passages):
        words = vocabulary[np.minimum(rng.zipf(1.15, 120), 50_000) - 1]
        text = f"Rule {place}: " + " ".join(words) + "."
        if place % 50 == 1:  # nearly the passage before it
            text = rows[f"d{(place - 1) // 8}#{place - 1}"].text + " Revised."
        key = f"d{place // 8}#{place}"
        rows[key] = Passage(key, text, doc_id=f"d{place // 8}")
        for number in range(3):
            chosen = " ".join(rng.choice(words, 8))
            question = f"What does the text say about {chosen}?" if rng.random() < 0.05 else f"Which {chosen} {place}?"
            pairs.append((Query(f"{key}:{number}", question, "question"), key))
    return QADataset(rows, {}, {}), pairs


def filter_all(passages: int) -> None:
    """Measure one size in this process, and print seconds and memory as JSON."""
    from rag_ft.dataset.splitting import split_questions
    from rag_ft.generation.filters import filter_questions

    dataset, pairs = corpus(passages)
    text_bytes = sum(len(passage.text) for passage in dataset.passages.values()) + sum(len(q.text) for q, _ in pairs)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    started = time.monotonic()
    groups, _ = dataset.near_duplicates, dataset.boilerplate
    grouped = time.monotonic()
    kept, dropped = filter_questions(pairs, dataset.passages, groups=groups)
    filtered = time.monotonic()
    whole = dataset.with_questions({query.id: query for query, _ in kept}, {})
    splits = split_questions(whole, {query.id: {passage: 1} for query, passage in kept})
    done = time.monotonic()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({
        "passages": passages, "questions": len(pairs), "kept": len(kept), "dropped": len(dropped),
        "splits": {name: len(part) for name, part in splits.items()}, "text_megabytes": text_bytes / 1e6,
        "before_megabytes": before / 1e6, "peak_megabytes": peak / 1e6,
        "seconds": {"near_duplicates": grouped - started, "filters": filtered - grouped, "split": done - filtered},
    }))  # fmt: skip


def scale(passages: int) -> dict[str, object]:
    rows: list[dict[str, object]] = []
    for size in (passages // 4, passages):
        command = [sys.executable, __file__, "one-size", "--passages", str(size)]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        row = rows[-1]
        grown = row["peak_megabytes"] - row["before_megabytes"]
        print(
            f"{size:,} passages, {row['questions']:,} questions, {row['text_megabytes']:.0f} MB of text: "
            f"{row['seconds']}, {grown:.0f} MB more than the text took", flush=True,
        )  # fmt: skip
    return {"sizes": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["speed", "faults", "scale", "one-size"])
    parser.add_argument("--passages", type=int, default=100_000)
    arguments = parser.parse_args()
    if arguments.kind == "one-size":
        filter_all(arguments.passages)
        return
    result = {"speed": speed, "faults": faults}.get(arguments.kind, lambda: scale(arguments.passages))()
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"generation-{arguments.kind}.json"
    file.write_text(json.dumps(result | {"machine": machine()}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
