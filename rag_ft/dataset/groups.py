"""What belongs together directly or through others: connected components."""

from __future__ import annotations

from collections.abc import Iterable


def joined(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Give each of the numbers below `count` the smallest one that pairs connect it with.

    Example:
        >>> from rag_ft.dataset.groups import joined
        >>> joined(4, [(0, 2), (2, 3)])
        [0, 1, 0, 0]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = list(pairs)
    rows, columns = [one for one, _ in edges], [other for _, other in edges]
    _, component = connected_components(
        coo_array(([1] * len(edges), (rows, columns)), shape=(count, count)), directed=False
    )
    smallest: dict[int, int] = {}
    return [smallest.setdefault(int(label), place) for place, label in enumerate(component)]
