"""Rebuilds killed at random moments under four readers: no error, no empty result, and the same index in the end."""

from __future__ import annotations

import multiprocessing
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from fakes.chroma_server import chroma_server, free_port, start_server
from fakes.embeddings import Hashed
from fakes.passages import PASSAGES, passages

from rag_ft import open_index, rebuild_index
from rag_ft.index import rollback_index
from rag_ft.index.chroma import open_chroma
from rag_ft.index.pointer import read_pointer

BUILDER = """
import sys
sys.path.insert(0, {tests!r})
from fakes.embeddings import Hashed
from fakes.passages import passages
from rag_ft import rebuild_index
import rag_ft.index.fill as filling
filling.WINDOW = 32
rebuild_index(passages({version!r}), Hashed(model_name="hashed"), {chroma!r}, "acme")
"""


def content(chroma: str, name: str = "acme") -> dict[str, tuple[str, np.ndarray]]:
    client = open_chroma(chroma)
    pointer = read_pointer(client, name)
    found = client.get_collection(pointer.current).get(include=["documents", "embeddings"])
    return {
        key: (text, vector)
        for key, text, vector in zip(found["ids"], found["documents"], found["embeddings"], strict=True)
    }


def assert_same(one: dict[str, tuple[str, np.ndarray]], other: dict[str, tuple[str, np.ndarray]]) -> None:
    assert one.keys() == other.keys()
    for key, (text, vector) in one.items():
        assert text == other[key][0]
        # Chroma gives a vector back in the last digits as it is in its log or in its graph.
        np.testing.assert_allclose(vector, other[key][1], rtol=1e-4, atol=1e-4)


def start_build(chroma: str, version: str) -> subprocess.Popen:
    program = BUILDER.format(tests=str(Path(__file__).parents[1]), version=version, chroma=chroma)
    return subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)


def read_until(chroma: str, done: Callable[[], bool], seen: Callable[[str], None]) -> None:
    retriever = open_index(Hashed(model_name="hashed"), chroma, "acme").as_retriever(similarity_top_k=3)
    number = 0
    while not done():
        number += 1
        try:
            found = retriever.retrieve(f"Passage {number % PASSAGES} of old.")
            versions = {node.text.rsplit(" ", 1)[1] for node in found}
            seen("empty" if len(found) != 3 else "mixed" if len(versions) > 1 else "")
        except BaseException as error:
            seen(f"{type(error).__name__}: {error}")


def reading_process(chroma: str, done: multiprocessing.Event, results: multiprocessing.Queue) -> None:
    said: list[str] = []
    read_until(chroma, done.is_set, said.append)
    results.put((len(said), [each for each in said if each]))


@contextmanager
def four_readers(chroma: str) -> Iterator[list[tuple[int, list[str]]]]:
    """Read in threads on a folder, in processes on a server; yield a list of (queries, failures) for each."""
    found: list[tuple[int, list[str]]] = []
    if chroma.startswith("http"):
        context = multiprocessing.get_context("spawn")
        done, results = context.Event(), context.Queue()
        readers = [context.Process(target=reading_process, args=(chroma, done, results)) for _ in range(4)]
        for reader in readers:
            reader.start()
        try:
            time.sleep(8)  # until they have imported everything
            yield found
        finally:
            done.set()
            found += [results.get(timeout=60) for _ in readers]
            for reader in readers:
                reader.join()
        return
    ended = threading.Event()
    said: list[list[str]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=read_until, args=(chroma, ended.is_set, each.append)) for each in said]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        found += [(len(each), [one for one in each if one]) for each in said]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["embedded", "server"])
def test_readers_notice_nothing_of_a_rebuild_killed_twenty_times(kind: str, tmp_path: Path) -> None:
    if kind == "server":
        with chroma_server(tmp_path / "server") as address:
            _kill_twenty_times(address)
    else:
        _kill_twenty_times(str(tmp_path / "chroma"))


def _kill_twenty_times(chroma: str) -> None:
    rebuild_index(passages("old"), Hashed(model_name="hashed"), chroma, "acme")
    before, first = content(chroma), read_pointer(open_chroma(chroma), "acme").current
    draw = random.Random(0)
    with four_readers(chroma) as read:
        killed = 0
        for _ in range(20):
            builder = start_build(chroma, "new")
            try:
                _, said = builder.communicate(timeout=draw.uniform(2.0, 6.0))
            except subprocess.TimeoutExpired:
                builder.send_signal(signal.SIGKILL)
                builder.communicate()
                killed += 1
            else:
                assert builder.returncode == 0, said
            if read_pointer(open_chroma(chroma), "acme").current != first:
                rollback_index(chroma, "acme")  # it had swapped before it was killed: once more
        last = start_build(chroma, "new")
        _, said = last.communicate(timeout=300)
        assert last.returncode == 0, said
        time.sleep(3)
    assert killed >= 5
    for count, wrong in read:
        assert count > 20
        assert wrong == []
    rebuild_index(passages("new"), Hashed(model_name="hashed"), chroma, "at-once")
    assert_same(content(chroma), content(chroma, "at-once"))
    rollback_index(chroma, "acme")
    assert_same(content(chroma), before)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["embedded", "server"])
def test_of_two_concurrent_builds_one_wins_and_the_other_fails_clearly(kind: str, tmp_path: Path) -> None:
    def race(chroma: str) -> None:
        rebuild_index(passages("old"), Hashed(model_name="hashed"), chroma, "acme")
        builders = [start_build(chroma, version) for version in ("one", "two")]
        said = [builder.communicate(timeout=120)[1] for builder in builders]
        codes = [builder.returncode for builder in builders]
        there = {text.rsplit(" ", 1)[1] for text, _ in content(chroma).values()}
        assert len(there) == 1, "no mixture"
        losers = [text for code, text in zip(codes, said, strict=True) if code]
        assert len(losers) <= 1
        for text in losers:
            assert "another process is building" in text

    if kind == "server":
        with chroma_server(tmp_path / "server") as address:
            race(address)
    else:
        race(str(tmp_path / "chroma"))


@pytest.mark.slow
def test_a_server_killed_during_a_rebuild_loses_nothing(tmp_path: Path) -> None:
    """When the server is back, the app reads the old collection, and the same build continues."""
    port = free_port()
    address, model = f"http://127.0.0.1:{port}", Hashed(model_name="hashed")
    server = start_server(tmp_path / "server", port)
    try:
        rebuild_index(passages("old"), model, address, "acme")
        before = content(address)
        app = open_index(model, address, "acme").as_retriever(similarity_top_k=3)
        builder = start_build(address, "new")
        client = open_chroma(address)
        current = read_pointer(client, "acme").current
        until = time.monotonic() + 60
        while time.monotonic() < until:
            others = [
                each for each in client.list_collections() if each.name.startswith("acme-") and each.name != current
            ]
            if any(each.count() for each in others):
                break
        server.kill()
        server.wait(10)
        _, said = builder.communicate(timeout=120)
        assert builder.returncode != 0
        assert "Chroma failed" in said
        server = start_server(tmp_path / "server", port)
        assert len(app.retrieve("Passage 3 of old.")) == 3  # the app of before, not opened anew
        assert_same(content(address), before)
        rebuild_index(passages("new"), model, address, "acme")
        rebuild_index(passages("new"), model, address, "at-once")
        assert_same(content(address), content(address, "at-once"))
    finally:
        server.kill()
        server.wait(10)
