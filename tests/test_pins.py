"""Behaviour that users and other programs rely on, stored in `tests/pins/*.json` and compared on each run.

The pins drive the product through its command line and its top-level names, so that modules can move and Python names
can change. What has no public name is imported in `inner` alone.

    python tests/test_pins.py --write          # store the current behaviour as the new pins
    python tests/test_pins.py --figures FILE   # write the figures of small trainings: compare two runs on one machine

New options, choices, keys and spellings may be added without a change here. What is removed on purpose is named in
`REMOVED`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin
from unittest.mock import patch

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

import rag_ft
from rag_ft import QADataset
from rag_ft.ab import ABRetriever, ab_session
from rag_ft.adapters import AdapterRecipe, train_adapter
from rag_ft.dataset import ScoredPair, read_beir, write_beir
from rag_ft.embedding import CachedEmbedding
from rag_ft.feedback import ShownResults, Votes
from rag_ft.generation import QuestionOptions

PINS = Path(__file__).parent / "pins"
ACME = Path(__file__).parent.parent / "examples" / "acme_policies"

REMOVED: frozenset[str] = frozenset(
    {
        # Both are accepted, and refused with what to use.
        "commands / train / options / --focus",
        "commands / train / options / --adapter / choices / low-rank",
        "commands / train / options / --adapter / choices / residual",
    }
)
"""What was removed or changed on purpose, as the differences name it; all that begins with such a name is passed over.

Examples: `commands / train / options / --focus`, `commands / train / options / --adapter / choices / low-rank`,
`keys / model: rag_ft.json / recipe.focus`.
"""

SETTINGS: dict[str, object] = {"epochs": 1, "batch_size": 16, "alphas": [1.0]}
RANDOM_BATCHES: dict[str, object] = {"similar_per_batch": 1}
MAY_FORGET: dict[str, object] = {"max_forgetting": 1.0}
"""Settings of the recipe for `--set`. If one gets another name, change it here alone."""

ADAPTER: dict[str, Any] = {"pulls": (3.0,)}
"""Fields of `AdapterRecipe` for a quick training: a single pull."""

SUBSETS = ("names", "off_names", "choices")
"""Lists of which the pinned part must still be there."""


def inner() -> SimpleNamespace:
    """What has no public name. If such a function moves or gets another name, change it here alone."""
    from rag_ft.dataset.splitting import hold_out_dev
    from rag_ft.evaluation.significance import paired_bootstrap

    return SimpleNamespace(hold_out_dev=hold_out_dev, paired_bootstrap=paired_bootstrap)


def command_line() -> Any:
    """The Typer application. If it moves, change it here alone."""
    from rag_ft.cli import app

    return app


# --- The command line


def run_command(*arguments: object) -> int:
    """Run the installed command `rag-ft` in this process, and return its exit code."""
    (command,) = entry_points(group="console_scripts", name="rag-ft")
    output = io.StringIO()
    with (
        patch.dict(os.environ, {"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "100"}),
        patch.object(sys, "argv", ["rag-ft", *map(str, arguments)]),
        redirect_stdout(output),
        redirect_stderr(output),
    ):
        os.environ.pop("OPENAI_API_KEY", None)
        try:
            command.load()()
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def must_run(*arguments: object) -> None:
    """Run a command that must succeed."""
    code = run_command(*arguments)
    assert code == 0, f"rag-ft {' '.join(map(str, arguments))}: exit code {code}"


def pinned_commands(work: Work) -> dict[str, Any]:
    """Each command with its arguments and options. Help texts and panels are left out; hidden old spellings count."""
    import typer

    root = typer.main.get_command(command_line())
    return {"rag-ft": parameters_of(root)} | {
        name: parameters_of(command)
        for name, command in sorted(root.commands.items())  # type: ignore[attr-defined]
    }


def parameters_of(command: Any) -> dict[str, Any]:
    """The arguments of a command in their order, and its options by their first long spelling."""
    arguments = []
    options = {}
    for parameter in command.params:
        told = {
            **type_of(parameter),
            "default": plain(parameter.default),
            "required": bool(parameter.required),
            "multiple": bool(parameter.nargs != 1 or getattr(parameter, "multiple", False)),
        }
        if parameter.param_type_name == "argument":
            arguments.append(told)
            continue
        told["names"] = sorted(parameter.opts)
        if parameter.secondary_opts:
            told["off_names"] = sorted(parameter.secondary_opts)
        if parameter.is_flag:
            told["flag"] = True
        options[next(name for name in parameter.opts if name.startswith("--"))] = told
    return {"arguments": arguments, "options": options}


CLICK_TYPES = {"text": "str", "path": "Path", "integer": "int", "boolean": "bool", "choice": "choice"}


def type_of(parameter: Any) -> dict[str, Any]:
    """The type of a parameter with its bounds and choices: as Typer describes it, or as click does in older ones."""
    described = getattr(parameter, "type_descriptor", None)
    if described is not None:
        kind = described.annotation
        if get_origin(kind) is Literal:
            return {"type": "choice", "choices": sorted(map(str, get_args(kind)))}
        while not isinstance(kind, type):  # list[str], or str | None
            kind = next(inside for inside in get_args(kind) if inside is not type(None))
        bounds = {name: getattr(parameter, name, None) for name in ("min", "max")}
        if issubclass(kind, Enum):
            return {"type": "choice", "choices": sorted(str(choice.value) for choice in kind)}
        name = "Path" if issubclass(kind, Path) else kind.__name__
    else:
        click = parameter.type
        if getattr(click, "choices", None) is not None:
            return {"type": "choice", "choices": sorted(str(plain(choice)) for choice in click.choices)}
        bounds = {name: getattr(click, name, None) for name in ("min", "max")}
        name = click.name.removesuffix(" range")
        name = CLICK_TYPES.get(name, name)
    return {"type": name} | {name: bound for name, bound in bounds.items() if bound is not None}


def plain(value: Any) -> Any:
    """A default as JSON can hold it."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return value.as_posix()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


CASES = """
--help
--version

teach
inspect {data}
inspect {data} --split dev
inspect {data} --split nosuch
inspect {missing}
inspect {broken}
inspect {data} --samples -1
train {data}
train {no_train} --output {new} --base-model local
train {broken} --output {new} --base-model local
train {data} --output {notes} --base-model local
train {data} --output {file} --base-model local
train {data} --output {new} --base-model local --max-length short
train {data} --output {new} --base-model local --batch-size 1
train {data} --output {new} --base-model local --loss nosuch
train {data} --output {new} --base-model local --set warmup
train {data} --output {new} --base-model local --set seed=1
train {data} --output {new} --base-model local --set nosuch=1
train {data} --output {new} --base-model local --set warmup=much
train {data} --output {new} --base-model local --report-to nosuch
train {data} --output {new} --base-model local --device cuda:1
train {data} --output {new} --base-model local --both-sides
train {data} --output {new} --base-model local --adapter linear --epochs 2
train {data} --output {new} --base-model local --continue-from {data}
train {data} --output {new} --base-model {missing}
train {data} --output {new} --base-model nobody/nothing
compare {data} --baseline bm25 --candidate bm25
compare {data} --baseline bm25 --candidate bm25 --require-improvement
compare {data} --baseline bm25 --candidate bm25 --no-require-improvement
compare {data} --baseline bm25
compare {no_test} --baseline bm25 --candidate bm25
compare {data} --baseline bm25 --candidate bm25 --html {notes}
compare {data} --baseline bm25 --candidate bm25 --questions {new}.pdf
compare {data} --baseline bm25 --candidate hybrid:
compare {data} --baseline bm25 --candidate nobody/nothing
generate {missing} --output {new}
generate {empty} --output {new}
generate {docs} --output {file}
generate {docs} --output {new} --llm nonsense
generate {docs} --output {new} --llm openai:gpt-4.1-mini
generate {docs} --output {new} --style keywords
generate {docs} --output {new} --field query=frage
generate {docs} --output {new}-llama.json --format llama-index
generate {docs} --output {new}-dataset
run {docs} --output {notes} --base-model local
run {missing} --output {new} --base-model local
demo --output {notes}
check {missing} --base-model local
mine {data} --output {new}-mined --by bm25
mine {data} --output {new}-mined --by nosuch
review {data} --export {new}.csv
review {data} --export {new}.csv
review {data} --import {new}.csv
review {data} --import {missing}.csv
review {data}
index {data} --model local --collection forms --chroma http://127.0.0.1:9
index {data} --model local --collection forms --chroma http://127.0.0.1:port
index {data} --model local --collection f --chroma {new}-chroma
index {data} --model local --collection forms --chroma {notes}
index --collection forms --chroma {new}-chroma
index --collection forms --chroma {new}-chroma --rollback
fuse {data} --model {empty}
export {missing}
export {empty} --backend nosuch
serve {missing}
ab {missing} --a local --b local
ab {data} --a local
""".strip("\n").split("\n")
"""Commands that take little time; the folders are those of `write_inputs`."""


def pinned_exit_codes(work: Work) -> dict[str, Any]:
    """The exit code of each case; one that is given twice, as the second export of a review, has a number behind it."""
    codes: dict[str, Any] = {}
    places = write_inputs(work.folder / "exit codes")
    for case in CASES:
        argv = [part.format(**places) for part in case.split()]
        again = sum(name.split("  #")[0] == case for name in codes)
        codes[f"{case}  #{again + 1}" if again else case] = run_command(*argv)
    return codes


def write_inputs(folder: Path) -> dict[str, Path]:
    """Folders and files, good and bad ones, by the names that the cases use."""
    names = ("data", "no_train", "no_test", "broken", "docs", "empty", "notes", "file", "missing", "new")
    places = {name: folder / name for name in names}
    for name in ("data", "no_train", "no_test", "broken"):
        write_small_dataset(places[name])
    (places["no_train"] / "qrels" / "train.tsv").unlink()
    (places["no_test"] / "qrels" / "test.tsv").unlink()
    with (places["broken"] / "corpus.jsonl").open("a") as stream:
        stream.write('{"_id": "half')
    for name in ("docs", "empty", "notes"):
        places[name].mkdir()
    for number in range(24):
        text = f"# Form T-{number}\n\nForm T-{number} is kept by clerk {number * 3} of harbour {number} until spring.\n"
        (places["docs"] / f"form{number}.md").write_text(text)
    (places["notes"] / "notes.txt").write_text("remember the milk")
    places["file"].write_text("remember the milk")
    return places


def write_small_dataset(folder: Path) -> None:
    """A BEIR folder: 12 documents of 2 passages, a question on each; train 8, dev 2, test 2."""
    (folder / "qrels").mkdir(parents=True)
    passages = [
        {
            "_id": f"d{document}#{place}",
            "title": f"Form T-{document}",
            "text": f"Part {place} of form T-{document} is signed by the master of harbour {document}.",
            "doc_id": f"d{document}",
        }
        for document in range(12)
        for place in range(2)
    ]
    questions = [{"_id": f"q{document}", "text": f"Who signs T-{document}?"} for document in range(12)]
    for name, rows in (("corpus", passages), ("queries", questions)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split, documents in (("train", range(8)), ("dev", range(8, 10)), ("test", range(10, 12))):
        lines = ["query-id\tcorpus-id\tscore", *(f"q{document}\td{document}#0\t1" for document in documents)]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")


# --- A small run of the whole job, and what libraries see of its training


class StoppedError(Exception):
    """A training is stopped as soon as its folder of checkpoints has a name."""


@dataclass
class Watched:
    """What was seen of a training, by the names of libraries alone."""

    folders: list[str] = field(default_factory=list)
    batches: list[list[tuple[str, str]]] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)


@contextmanager
def watched(stop: bool = False) -> Iterator[Watched]:
    """Note the folders of checkpoints, the texts of each batch, and the hash of the weights after the last step.

    Args:
        stop: raise `StoppedError` instead of a first step.
    """
    import transformers

    seen = Watched()
    mkdir, step, train = os.mkdir, transformers.Trainer.training_step, transformers.Trainer.train

    def noting_mkdir(path: Any, *args: Any, **kwargs: Any) -> None:
        mkdir(path, *args, **kwargs)
        made = Path(os.fspath(path))
        if re.fullmatch(r"\..+\.training", made.parent.name):
            seen.folders.append(made.name)
            if stop:
                raise StoppedError

    def noting_step(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        texts = (model.tokenizer.batch_decode(inputs[f"{name}_input_ids"], skip_special_tokens=True)
                 for name in ("anchor", "positive"))  # fmt: skip
        seen.batches.append(list(zip(*texts, strict=True)))
        return step(self, model, inputs, *args, **kwargs)

    def noting_train(self: Any, *args: Any, **kwargs: Any) -> Any:
        done = train(self, *args, **kwargs)
        seen.weights.append(hash_of_weights(self.model.state_dict()))
        return done

    with (
        patch.object(os, "mkdir", noting_mkdir),
        patch.object(transformers.Trainer, "training_step", noting_step),
        patch.object(transformers.Trainer, "train", noting_train),
    ):
        yield seen


def hash_of_weights(weights: dict[str, Any]) -> str:
    """The SHA-256 of named tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


class Work:
    """What several pins look at, made once when it is first asked for.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def people(self) -> Path:
        """The 16 documents about people of the demo (`documents`), and the questions on them (`questions.jsonl`)."""
        folder = self.folder / "people"
        shutil.copytree(ACME / "documents" / "people", folder / "documents" / "people")
        lines = (ACME / "questions.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        here = [line for line in lines if all(name.startswith("people/") for name in json.loads(line)["documents"])]
        (folder / "questions.jsonl").write_text("".join(here), encoding="utf-8")
        return folder

    def train(self, name: str, settings: dict[str, object]) -> tuple[Path, Watched]:
        """The whole job on these documents, with 32 pairs and one epoch; its folder and what was seen."""
        output = self.folder / name
        with watched() as seen:
            must_run(
                "run", self.people / "documents", "--questions", self.people / "questions.jsonl", "--output", output,
                "--base-model", "local", "--max-pairs", 32, "--max-length", 64, "--device", "cpu", "--seed", 0, "-q",
                *(part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")),
            )  # fmt: skip
        return output, seen

    @cached_property
    def random_batches(self) -> tuple[Path, Watched]:
        """The run whose batches follow from the seed alone. Its learning rate is so high that the base is kept."""
        return self.train("run", SETTINGS | RANDOM_BATCHES | {"learning_rate": 0.01})

    @cached_property
    def shipped(self) -> tuple[Path, Watched]:
        """A model that learned made-up words, so that it beats its base on each machine, and what was seen."""
        dataset, output = self.folder / "made-up words", self.folder / "shipped"
        write_beir(jargon_dataset(90, renamed=made_up, dev="train"), dataset)
        with watched() as seen:
            must_run(
                "train", dataset, "--output", output, "--base-model", "local", "--max-length", 64, "--epochs", 2,
                "--batch-size", 16, "--learning-rate", 5e-4, "--device", "cpu", "--seed", 0, "-q",
                *(part for name, value in MAY_FORGET.items() for part in ("--set", f"{name}={value}")),
            )  # fmt: skip
        return output, seen

    @property
    def run(self) -> Path:
        """The folder of this run."""
        return self.random_batches[0]

    @cached_property
    def without_dev(self) -> Path:
        """The dataset of this run without its dev split, so that a training carves one."""
        folder = self.folder / "without dev"
        shutil.copytree(self.run / "dataset", folder)
        (folder / "qrels" / "dev.tsv").unlink()
        return folder

    @cached_property
    def adapter(self) -> tuple[Path, Recording]:
        """An adapter over an embedding that follows from words, and the embedding, which notes its texts."""
        model = Recording(model_name="recording")
        output = self.folder / "adapter"
        train_adapter(jargon_dataset(), model, output, recipe=AdapterRecipe(max_pairs=60, **ADAPTER), cache=False)
        return self.folder / "adapter", model

    @cached_property
    def journal(self) -> Path:
        """The journal of an LLM that was asked about six passages, beside the dataset of its questions (`asked`)."""
        nodes = rag_ft.cut_into_nodes(rag_ft.read_documents(self.people / "documents"))
        journal = self.folder / "journal.jsonl"
        made = rag_ft.generate_qa_dataset(
            nodes, FixedLLM(), question_options=QuestionOptions(journal=journal, max_passages=6, answers=True)
        )
        write_beir(made.dataset, self.folder / "asked", made.dropped)
        return journal

    @cached_property
    def votes(self) -> Path:
        """A file of votes: of `ABRetriever` in both modes, and of a person who votes, picks, takes back and scores."""
        file = self.folder / "votes.jsonl"
        sides = (FixedRetriever("x", "y"), FixedRetriever("y", "z"))
        split = ABRetriever(*sides, mode="split", votes=file)
        for number in range(8):
            with ab_session(f"user-{number}"):
                split.retrieve("What is a claim?")
        both = ABRetriever(*sides, mode="interleave", votes=file)
        with ab_session("user-0"):
            found = both.retrieve("What is a claim?")
        query = found[0].metadata["ab_query"]
        both.pick(query, found[0].node_id)
        votes = Votes(file)
        votes.unpick(query, found[0].node_id)
        rankings = {"a": ["x", "y"], "b": ["y", "z"]}
        results = ShownResults(order=["b", "a"], rankings=rankings)
        votes.shown("q", "side-by-side", "user-0", "What is a claim?", results)
        votes.vote("q", "b")
        votes.pick("q", "y", "a")
        votes.failed("q", "a", "it broke off")
        votes.score("q", "b", "faithfulness", 1.0)
        return file


class FixedRetriever(BaseRetriever):
    """Finds the same passages for each question."""

    def __init__(self, *ids: str) -> None:
        super().__init__()
        self.found = [NodeWithScore(node=TextNode(id_=key, text=f"Text of {key}."), score=1.0) for key in ids]

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self.found


class FixedLLM(CustomLLM):
    """Asks for the long words of a passage."""

    @classmethod
    def class_name(cls) -> str:
        return "FixedLLM"

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="fixed")

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        passage = prompt.rpartition("<passage>")[2].partition("</passage>")[0]
        words = sorted(set(re.findall(r"[a-z]{7,}", passage)))[:12]
        asked = [f"Where do I read about {' and '.join(words[start::2][:4])}?" for start in (0, 1)]
        sentence = passage.strip().split(". ")[0]
        rows = [{"question": text, "answer": "Here.", "evidence": sentence} for text in asked]
        return CompletionResponse(text=json.dumps({"questions": rows}))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError


class Recording(BaseEmbedding):
    """Vectors that follow from the words of a text; it notes what it embeds."""

    queries: list[str] = []  # noqa: RUF012
    passages: list[str] = []  # noqa: RUF012

    @classmethod
    def class_name(cls) -> str:
        return "Recording"

    def _get_text_embedding(self, text: str) -> list[float]:
        self.passages.append(text)
        return vector_of(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        self.queries.append(query)
        return vector_of(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


def vector_of(text: str) -> list[float]:
    """The sum of random vectors, one for each word."""
    vector = np.full(32, 0.01)
    for word in text.split():
        vector += np.random.default_rng(int(hashlib.sha256(word.encode()).hexdigest()[:8], 16)).normal(size=32)
    return [float(number) for number in vector / np.linalg.norm(vector)]


def made_up(word: str) -> str:
    """A word that no model knows, always the same one."""
    digest = hashlib.sha256(word.encode()).digest()
    return "".join("bdfgklmnprstvz"[digest[n] % 14] + "aeiou"[digest[n + 1] % 5] for n in (0, 2, 4))


def jargon_dataset(documents: int = 60, renamed: Callable[[str], str] = str, dev: str = "dev") -> QADataset:
    """Questions in other words than their passages, always the same ones: what can be learned at once.

    Args:
        documents: with three passages each.
        renamed: gives each word its form.
        dev: the split of the questions for dev.
    """
    draw = np.random.default_rng(0)
    passages: dict[str, rag_ft.Passage] = {}
    queries: dict[str, rag_ft.Query] = {}
    qrels: dict[str, dict[str, dict[str, int]]] = {split: {} for split in ("train", dev, "test")}
    for document in range(documents):
        split = ("train", "train", "train", dev, "test")[document % 5]
        for place in range(3):
            key = f"d{document}#{place}"
            words = [int(number) for number in draw.permutation(30)[:8]]
            text = " ".join(renamed(f"word{n}") for n in words)
            passages[key] = rag_ft.Passage(key, text, doc_id=f"d{document}")
            queries[f"q{key}"] = rag_ft.Query(f"q{key}", " ".join(renamed(f"jargon{n}") for n in words[:5]))
            qrels[split][f"q{key}"] = {key: 1}
    return QADataset(passages, queries, qrels)


# --- Files: the keys and their types


DATA = {
    "aspects", "corpus", "dev_apart", "dev_documents", "dev_makings", "dev_ndcg@10", "differences", "digests",
    "dropped", "general", "models", "question_styles", "refused", "styles", "verdicts",
}  # fmt: skip
"""Keys below which the keys are data: models, candidates, kinds of questions, passages."""


def keys_of(value: Any, path: str = "", key: str = "") -> dict[str, str]:
    """Each path of keys with the JSON types that stand there; keys that are data are `*`, and places in a list `[]`."""
    if isinstance(value, dict):
        found = {path: "object"} if path else {}
        for name, below in value.items():
            step = "*" if key in DATA else name
            found = joined(found, keys_of(below, f"{path}.{step}" if path else step, name if step != "*" else ""))
        return found
    if isinstance(value, list):
        found = {path: "array"}
        for below in value:
            found = joined(found, keys_of(below, f"{path}[]"))
        return found
    kind = {bool: "boolean", str: "string", int: "number", float: "number", type(None): "null"}[type(value)]
    return {path: kind}


def joined(one: dict[str, str], other: dict[str, str]) -> dict[str, str]:
    """Two sets of paths as one; a path with several types names all of them."""
    both = dict(one)
    for path, kind in other.items():
        both[path] = "|".join(sorted({*both.get(path, kind).split("|"), *kind.split("|")}))
    return both


def keys_of_file(file: Path) -> dict[str, str]:
    """The keys of a JSON file; of JSON lines those of all rows together."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".json":
        return keys_of(json.loads(text))
    found: dict[str, str] = {}
    for line in text.splitlines():
        found = joined(found, keys_of(json.loads(line)))
    return found


def pinned_keys(work: Work) -> dict[str, Any]:
    """The keys of each file that rag_ft writes, with the type of each value."""
    run, folder = work.run, work.folder
    dataset = folder / "reviewed"
    shutil.copytree(run / "dataset", dataset)
    must_run("review", dataset, "--export", folder / "sheet.csv")
    must_run("review", dataset, "--export", folder / "sheet.jsonl")
    sheet = (folder / "sheet.jsonl").read_text(encoding="utf-8")
    changed = sheet.replace('"keep": ""', '"keep": "no"', 1)
    head, _, tail = changed.rpartition('"question": "')
    (folder / "sheet.jsonl").write_text(f'{head}"question": "Please: {tail}', encoding="utf-8")
    must_run("review", dataset, "--import", folder / "sheet.jsonl")
    must_run("inspect", dataset, "--json", folder / "inspection.json")
    must_run("mine", dataset, "--by", "bm25", "--output", folder / "mined")
    must_run(
        "compare", dataset, "--baseline", "bm25", "--candidate", "bm25", "--json", folder / "bm25.json",
        "--questions", folder / "questions.jsonl",
    )  # fmt: skip
    scored = QADataset({}, {}, {}, scored_pairs=[ScoredPair("Who signs?", "A clerk signs.", 0.5)])
    write_beir(scored, folder / "scored")
    journal = work.journal  # beside it `asked` is written
    files = {
        "adapter: rag_ft.json": work.adapter[0] / "rag_ft.json",
        "asked: dataset.json": folder / "asked" / "dataset.json",
        "asked: queries.jsonl": folder / "asked" / "queries.jsonl",
        "compare: --json of bm25": folder / "bm25.json",
        "compare: --questions": folder / "questions.jsonl",
        "dataset: corpus.jsonl": run / "dataset" / "corpus.jsonl",
        "dataset: dataset.json": run / "dataset" / "dataset.json",
        "dataset: dropped.jsonl": run / "dataset" / "dropped.jsonl",
        "dataset: negatives.jsonl": folder / "mined" / "negatives.jsonl",
        "dataset: queries.jsonl": run / "dataset" / "queries.jsonl",
        "dataset: reviewed.jsonl": dataset / "reviewed.jsonl",
        "dataset: scored_pairs.jsonl": folder / "scored" / "scored_pairs.jsonl",
        "inspect: --json": folder / "inspection.json",
        "journal.jsonl": journal,
        "model: rag_ft.json": run / "model" / "rag_ft.json",
        "review: .jsonl": folder / "sheet.jsonl",
        "run: comparison.json": run / "comparison.json",
        "run: run.json": run / "run.json",
    }
    found: dict[str, Any] = {name: keys_of_file(file) for name, file in files.items()}
    for line in work.votes.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        name = f"votes: {row['event']}"
        found[name] = joined(found.get(name, {}), keys_of(row))
    with (folder / "sheet.csv").open(encoding="utf-8-sig", newline="") as stream:
        found["review: columns of .csv"] = next(csv.reader(stream))
    comparison = json.loads((run / "comparison.json").read_text(encoding="utf-8"))
    found["run: roles in comparison.json"] = sorted(comparison["models"])
    found["run: its files"] = sorted(
        path.relative_to(run).as_posix()
        for path in run.rglob("*")
        if path.is_file() and path.parent.parent != run / "chroma"
    )
    found["adapter: its files"] = sorted(path.name for path in work.adapter[0].iterdir())
    return found


def pinned_keys_of_shipped(work: Work) -> dict[str, Any]:
    """The keys of a model's `rag_ft.json` if the model is shipped: with its gain, and each kind of dev question."""
    output, _ = work.shipped
    assert json.loads((output / "rag_ft.json").read_text(encoding="utf-8"))["training"]["base_stays_because"] is None
    return {"model: rag_ft.json": keys_of_file(output / "rag_ft.json")}


# --- Draws and fingerprints that are the same on each machine


def sha256_of_file(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def sha256_of(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, ensure_ascii=False).encode()).hexdigest()


def told(values: list[str]) -> dict[str, Any]:
    """A long list by its length, its first values and a hash of all."""
    return {"count": len(values), "first": values[:3], "sha256": sha256_of(values)}


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def pinned_draws(work: Work) -> dict[str, Any]:
    """What follows from the seed and the texts alone."""
    run, seen = work.random_batches
    dataset = read_beir(run / "dataset")
    record = json.loads((run / "model" / "rag_ft.json").read_text(encoding="utf-8"))
    return {
        "dataset of the demo's people": {
            file.relative_to(run / "dataset").as_posix(): sha256_of_file(file)
            for file in sorted((run / "dataset").rglob("*.*"))
        },
        "dataset with seed 1, all documents known": splits_of(made_without_llm(work, seed=1, unseen_documents=0.0)),
        "dataset without real questions": splits_of(made_without_llm(work)),
        "dev of a training without dev": carved(work),
        "training: folders of checkpoints": {
            "run": seen.folders,
            "default recipe, seed 1, dev carved": folder_of_training(work, "--seed", 1, "--query-prefix", "query: "),
        },
        "training: batches": batches_of(seen, dataset),
        "training: batches' texts": sha256_of(sorted(pair for batch in seen.batches for pair in batch)),
        "training: sketches": {name: told(record["training"][name]) for name in ("corpus", "questions")},
        "training: recipe by default": default_recipe(record),
        "training: contract": {
            name: record[name]
            for name in record
            if name not in ("rag_ft", "created", "weights_sha256", "recipe", "training", "generations")
        },
        "run.json": json.loads((run / "run.json").read_text(encoding="utf-8"))["stages"],
        "adapter": drawn_for_adapter(work),
        "llm": drawn_for_llm(work),
        "bootstrap": intervals(),
        "index": collections_of(work),
        "cache of vectors": keys_of_cache(work),
        "votes": told_by_votes(work),
        "bm25": figures_of_bm25(run),
    }


def made_without_llm(work: Work, **settings: Any) -> QADataset:
    nodes = rag_ft.cut_into_nodes(rag_ft.read_documents(work.people / "documents"))
    return rag_ft.generate_qa_dataset(nodes, use_llm=False, **settings).dataset


def splits_of(dataset: QADataset) -> dict[str, Any]:
    """The questions of each split, with their passages and texts."""
    return {
        split: told([f"{query} {sorted(found)} {dataset.queries[query].text}" for query, found in qrels.items()])
        | {"first": list(qrels)[:3]}
        for split, qrels in dataset.qrels.items()
    }


def carved(work: Work) -> dict[str, Any]:
    """The ids of the dev questions that are taken out of train."""
    dataset = read_beir(work.without_dev)
    return {f"seed {seed}": sorted(inner().hold_out_dev(dataset, seed=seed).qrels["dev"]) for seed in (0, 1)}


def folder_of_training(work: Work, *options: object) -> list[str]:
    """The name of the folder of checkpoints: what must be the same for a killed training to go on."""
    output = work.folder / "stopped"
    with watched(stop=True) as seen, pytest.raises(StoppedError):
        run_command("train", work.without_dev, "--output", output, "--base-model", "local", "-q", *options)
    shutil.rmtree(work.folder / ".stopped.training")
    return seen.folders


def batches_of(seen: Watched, dataset: QADataset) -> list[list[str]]:
    """The ids of the questions in each batch; the tokenizer has taken case and some spaces from their texts."""
    known = {letters(query.text): query.id for query in dataset.queries.values()}

    def name(text: str) -> str:
        wanted = letters(text)
        return known.get(wanted) or next(key for words, key in known.items() if words.startswith(wanted))

    return [[name(question) for question, _ in batch] for batch in seen.batches]


def letters(text: str) -> str:
    return "".join(re.findall(r"\w", text.lower()))


def default_recipe(record: dict[str, Any]) -> dict[str, Any]:
    """The recipe of a training on generated questions, without what this run sets itself."""
    own = {*SETTINGS, *RANDOM_BATCHES}
    return {name: value for name, value in record["recipe"].items() if name not in own}


def drawn_for_adapter(work: Work) -> dict[str, Any]:
    """What an adapter's training embeds: with at most 60 pairs, which of them; it needs no figure."""
    _, model = work.adapter
    dataset = jargon_dataset()
    ids = {query.text: query.id for query in dataset.queries.values()}
    asked = {ids[text] for text in model.queries if text in ids}
    passages = {text for text in model.passages if text.startswith("word")}
    return {
        "train": told(sorted(query for query in dataset.qrels["train"] if query in asked)),
        "dev": told(sorted(query for query in dataset.qrels["dev"] if query in asked)),
        "test": told(sorted(query for query in dataset.qrels["test"] if query in asked)),
        "passages": told(sorted(passages)),
        "other texts": told(sorted({*model.queries, *model.passages} - ids.keys() - passages)),
    }


def drawn_for_llm(work: Work) -> dict[str, Any]:
    """The keys of the journal, by which an LLM is not asked twice, and the dataset of its answers."""
    keys = sorted(row["key"] for row in rows_of(work.journal))
    return {"keys of the journal": keys, "dataset": splits_of(read_beir(work.folder / "asked"))}


def intervals() -> dict[str, Any]:
    """Paired bootstraps of fixed differences: single questions, few documents, and more groups than are resampled."""
    draw = np.random.default_rng(0)
    found = {}
    for name, count, groups in (("100 questions", 100, 100), ("8 documents", 80, 8), ("1,500 groups", 3000, 1500)):
        difference = inner().paired_bootstrap(draw.normal(0.05, 0.2, count), [n % groups for n in range(count)], seed=0)
        found[name] = [round(float(x), 9) for x in (difference.mean, *difference.ci95, difference.p_value)]
    return found


def collections_of(work: Work) -> dict[str, Any]:
    """The names of an index's collections, and what they say of the embedding."""
    chroma = work.folder / "chroma"
    documents = write_inputs(work.folder / "indexed")["docs"]
    for _ in range(2):
        must_run("index", documents, "--model", "local", "--collection", "forms", "--chroma", chroma, "--fresh", "-q")
    with sqlite3.connect(chroma / "chroma.sqlite3") as database:
        rows = database.execute(
            "SELECT c.name, m.key, coalesce(m.str_value, m.int_value, m.float_value, m.bool_value) "
            "FROM collections c LEFT JOIN collection_metadata m ON m.collection_id = c.id ORDER BY c.name, m.key"
        ).fetchall()
    found: dict[str, Any] = {}
    for name, key, value in rows:
        # The pointer names the time at which a collection was replaced.
        known = re.sub(r"\d{9,}(\.\d+)?", "TIME", str(value)) if name.endswith("pointer") else value
        found.setdefault(name, {})[str(key)] = known
    return found


def keys_of_cache(work: Work) -> dict[str, Any]:
    """The keys under which vectors are kept, by which a text is not paid for twice."""
    file = work.folder / "vectors.sqlite"
    cached = CachedEmbedding(Recording(model_name="recording"), cache=file)
    cached.get_query_embedding("What is a Kittiwake?")
    cached.get_text_embedding("A Kittiwake is an expenses claim.")
    with sqlite3.connect(file) as database:
        keys = [bytes(key).hex() for (key,) in database.execute("SELECT key FROM vectors ORDER BY key")]
        models = [bytes(name).hex() for (name,) in database.execute("SELECT name FROM models ORDER BY name")]
    return {"vectors": keys, "models": models}


def told_by_votes(work: Work) -> dict[str, Any]:
    """Which side each session sees, always the same one, and the hash that stands for a passage."""
    rows = rows_of(work.votes)
    return {
        "sides": {row["session"]: row["side"] for row in rows if row.get("mode") == "split"},
        "digests": {row["text"]: row["digest"] for row in rows if row["event"] == "passage"},
    }


def figures_of_bm25(run: Path) -> dict[str, float]:
    """The figures of BM25 in the comparison: no model takes part."""
    comparison = json.loads((run / "comparison.json").read_text(encoding="utf-8"))
    return {name: round(value, 4) for name, value in comparison["models"]["bm25"]["metrics"].items()}


# --- Figures that are the same on one machine only


TIMES = {
    "created", "index_seconds", "minutes", "query_milliseconds", "seconds", "seconds_of_vectors", "texts_per_second",
}  # fmt: skip


def without_times(value: Any) -> Any:
    """A record without what differs from run to run."""
    if isinstance(value, dict):
        return {key: without_times(below) for key, below in value.items() if key not in TIMES}
    return [without_times(below) for below in value] if isinstance(value, list) else value


def figures(work: Work) -> dict[str, Any]:
    """Weights, dev figures and comparisons of small trainings on the CPU, to be compared on one machine."""
    found: dict[str, Any] = {}
    for name, settings in (("random batches", RANDOM_BATCHES), ("similar batches", {})):
        run, seen = work.train(name, SETTINGS | settings)
        found[name] = {
            "weights after training": seen.weights,
            "weights of the model": sha256_of_file(run / "model" / "model.safetensors"),
            "batches": batches_of(seen, read_beir(run / "dataset")),
            "rag_ft.json": without_times(json.loads((run / "model" / "rag_ft.json").read_text(encoding="utf-8"))),
            "comparison.json": without_times(json.loads((run / "comparison.json").read_text(encoding="utf-8"))),
        }
    folder, seen = work.shipped
    found["shipped"] = {
        "weights after training": seen.weights,
        "weights of the model": sha256_of_file(folder / "model.safetensors"),
        "rag_ft.json": without_times(json.loads((folder / "rag_ft.json").read_text(encoding="utf-8"))),
    }
    folder = work.folder / "adapter by default"
    train_adapter(jargon_dataset(), Recording(model_name="recording"), folder, cache=False)
    found["adapter"] = {
        "weights": {file.name: sha256_of_file(file) for file in sorted(folder.glob("*.safetensors"))},
        "rag_ft.json": without_times(json.loads((folder / "rag_ft.json").read_text(encoding="utf-8"))),
    }
    must_run(
        "check", work.folder / "random batches" / "dataset", "--base-model", "local", "--json",
        work.folder / "check.json", "-q",
    )  # fmt: skip
    found["check --json"] = without_times(json.loads((work.folder / "check.json").read_text(encoding="utf-8")))
    return found


# --- Comparison with the pins


SECTIONS: dict[str, Callable[[Work], dict[str, Any]]] = {
    "commands": pinned_commands,
    "exit_codes": pinned_exit_codes,
    "keys": pinned_keys,
    "draws": pinned_draws,
    "keys_shipped": pinned_keys_of_shipped,
}
SLOW = ("keys_shipped",)
"""A training of its own for each."""


def lost(pinned: Any, found: Any, *where: str) -> Iterator[str]:
    """Each thing that was pinned and is not there any more; what is new is no difference."""
    name = " / ".join(where)
    if is_removed(name):
        return
    of_keys = where[0].startswith("keys")
    if isinstance(pinned, dict) and isinstance(found, dict):
        for key, value in pinned.items():
            if key in found:
                yield from lost(value, found[key], *where, key)
            elif of_keys and is_optional(key, found):
                continue
            else:
                yield from gone(value, *where, key)
    elif isinstance(pinned, list) and isinstance(found, list) and (where[-1] in SUBSETS or of_keys):
        for value in pinned:
            if value not in found:
                yield from gone(value, *where, str(value))
    elif of_keys and isinstance(pinned, str) and isinstance(found, str):
        # A value that is missing in one run and not in another says nothing about its type.
        if pinned != "null" and not {*found.split("|")} <= {*pinned.split("|"), "null"}:
            yield f"{name}: was {pinned}, is {found}"
    elif isinstance(pinned, list) and isinstance(found, list) and len(pinned) == len(found) and pinned != found:
        for place, (before, after) in enumerate(zip(pinned, found, strict=True), start=1):
            yield from lost(before, after, *where, str(place))
    elif pinned != found and not (isinstance(pinned, float) and found == pytest.approx(pinned, abs=1e-9)):
        yield f"{name}: was {json.dumps(pinned, ensure_ascii=False)}, is {json.dumps(found, ensure_ascii=False)}"


def gone(pinned: Any, *where: str) -> Iterator[str]:
    """The one difference of something that is not there any more, unless it was removed on purpose."""
    name = " / ".join(where)
    if not is_removed(name):
        yield f"{name}: was {pinned if isinstance(pinned, str) else json.dumps(pinned, ensure_ascii=False)}, is nothing"


def is_removed(name: str) -> bool:
    """Whether something, or what it is a part of, was removed on purpose."""
    return any(name == removed or name.startswith(f"{removed} / ") for removed in REMOVED)


def is_optional(path: str, found: dict[str, str]) -> bool:
    """Whether a path is below a value that is null, or in a list or an object of data that is empty, in this run."""
    while path and path not in found:
        above = path.removesuffix("[]") if path.endswith("[]") else path.rpartition(".")[0]
        kinds = found.get(above, "").split("|")
        if "null" in kinds or ("array" in kinds and path.endswith("[]")) or ("object" in kinds and path.endswith(".*")):
            return True
        path = above
    return False


def as_json(value: Any, indent: int = 0) -> str:
    """JSON with what is short on one line."""
    short = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or len(short) + indent < 118:
        return short
    opened, closed = "{}" if isinstance(value, dict) else "[]"
    space = " " * (indent + 1)
    if isinstance(value, dict):
        lines = [f"{space}{json.dumps(key, ensure_ascii=False)}: {as_json(value[key], indent + 1)}" for key in value]
    else:
        lines = [space + as_json(below, indent + 1) for below in value]
    return f"{opened}\n" + ",\n".join(lines) + f"\n{' ' * indent}{closed}"


def in_order(value: Any) -> Any:
    """The same value with the keys of each object sorted."""
    if isinstance(value, dict):
        return {key: in_order(value[key]) for key in sorted(value)}
    return [in_order(below) for below in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    return Work(tmp_path_factory.mktemp("pins"))


@pytest.mark.parametrize(
    "section", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in SECTIONS]
)
def test_what_was_pinned_is_still_there(section: str, work: Work) -> None:
    pinned = json.loads((PINS / f"{section}.json").read_text(encoding="utf-8"))
    found = json.loads(json.dumps(SECTIONS[section](work)))
    differences = list(lost(pinned, found, section))
    assert not differences, "\n" + "\n".join(differences)


def test_a_removed_option_and_a_lost_choice_are_told() -> None:
    before = {"train": {"--loss": {"names": ["--loss"], "choices": ["gist", "mnr"]}, "--lora": {"names": ["--lora"]}}}
    after = {"train": {"--loss": {"names": ["--loss", "-l"], "choices": ["kl", "mnr"]}, "--new": {"names": ["--new"]}}}
    assert [each.split(":")[0] for each in lost(before, after, "commands")] == [
        "commands / train / --loss / choices / gist",
        "commands / train / --lora",
    ]


def test_a_value_that_is_null_says_nothing_about_what_is_below_it() -> None:
    pinned = {"gain": "object", "gain.mean": "number", "pairs": "number", "seen": "array", "seen[]": "string"}
    pinned |= {"rows": "array", "rows[]": "object", "rows[].id": "string", "models": "object", "models.*": "object"}
    found = {"gain": "null", "seen": "array", "seen[]": "number", "new": "number", "rows": "array", "models": "object"}
    assert list(lost(pinned, found, "keys")) == [
        "keys / pairs: was number, is nothing",
        "keys / seen[]: was string, is number",
    ]
    assert list(lost({"models.*.name": "string"}, {"models": "object", "models.*": "object"}, "keys"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Store the pins, or the figures of small trainings.")
    parser.add_argument("--write", action="store_true", help="store the current behaviour in tests/pins")
    parser.add_argument("--figures", type=Path, metavar="FILE", help="write figures to compare on this machine")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder))
        if arguments.figures is not None:
            arguments.figures.write_text(as_json(in_order(figures(work))) + "\n", encoding="utf-8")
        if arguments.write:
            PINS.mkdir(exist_ok=True)
            for name, section in SECTIONS.items():
                text = as_json(in_order(json.loads(json.dumps(section(work)))))
                (PINS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
