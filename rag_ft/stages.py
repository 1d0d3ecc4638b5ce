"""The stages of a run folder: which are done, and what each depended on (`run.json`)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.schema import MetadataMode, NodeRelationship

from rag_ft.dataset.units import is_random
from rag_ft.documents.node_documents import name_documents
from rag_ft.documents.node_gate import admitted, embedded_text
from rag_ft.errors import InputError
from rag_ft.files import read_json, sha256_of, sha256_of_file, write_json
from rag_ft.generation.llm_questions import llm_identity

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode

    from rag_ft.feedback.vote_log import Votes
    from rag_ft.generation.question_options import QuestionOptions

logger = logging.getLogger(__name__)

CALL_OPTIONS = {"journal", "workers", "requests_per_minute", "batch", "approve", "show_progress"}
"""Fields of `QuestionOptions` that change how an LLM is called, but no question."""

ARGUMENTS = {"new_documents": "unseen_documents"}
"""Key of `run.json` -> name of the argument, if it differs."""

PARENTS = {NodeRelationship.PARENT, NodeRelationship.CHILD}

STAGES = ("dataset", "model", "comparison", "index")
"""The stages in order: each depends on those before it."""


class Stages:
    """The finished stages of a run, stored in `run.json`.

    A stage is done if it finished with the same arguments and no stage before it was repeated.

    Args:
        folder: the run folder.

    Raises:
        InputError: if the folder contains something other than a run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "run.json"
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not self.file.exists()):
            raise InputError(
                f"{folder} exists and is not a run of rag_ft: choose another --output (nothing is overwritten)"
            )
        self._stages: dict[str, dict[str, Any]] = read_json(self.file)["stages"] if self.file.exists() else {}
        self._any_repeated = False

    def done(self, name: str, arguments: dict[str, Any], product: str) -> bool:
        """Return whether a stage finished with these arguments and its product exists."""
        # An unset option is missing, or null in folders of version 0.1.0.
        if name not in self._stages or self._any_repeated:
            return False
        stored, current = _without_none(self._stages[name]), _without_none(arguments)
        if stored != current:
            changed = [ARGUMENTS.get(key, key) for key in {**stored, **current} if stored.get(key) != current.get(key)]
            logger.warning("%s: repeated, because %s changed since it was done", name, ", ".join(changed))
            return False
        if not (self.file.parent / product).is_file():
            return False
        logger.info("%s: already done, skipped", name)
        return True

    def start(self, name: str) -> None:
        """Start a stage: it and the stages after it are no longer done."""
        self._any_repeated = True
        for stale in STAGES[STAGES.index(name) :]:
            self._stages.pop(stale, None)
        write_json(self.file, {"stages": self._stages})

    def withdraw(self) -> None:
        """Delete the run folder if the run failed before anything was stored in it."""
        if not self._stages and list(self.file.parent.iterdir()) == [self.file]:
            self.file.unlink()
            self.file.parent.rmdir()

    def finish(self, name: str, arguments: dict[str, Any]) -> None:
        """Mark a stage as done."""
        self._stages[name] = arguments
        write_json(self.file, {"stages": self._stages})


def _without_none(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def fingerprint_of_nodes(nodes: Iterable[BaseNode], *, as_indexed: bool = False) -> str:
    """Return a hash of the nodes' documents and texts, whatever their order and their random ids are.

    Args:
        nodes: the nodes.
        as_indexed: include the metadata that an index stores, and what is excluded from it. The ids are included if
            nodes refer to larger or smaller ones by id, which an app may look up in a document store.
    """
    kept = {node.node_id: node for node in admitted(nodes)}
    documents = name_documents(kept)
    has_parents = any(PARENTS & node.relationships.keys() for node in kept.values())

    def parts(key: str) -> Iterator[str]:
        # Random ids are another app's or run's. Ids that somebody chose name the document, as in question files.
        name = documents[key] or key
        yield "" if is_random(name) else name
        yield kept[key].get_content(metadata_mode=MetadataMode.NONE)
        yield embedded_text(kept[key])
        if as_indexed:
            node = kept[key]
            yield json.dumps(node.metadata, sort_keys=True)
            yield json.dumps([node.excluded_embed_metadata_keys, node.excluded_llm_metadata_keys])
            yield key if has_parents else ""

    return sha256_of(*sorted(sha256_of(*parts(key)) for key in kept))


def fingerprint_of_questions(dataset: Path) -> str:
    """Return a hash of a dataset folder's questions, which `rag-ft review` may have changed."""
    files = [dataset / "queries.jsonl", *sorted(dataset.glob("qrels/*.tsv"))]
    return sha256_of(*(sha256_of_file(file) for file in files))


def plain_value(value: Any) -> Any:
    """Return a setting as stored in `run.json`; of a model only its name, never its key."""
    if hasattr(value, "metadata") and hasattr(value, "class_name"):
        return llm_identity(value)
    if hasattr(value, "template_vars"):
        return value.format(**{name: f"{{{name}}}" for name in value.template_vars})
    if is_dataclass(value):
        return {each.name: plain_value(getattr(value, each.name)) for each in fields(value)}
    if hasattr(value, "model_name"):
        return str(value.model_name)
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def plain_options(options: QuestionOptions) -> dict[str, Any]:
    """Return the options that change a question and differ from the default, as stored in `run.json`."""
    default = type(options)()
    changed = [
        each.name
        for each in fields(options)
        if each.name not in {*CALL_OPTIONS, "feedback"} and getattr(options, each.name) != getattr(default, each.name)
    ]
    # `max_passages` is always included, because `rag-ft run` has always stored it.
    names = sorted({*changed, "max_passages"})
    return {name: plain_value(getattr(options, name)) for name in names} | _votes_in(options.feedback)


def _votes_in(feedback: str | Path | Votes | None) -> dict[str, str]:
    """Return a hash of the users' picks, because new picks change the dataset."""
    if feedback is None:
        return {}
    file = Path(feedback) if isinstance(feedback, str | Path) else feedback.file
    return {"feedback": sha256_of_file(file) if file.is_file() else str(file)}
