"""What belongs together directly or through others."""

from __future__ import annotations

from collections.abc import Iterable


class Groups:
    """Numbers below `count`, joined two by two (union-find).

    Example:
        >>> from rag_ft.dataset.text.groups import Groups
        >>> groups = Groups(4)
        >>> groups.join(0, 2), groups.join(2, 3)
        (None, None)
        >>> groups.numbers()
        [0, 1, 0, 0]
    """

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def of(self, number: int) -> int:
        """The group of a number: the smallest number in it."""
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number

    def join(self, one: int, other: int) -> None:
        """Make one group of those of two numbers."""
        small, large = sorted((self.of(one), self.of(other)))
        self._parent[large] = small

    def numbers(self) -> list[int]:
        """The group of every number."""
        return [self.of(number) for number in range(len(self._parent))]


def joined(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Give each of the numbers below `count` the smallest one that pairs connect it with.

    Example:
        >>> from rag_ft.dataset.text.groups import joined
        >>> joined(4, [(0, 2), (2, 3)])
        [0, 1, 0, 0]
    """
    groups = Groups(count)
    for one, other in pairs:
        groups.join(one, other)
    return groups.numbers()
