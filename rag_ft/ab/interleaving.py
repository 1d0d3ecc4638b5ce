"""Two rankings -> one list, in which each passage knows who picked it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from llama_index.core.schema import NodeWithScore

from rag_ft.feedback.variants import VARIANTS, Variant


def team_draft(
    a: Sequence[NodeWithScore], b: Sequence[NodeWithScore], length: int, draw: random.Random
) -> tuple[list[NodeWithScore], list[Variant]]:
    """Interleave two rankings by team draft (Radlinski, Kurup and Joachims 2008).

    In each round the sides pick in an order that a coin decides, each its best passage that is not there yet.

    Args:
        a: one ranking, best first.
        b: the other one.
        length: of the list, at most.
        draw: whose coin decides who picks first in a round.

    Returns:
        (the list, who picked each).
    """
    rest: dict[Variant, list[NodeWithScore]] = {"a": list(a), "b": list(b)}
    nodes: list[NodeWithScore] = []
    teams: list[Variant] = []
    taken: set[str] = set()
    while len(nodes) < length and any(rest.values()):
        for side in draw.sample(VARIANTS, 2):
            while rest[side] and rest[side][0].node_id in taken:
                rest[side].pop(0)
            if rest[side] and len(nodes) < length:
                node = rest[side].pop(0)
                taken.add(node.node_id)
                nodes.append(node)
                teams.append(side)
    return nodes, teams
