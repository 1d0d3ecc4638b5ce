"""Interleave two rankings into one list, and return which variant contributed each passage."""

from __future__ import annotations

import random
from collections.abc import Sequence

from llama_index.core.schema import NodeWithScore

from rag_ft.feedback.variants import VARIANTS, Variant


def team_draft(
    a: Sequence[NodeWithScore], b: Sequence[NodeWithScore], length: int, rng: random.Random
) -> tuple[list[NodeWithScore], list[Variant]]:
    """Interleave two rankings by team draft (Radlinski, Kurup and Joachims 2008).

    In each round a coin flip decides which variant picks first. Each picks its best passage that is not in the list.

    Args:
        a: the ranking of variant a, best first.
        b: the ranking of variant b.
        length: maximum length of the list.
        rng: decides which variant picks first in each round.

    Returns:
        (the list, the variant that picked each passage).
    """
    remaining: dict[Variant, list[NodeWithScore]] = {"a": list(a), "b": list(b)}
    nodes: list[NodeWithScore] = []
    teams: list[Variant] = []
    taken: set[str] = set()
    while len(nodes) < length and any(remaining.values()):
        for variant in rng.sample(VARIANTS, 2):
            while remaining[variant] and remaining[variant][0].node_id in taken:
                remaining[variant].pop(0)
            if remaining[variant] and len(nodes) < length:
                node = remaining[variant].pop(0)
                taken.add(node.node_id)
                nodes.append(node)
                teams.append(variant)
    return nodes, teams
