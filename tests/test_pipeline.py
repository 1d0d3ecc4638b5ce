"""The whole chain, on the demo's policies: what it leaves, what it does not do twice, and what a kill costs."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rag_ft import FineTunedEmbedding, cut_into_nodes, fine_tune, open_index, read_documents
from rag_ft.dataset import read_questions
from rag_ft.stages import STAGES, Stages

OPTIONS = {"use_llm": False, "base_model": "local", "max_length": 64, "max_pairs": 48}


@pytest.fixture(scope="module")
def run_folder(acme_people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "acme"
    fine_tune(
        acme_nodes(acme_people), questions=read_questions(acme_people / "questions.jsonl"), output_dir=folder, **OPTIONS
    )
    return folder


def acme_nodes(acme: Path) -> list:
    return cut_into_nodes(read_documents(acme / "documents"))


def test_what_follows_a_stage_that_was_done_anew_is_stale_also_after_a_kill(tmp_path: Path) -> None:
    def run(argument: int, killed_after: str = "") -> list[str]:
        """The stages that were done."""
        stages, did = Stages(tmp_path / "run"), []
        for name in STAGES:
            arguments = {"argument": argument} if name == "model" else {}
            if not stages.done(name, arguments, "run.json"):
                stages.start(name)
                did.append(name)
                stages.finish(name, arguments)
            if name == killed_after:
                break
        return did

    assert run(1) == list(STAGES)
    assert run(1) == []
    assert run(2, killed_after="model") == ["model"]
    assert run(2) == ["comparison", "index"]


def test_a_run_leaves_what_the_design_says(run_folder: Path) -> None:
    assert {path.name for path in run_folder.iterdir()} == {
        "dataset", "model", "chroma", "comparison.json", "report.html", "run.json",
    }  # fmt: skip
    comparison = json.loads((run_folder / "comparison.json").read_text())
    assert list(comparison["models"]) == [
        "baseline", "candidate", "hybrid-baseline", "hybrid-candidate", "bm25",
    ]  # fmt: skip
    assert set(comparison["slices"]) == {"known", "new"}
    assert comparison["slices"]["known"]["queries"] > 0
    assert comparison["slices"]["new"]["queries"] > 0
    assert comparison["verdicts"]["candidate"] in ("ship", "keep-baseline", "inconclusive")


def test_hand_written_questions_are_test_alone(run_folder: Path) -> None:
    for split in ("train", "dev"):
        lines = (run_folder / "dataset" / "qrels" / f"{split}.tsv").read_text().splitlines()[1:]
        assert lines
        assert not any(line.startswith("q") and line[1:4].isdigit() for line in lines)


def test_the_same_call_does_nothing_twice_and_gives_the_index(run_folder: Path, acme_people: Path) -> None:
    before = {name: (run_folder / name).stat().st_mtime_ns for name in ("model", "dataset", "comparison.json")}
    run = fine_tune(
        acme_nodes(acme_people),
        questions=read_questions(acme_people / "questions.jsonl"),
        output_dir=run_folder,
        **OPTIONS,
    )
    assert before == {name: (run_folder / name).stat().st_mtime_ns for name in before}
    expected = run.candidate if run.comparison.verdict == "ship" else None
    assert expected is None or run.embed_model is expected
    found = run.index.as_retriever(similarity_top_k=1).retrieve("What is a Kittiwake?")
    assert found
    opened = open_index(run.embed_model, run_folder / "chroma")
    assert [node.node_id for node in opened.as_retriever(similarity_top_k=1).retrieve("What is a Kittiwake?")] == [
        node.node_id for node in found
    ]


@pytest.mark.slow
def test_a_changed_argument_does_only_what_depends_on_it_anew(run_folder: Path, acme_people: Path) -> None:
    dataset = (run_folder / "dataset").stat().st_mtime_ns
    model = (run_folder / "model").stat().st_mtime_ns
    options = OPTIONS | {"max_pairs": 32}
    fine_tune(
        acme_nodes(acme_people),
        questions=read_questions(acme_people / "questions.jsonl"),
        output_dir=run_folder,
        **options,
    )
    assert (run_folder / "dataset").stat().st_mtime_ns == dataset
    assert (run_folder / "model").stat().st_mtime_ns != model


@pytest.mark.slow
def test_a_base_model_that_stays_is_what_the_run_gives(acme_people: Path, tmp_path: Path) -> None:
    run = fine_tune(acme_nodes(acme_people), output_dir=tmp_path / "run", **(OPTIONS | {"max_pairs": 2}))
    if run.comparison.verdict != "ship":
        assert run.embed_model.model_name == "local"
        assert run.candidate.model_name == str(tmp_path / "run" / "model")
    assert isinstance(run.candidate, FineTunedEmbedding)


def digest(folder: Path) -> dict[str, str]:
    """What a run made, without times and Chroma's own files."""
    found = {}
    for name in ("dataset", "comparison.json", "model/model.safetensors"):
        path = folder / name
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file():
                content = file.read_bytes()
                if file.name == "comparison.json":
                    values = json.loads(content)
                    for model in values["models"].values():
                        model.pop("index_seconds", None), model.pop("query_milliseconds", None)
                    values["recommendation"].pop("costs")  # they name milliseconds
                    content = json.dumps(values).encode()
                found[str(file.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


def has_lines(file: Path, count: int) -> bool:
    return file.exists() and file.read_bytes().count(b"\n") >= count


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("llm", ["none", "local"])
def test_three_kills_change_nothing(acme_people: Path, tmp_path: Path, llm: str) -> None:
    """Killed at random moments; with an LLM twice in the middle of its questions."""
    documents = acme_people / "documents"

    def command(output: Path) -> list[str]:
        options = ["--base-model", "local", "--llm", llm, "--max-length", "64", "--quiet"]
        options += ["--max-passages", "40"]
        return [sys.executable, "-m", "rag_ft.cli", "run", str(documents), "--output", str(output), *options]

    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    started = time.monotonic()
    subprocess.run(command(tmp_path / "a" / "run"), check=True, env=environment, capture_output=True)
    whole = time.monotonic() - started
    draw = random.Random(7)
    journal = tmp_path / "b" / "run" / "journal.jsonl"
    for answers in (8, 24, None) if llm == "local" else (None, None, None):
        process = subprocess.Popen(
            command(tmp_path / "b" / "run"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if answers is None:
            time.sleep(draw.uniform(1, whole))
        else:
            while not has_lines(journal, answers) and process.poll() is None:
                time.sleep(0.05)
            time.sleep(draw.uniform(0, 1))
            assert not has_lines(journal, 40), "the kill came after the questions"
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command(tmp_path / "b" / "run"), check=True, env=environment, capture_output=True)
    assert digest(tmp_path / "a" / "run") == digest(tmp_path / "b" / "run")
    if llm == "local":
        lines = journal.read_text().splitlines()
        keys = [json.loads(line)["key"] for line in lines]
        assert len(keys) == len(set(keys)) == 40, "an answer in the journal was asked for again"


def test_an_option_that_is_not_given_repeats_no_stage(tmp_path: Path) -> None:
    """`run.json` of version 0.1.0 has null for such an option, or nothing."""
    stages = Stages(tmp_path / "run")
    stages.start("dataset")
    stages.finish("dataset", {"seed": 0, "max_passages": None})
    (tmp_path / "run" / "product").touch()
    assert Stages(tmp_path / "run").done("dataset", {"seed": 0}, "product")
    assert not Stages(tmp_path / "run").done("dataset", {"seed": 0, "max_passages": 5}, "product")
