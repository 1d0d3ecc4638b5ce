"""LlamaIndex's metadata filters as Chroma's, for texts, numbers and lists of them.

Chroma compares a list with `$contains` only and never with `$eq`, so a filter on one value looks for both: the value
itself, and a list that has it. Values that Chroma cannot filter by are refused if a filter finds nothing because of
them, since Chroma says nothing.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rag_ft.clean_text import clean_text
from rag_ft.errors import InputError
from rag_ft.index.records import LIST_KEYS, UNFILTERABLE_KEYS, is_valid_key

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection
    from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

Where = dict[str, Any]

COMPARISONS = {">": "$gt", ">=": "$gte", "<": "$lt", "<=": "$lte"}
LIST_OPERATORS = ("contains", "any", "all")
OPERATORS = ("==", "!=", "in", "nin", *COMPARISONS, *LIST_OPERATORS)

MANY_VALUES = 20
"""Number of values above which lists are looked for only if a node has a list under the key: each value takes .2 ms."""

MAX_BRANCHES = 100
"""Maximum number of conditions joined at one level; SQLite refuses expressions that are nested a thousand deep."""


def chroma_filter(filters: MetadataFilters | None, has_lists: Callable[[str], bool] = lambda key: True) -> Where | None:
    """Translate filters. On lists, `==` and `in` find those that have a value, `!=` and `nin` those that do not.

    Args:
        filters: LlamaIndex's filters.
        has_lists: whether a node has a list under a key; asked only for filters with many values.

    Raises:
        InputError: if Chroma has no such filter; the message names the key and the operators that work.

    Example:
        >>> from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters
        >>> from rag_ft.index.filters import chroma_filter
        >>> tagged = MetadataFilter(key="tags", value="leave", operator=FilterOperator.CONTAINS)
        >>> chroma_filter(MetadataFilters(filters=[tagged]))
        {'tags': {'$contains': 'leave'}}
    """
    from llama_index.core.vector_stores.types import MetadataFilters

    if filters is None:
        return None
    condition = str(getattr(filters.condition, "value", filters.condition) or "and")
    if condition not in ("and", "or"):
        raise InputError(f"Chroma cannot join filters by {condition!r}: use 'and' or 'or', with != or nin in them")
    parts = [
        chroma_filter(each, has_lists) if isinstance(each, MetadataFilters) else _condition(each, has_lists)
        for each in filters.filters
    ]
    return _joined(f"${condition}", [part for part in parts if part is not None])


class FilterTranslator:
    """Translates filters for a collection, and explains why they found nothing if they cannot find anything.

    A record lists the keys of its lists and of values that Chroma does not store. Only empty results are checked, so
    that other queries take no longer.
    """

    def __init__(self) -> None:
        self._found: set[tuple[str, str, str]] = set()

    def where(self, collection: Collection, filters: MetadataFilters | None) -> Where | None:
        """Translate filters (`chroma_filter`)."""
        return chroma_filter(filters, lambda key: self._has(collection, LIST_KEYS, key))

    def explain_nothing(self, collection: Collection, filters: MetadataFilters | None) -> None:
        """Check each filter of a query that found nothing.

        Raises:
            InputError: if a filter does not suit the values of its key.
        """
        for each in _needed(filters):
            key, operator = clean_text(each.key), _operator(each)
            if operator in ("!=", "nin"):
                continue
            if self._has(collection, UNFILTERABLE_KEYS, key):
                raise InputError(
                    f"the metadata {key!r} cannot be filtered: it holds dictionaries or lists of several types. Use a "
                    "key with texts, numbers, or lists of one of them"
                )
            if operator in COMPARISONS and self._has(collection, LIST_KEYS, key):
                raise InputError(
                    f"the metadata {key!r} holds lists, which {operator!r} does not compare: use ==, !=, in, nin, "
                    "contains, any or all"
                )
            if operator in LIST_OPERATORS and not self._has(collection, LIST_KEYS, key):
                logger.warning(
                    "no node has a list under the metadata %r, so %r finds nothing: use ==, !=, in, nin, >, >=, < or "
                    "<=, or update an index that an earlier version built (update_index)", key, operator,
                )  # fmt: skip

    def _has(self, collection: Collection, entry: str, key: str) -> bool:
        """Return whether a record lists a key. Chroma reads all such records, so it is asked once."""
        known = (str(collection.id), entry, key)
        if known not in self._found and collection.get(where={entry: {"$contains": key}}, limit=1, include=[])["ids"]:
            self._found.add(known)
        return known in self._found


def _needed(filters: MetadataFilters | None) -> Iterator[MetadataFilter]:
    """Yield the filters that a passage must match, and not those of which any may match."""
    from llama_index.core.vector_stores.types import FilterCondition, MetadataFilters

    if filters is None or (filters.condition == FilterCondition.OR and len(filters.filters) > 1):
        return
    for each in filters.filters:
        if isinstance(each, MetadataFilters):
            yield from _needed(each)
        else:
            yield each


def _operator(each: MetadataFilter) -> str:
    return str(getattr(each.operator, "value", each.operator) or "==")


def _condition(each: MetadataFilter, has_lists: Callable[[str], bool]) -> Where:
    key, operator, value = clean_text(each.key), _operator(each), _clean(each.value)
    if not is_valid_key(key):
        raise InputError(f"the metadata {key!r} cannot be filtered: Chroma refuses this name, so rename the key")
    if operator not in OPERATORS:
        raise InputError(
            f"the metadata {key!r} cannot be filtered with {operator!r}: Chroma knows {', '.join(OPERATORS)}"
        )
    if operator in COMPARISONS:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _unsuitable(key, operator, value, "a number (store dates as numbers to compare them)")
        return {key: {COMPARISONS[operator]: value}}
    if operator in ("==", "!=", "contains"):
        if not isinstance(value, str | int | float):
            raise _unsuitable(key, operator, value, "a text or a number (for several values use in, any or all)")
        return _of_values(key, operator, [value])
    if not isinstance(value, list) or not value or not all(isinstance(item, str | int | float) for item in value):
        raise _unsuitable(key, operator, value, "a list of texts or numbers that is not empty")
    if operator in ("in", "nin") and len(value) > MANY_VALUES and not has_lists(key):
        return _joined("$or" if operator == "in" else "$and", _among(key, f"${operator}", value))
    return _of_values(key, operator, value)


def _clean(value: Any) -> Any:
    """Return a filter's value as it is stored."""
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return clean_text(value) if isinstance(value, str) else value


def _unsuitable(key: str, operator: str, value: Any, needed: str) -> InputError:
    return InputError(f"the filter {key!r} {operator} {value!r:.60} cannot be used: its value must be {needed}")


def _of_values(key: str, operator: str, values: Sequence[str | int | float]) -> Where:
    """Return the filter of an operator that compares with one or more values."""
    has: Callable[[Any], list[Where]] = lambda value: [{key: {"$contains": form}} for form in _forms(value)]  # noqa: E731
    if operator == "all":
        return _joined("$and", [_joined("$or", has(value)) for value in values])
    if operator in ("contains", "any"):
        return _joined("$or", [part for value in values for part in has(value)])
    if operator in ("==", "in"):
        return _joined("$or", [*_among(key, "$in", values), *(part for value in values for part in has(value))])
    without = [{key: {"$not_contains": form}} for value in values for form in _forms(value)]
    return _joined("$and", [*_among(key, "$nin", values), *without])


def _among(key: str, operator: str, values: Sequence[Any]) -> list[Where]:
    """Return a filter for the values of each type, because Chroma takes values of one type only."""
    by_type: dict[type, list[Any]] = defaultdict(list)
    for value in values:
        by_type[type(value)].append(value)
    return [{key: {operator: same}} for same in by_type.values()]


def _forms(value: Any) -> list[Any]:
    """Return a number as integer and as float: in lists Chroma tells them apart, in single values it does not."""
    if isinstance(value, bool | str):
        return [value]
    forms = [int(value), float(value)] if float(value).is_integer() else [float(value)]
    return [form for form in forms if abs(form) < 2**63]


def _joined(operator: str, conditions: list[Where]) -> Any:
    """Join conditions, in groups of at most 100; None if there are none."""
    while len(conditions) > MAX_BRANCHES:
        starts = range(0, len(conditions), MAX_BRANCHES)
        conditions = [_joined(operator, conditions[start : start + MAX_BRANCHES]) for start in starts]
    if len(conditions) < 2:
        return conditions[0] if conditions else None
    return {operator: conditions}
