"""Passages and nodes to generate questions from and to index."""

from __future__ import annotations

from llama_index.core.schema import TextNode

from rag_ft.dataset.qa_dataset import Passage

PASSAGES = 600


def about(count: int) -> list[Passage]:
    return [Passage(f"p{n}", f"Form T-{n} is signed by the master of harbour {n}.") for n in range(count)]


def about_in_winter(count: int) -> list[Passage]:
    return [
        Passage(f"p{n}", f"Form number {n} is signed by the master of harbour {n} in winter.") for n in range(count)
    ]


def forms(count: int) -> list:
    kinds = ["alder", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "willow"]
    return [
        TextNode(
            id_=f"n{place}",
            text=f"The form for {kinds[place % 12]} number {place} is signed by master {place * 7}. "
            f"It is valid for {place + 3} months in the harbour of {kinds[(place * 5 + 1) % 12]}.",
        )
        for place in range(count)
    ]


def passages(version: str) -> list:
    return [TextNode(id_=f"{n}", text=f"Passage {n} of {version}.") for n in range(PASSAGES)]
