"""Metadata as plain values that JSON and databases accept: text, numbers, booleans, None, and lists and dicts of them.

Values are recognised by their behaviour, so that numpy and pandas need not be imported.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from rag_ft.clean_text import clean_text

MAX_DEPTH = 20
"""Maximum depth of nested lists and dictionaries; a value that contains itself is deeper."""

MAX_INTEGER = 2**63
"""Integers beyond 64 bits become text, since databases do not store them."""

BINARY = (bytes, bytearray, memoryview)


class NotPlainError(Exception):
    """A value that has no plain form.

    Args:
        reason: what is wrong with it, as the end of a sentence.
        key: the key of the value, with the keys above it.
    """

    def __init__(self, reason: str, key: str = "") -> None:
        super().__init__(reason)
        self.reason, self.key = reason, key


def plain_metadata(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return metadata with plain values and clean keys; the same object if nothing had to change.

    Numbers and arrays of numpy become numbers and lists, sets become sorted lists, dates ISO 8601 text, and NaN and
    infinity None. Paths, UUIDs and URLs become text, decimals numbers, enumerations their values, models and
    dataclasses dictionaries.

    Raises:
        NotPlainError: if a value has no plain form, such as bytes.

    Example:
        >>> from pathlib import PurePosixPath
        >>> from rag_ft.documents.plain_metadata import plain_metadata
        >>> plain_metadata({"path": PurePosixPath("a/b"), "score": float("nan"), "box": (1, 2)})
        {'path': 'a/b', 'score': None, 'box': [1, 2]}
    """
    return _plain_mapping(metadata, 0)  # type: ignore[no-any-return]


def _plain(value: Any, depth: int) -> Any:
    """Return the plain form of a value; the value itself if it is plain already."""
    kind = type(value)
    if kind is str:
        return clean_text(value)
    if value is None or kind is bool:
        return value
    if kind is int:
        return value if -MAX_INTEGER <= value < MAX_INTEGER else _long_integer(value)
    if kind is float:
        return value if math.isfinite(value) else None
    if depth >= MAX_DEPTH:
        raise NotPlainError(f"is nested deeper than {MAX_DEPTH} levels, or contains itself")
    if kind is dict:
        return _plain_mapping(value, depth)
    if kind is list:
        new = [_plain(item, depth + 1) for item in value]
        return value if all(one is other for one, other in zip(new, value, strict=True)) else new
    return _converted(value, depth)


def _converted(value: Any, depth: int) -> Any:
    """Return the plain form of a value that has no plain type."""
    if isinstance(value, BINARY):
        raise NotPlainError(f"is binary data (of type {type(value).__name__})")
    found, simple = _simple(value)
    if found:
        return _plain(simple, depth)
    if isinstance(value, Mapping):
        return _plain_mapping(value, depth)
    if isinstance(value, Set):
        return _in_order([_plain(item, depth + 1) for item in value])
    if isinstance(value, Sequence):
        return [_plain(item, depth + 1) for item in value]
    try:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return _plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)}, depth)
        if hasattr(type(value), "model_dump"):
            return _plain(value.model_dump(), depth)
        if hasattr(type(value), "tolist"):
            return _plain_array(value, depth)
    except NotPlainError:
        raise
    except Exception as error:
        raise NotPlainError(f"is of type {_name_of(value)} and cannot be read ({type(error).__name__})") from error
    raise NotPlainError(f"is of type {_name_of(value)}")


def _simple(value: Any) -> tuple[bool, Any]:
    """Return whether a value stands for one text, number or None, and that."""
    if isinstance(value, Enum):
        return True, value.value
    if isinstance(value, str):
        return True, str.__str__(value)
    if isinstance(value, int):
        return True, int(value)
    if isinstance(value, float):
        return True, float(value)
    name = type(value).__name__
    if name in ("NaTType", "NAType"):  # pandas
        return True, None
    if name in ("datetime64", "timedelta64"):  # numpy; its own conversion returns a number for nanoseconds
        text = str(value)
        return True, None if text == "NaT" else text
    if isinstance(value, date | time):
        return True, value.isoformat()
    if isinstance(value, timedelta | PurePath | UUID) or type(value).__module__ in ("pydantic.networks", "ipaddress"):
        return True, str(value)
    if isinstance(value, Decimal):
        if not value.is_finite():
            return True, None
        number = float(value)
        return True, number if math.isfinite(number) else str(value)
    return False, None


def _plain_mapping(mapping: Mapping[Any, Any], depth: int) -> Any:
    """Return a mapping with plain keys and values, in the same order; the same object if nothing had to change."""
    new: dict[str, Any] = {}
    same = type(mapping) is dict
    for key, value in mapping.items():
        plain_key = clean_text(key) if type(key) is str else _plain_key(key)
        if plain_key in new:
            raise NotPlainError("is there twice, once the key is clean text", repr(plain_key))
        try:
            new[plain_key] = _plain(value, depth + 1)
        except NotPlainError as error:
            path = f"{plain_key!r} > {error.key}" if error.key else repr(plain_key)
            raise NotPlainError(error.reason, path) from None
        same = same and plain_key is key and new[plain_key] is value
    return mapping if same else new


def _plain_key(key: Any) -> str:
    found, simple = _simple(key)
    if not found and hasattr(type(key), "tolist"):
        found, simple = True, _plain_array(key, 0)
    if key is None or (found and not isinstance(simple, list | dict)):
        return clean_text(str(simple))
    raise NotPlainError("is no text", f"key of type {type(key).__name__}")


def _plain_array(array: Any, depth: int) -> Any:
    """Return an array of numpy, torch or pandas as a list, or a scalar as a number."""
    if getattr(array, "ndim", None) == 0:
        scalar = array.item() if hasattr(array, "item") else array.tolist()
        # A 0-d array of objects holds anything; a `longdouble` returns itself.
        return _plain(float(scalar) if type(scalar) is type(array) else scalar, depth)
    if type(array).__module__.startswith("torch"):
        array = array.tolist()
    if not isinstance(array, Iterable):
        raise NotPlainError(f"is of type {_name_of(array)}")
    return [_plain(item, depth + 1) for item in array]


def _long_integer(value: int) -> str:
    try:
        return str(value)
    except ValueError:  # Python converts no number of more than 4,300 digits
        raise NotPlainError("is an integer of thousands of digits") from None


def _in_order(items: list[Any]) -> list[Any]:
    """Sort the items of a set, whose order differs between processes."""
    try:
        return sorted(items)
    except TypeError:
        return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))


def _name_of(value: Any) -> str:
    name, module = type(value).__qualname__, type(value).__module__
    return name if module == "builtins" else f"{module}.{name}"
