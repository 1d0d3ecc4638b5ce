"""An ordinary app calls `fine_tune` twice, in two processes, with its files in another order."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes.app_folder import write_app_folder
from fakes.openai_server import serve

PROGRAM = """
import json, logging, sys, time
from pathlib import Path
from fakes.app_folder import app_nodes
from fakes.openai_llm import served_llm
import rag_ft
from rag_ft.dataset import read_beir

docs, output, address, seed, task = sys.argv[1:]
logging.basicConfig(stream=sys.stderr, level=logging.INFO)
nodes = app_nodes(Path(docs), int(seed))
if task == "generate":
    dataset = rag_ft.generate_qa_dataset(nodes, served_llm(address)).dataset
    print(json.dumps({
        "texts": {split: sorted(dataset.texts(split)) for split in dataset.splits},
        "test_documents": sorted(dataset.documents_of(dataset.qrels["test"], "test")),
    }))
    sys.exit()
started = time.perf_counter()
run = rag_ft.fine_tune(nodes, served_llm(address), base_model="local", output_dir=output, max_length=64, max_pairs=48)
seconds = time.perf_counter() - started
found = run.index.as_retriever(similarity_top_k=1).retrieve("Who inspects the crane?")[0].text
dataset = read_beir(Path(output) / "dataset")
texts = {split: sorted(dataset.texts(split)) for split in dataset.splits}
print(json.dumps({
    "seconds": seconds, "texts": texts, "verdict": run.comparison.verdict, "found": found, "nodes": len(nodes),
    "documents": sorted(dataset.documents),
    "test_documents": sorted(dataset.documents_of(dataset.qrels["test"], "test")),
}))
"""


def call(docs: Path, output: Path, address: str, seed: int, task: str = "fine_tune") -> tuple[dict[str, Any], str]:
    """Run the program in a process of its own: what it printed, and its log."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(docs), str(output), address, str(seed), task],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two calls on one run folder, and the questions alone once more, each with the files in another order."""
    folder = tmp_path_factory.mktemp("app")
    docs = write_app_folder(folder / "docs")
    server, state, address = serve()
    try:
        first, log = call(docs, folder / "run", address, seed=1)
        asked = state.stats()["requests"]
        second, second_log = call(docs, folder / "run", address, seed=2)
        asked_again = state.stats()["requests"] - asked
        fresh, _ = call(docs, folder / "fresh", address, seed=3, task="generate")
    finally:
        server.shutdown()
        server.server_close()
    return {
        "first": first, "log": log, "second": second, "second_log": second_log, "fresh": fresh, "asked": asked,
        "asked_again": asked_again, "docs": docs,
    }  # fmt: skip


def test_the_second_call_does_nothing_again_and_says_so(calls: dict[str, Any]) -> None:
    for stage in ("dataset", "model", "comparison", "index"):
        assert f"{stage}: already done, skipped" in calls["second_log"]
    assert calls["asked"] > 0
    assert calls["asked_again"] == 0
    assert calls["second"]["seconds"] < 5
    assert calls["second"]["verdict"] == calls["first"]["verdict"]


def test_the_same_files_give_the_same_questions_in_any_order(calls: dict[str, Any]) -> None:
    assert calls["second"]["texts"] == calls["first"]["texts"] == calls["fresh"]["texts"]
    assert calls["first"]["test_documents"] == calls["fresh"]["test_documents"]


def test_a_file_is_one_document(calls: dict[str, Any]) -> None:
    assert len(calls["first"]["documents"]) == 40
    assert "part0/crane.md" in calls["first"]["documents"]


def test_no_path_size_or_date_is_in_a_question(calls: dict[str, Any]) -> None:
    texts = [text for of_split in calls["first"]["texts"].values() for text in of_split]
    assert len(texts) > 100
    wrong = re.compile(r"file_path|file_size|\d{4}-\d\d-\d\d|\.(?:md|txt|html)\b|part\d", re.IGNORECASE)
    assert [text for text in texts if wrong.search(text) or str(calls["docs"]) in text] == []


def test_the_embedded_path_is_warned_of(calls: dict[str, Any]) -> None:
    assert 'node.excluded_embed_metadata_keys += ["file_path"]' in calls["log"]
