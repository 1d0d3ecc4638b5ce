"""The folder of an ordinary app: forty files of three kinds, read and cut by LlamaIndex with its defaults."""

from __future__ import annotations

import random
from pathlib import Path

from llama_index.core import SimpleDirectoryReader
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import BaseNode, Document

KINDS = (".md", ".txt", ".html")

THINGS = [
    "crane", "winch", "pump", "gauge", "hoist", "lamp", "ladder", "rope", "anchor", "buoy", "valve", "mast",
    "derrick", "capstan", "bollard", "fender", "gangway", "hatch", "keel", "rudder", "tiller", "windlass",
    "bilge", "cleat", "davit", "fairlead", "gaff", "halyard", "jib", "kedge", "lanyard", "marlin", "oarlock",
    "painter", "quay", "rigging", "sextant", "thwart", "vang", "yawl",
]  # fmt: skip
"""One for each file."""

ROLES = ["warden", "porter", "clerk", "master", "keeper", "steward", "bosun", "purser"]
PLACES = ["harbour", "dock", "yard", "silo", "depot", "ramp", "lock", "pier"]


def text_about(number: int) -> str:
    """A few paragraphs about one thing, which no other file repeats."""
    draw, thing = random.Random(number), THINGS[number]
    paragraphs = []
    for part in range(4):
        role, place, other = draw.choice(ROLES), draw.choice(PLACES), draw.choice(ROLES)
        paragraphs.append(
            f"The {thing} at the {place} is inspected by the {role} every {draw.randint(2, 90)} days before noon. "
            f"Whoever damages the {thing} reports it to the {other} on form T-{number}{part} within "
            f"{draw.randint(1, 9)} hours. The {role} keeps a {thing} log in room {draw.randint(100, 999)} of the "
            f"{place}. "
            f"Without a permit of the {other} nobody moves a {thing} across the {place} at night."
        )
    return f"# Rules for the {thing}\n\n" + "\n\n".join(paragraphs) + "\n"


def write_app_folder(folder: Path, files: int = 40) -> Path:
    """Write the files, in three folders."""
    for number in range(files):
        kind = KINDS[number % len(KINDS)]
        text = text_about(number)
        if kind == ".html":
            text = "<html><body>" + "".join(f"<p>{line}</p>" for line in text.splitlines() if line) + "</body></html>"
        file = folder / f"part{number % 3}" / f"{THINGS[number]}{kind}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder


def read_app_folder(folder: Path, seed: int | None = None) -> list[Document]:
    """Read the files as an app does; with a seed in another order."""
    documents = SimpleDirectoryReader(str(folder), recursive=True).load_data()
    if seed is not None:
        random.Random(seed).shuffle(documents)
    return documents


def app_nodes(folder: Path, seed: int | None = None) -> list[BaseNode]:
    """Cut the documents with LlamaIndex's defaults: 1,024 tokens, overlap 200."""
    return SentenceSplitter().get_nodes_from_documents(read_app_folder(folder, seed))
