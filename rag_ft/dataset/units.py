"""Split units: the groups of passages that a split never divides."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from rag_ft.files import sha256_of

MIN_DOCUMENTS = 10
"""Minimum number of documents for a split by document. With fewer, the units are groups of neighbouring passages."""

PASSAGES_PER_UNIT = 5
"""Number of neighbouring passages in a unit if there are fewer documents."""

MAX_DOCUMENTS_OF_REPEAT = 5
"""Maximum number of documents that a repeated passage may link. A disclaimer or footer in more documents than this is
boilerplate: it would merge all of them into one unit, and none could be held out."""


_RANDOM_ID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
"""The random ids that LlamaIndex gives to documents and nodes. Another run gives others."""


def is_random(name: str) -> bool:
    """Return whether an id is random, as LlamaIndex's are: a file that is read again has another one."""
    return _RANDOM_ID.fullmatch(name) is not None


def find_boilerplate(documents: Mapping[str, Iterable[str]], near_duplicates: Mapping[str, int]) -> set[str]:
    """Find the passages that nearly repeat in more than 5 documents: no question is about one of them in particular.

    Args:
        documents: document -> ids of its passages.
        near_duplicates: passage id -> its group of near-duplicates.
    """
    holders: dict[int, set[str]] = defaultdict(set)
    for document, passages in documents.items():
        for passage in passages:
            holders[near_duplicates[passage]].add(document)
    return {passage for passage, group in near_duplicates.items() if len(holders[group]) > MAX_DOCUMENTS_OF_REPEAT}


def find_split_units(
    documents: Mapping[str, Iterable[str]], near_duplicates: Mapping[str, int], boilerplate: Collection[str]
) -> dict[str, int]:
    """Assign each passage to a unit. A split never divides a unit.

    A unit is a document or, below 10 documents, a group of 5 neighbouring passages. Units that share a near-duplicate
    passage are merged, unless that passage is boilerplate.

    Args:
        documents: document -> ids of its passages, in order.
        near_duplicates: passage id -> its group of near-duplicates.
        boilerplate: passages that do not merge units (see `find_boilerplate`).

    Example:
        >>> from rag_ft.dataset.units import find_split_units
        >>> documents = {f"d{n}": [f"d{n}#0", f"d{n}#1"] for n in range(10)}
        >>> groups = {passage: place for place, passage in enumerate(sum(documents.values(), []))}
        >>> units = find_split_units(documents, groups | {"d7#1": groups["d2#0"]}, boilerplate=())
        >>> units["d2#1"], units["d7#0"], units["d8#0"]
        (2, 2, 8)
    """
    from scipy.cluster.hierarchy import DisjointSet

    by_document = len(documents) >= MIN_DOCUMENTS
    unit_of: dict[str, int] = {}
    merged = DisjointSet()
    for passages in documents.values():
        for index, passage in enumerate(passages):
            if index == 0 or (not by_document and index % PASSAGES_PER_UNIT == 0):
                merged.add(len(merged))
            unit_of[passage] = len(merged) - 1
    first_unit: dict[int, int] = {}
    for passage, unit in unit_of.items():
        if passage not in boilerplate:
            merged.merge(first_unit.setdefault(near_duplicates[passage], unit), unit)
    # Merged units get their smallest number, because the random choices of a split depend on the order.
    smallest: dict[int, int] = {}
    for unit in merged:
        smallest.setdefault(merged[unit], unit)
    return {passage: smallest[merged[unit]] for passage, unit in unit_of.items()}


def keys_of_documents(documents: Mapping[str, Sequence[str]], texts: Mapping[str, str]) -> dict[str, str]:
    """Return for each document a key that is the same in every run: its name or, if that is random, a hash of its text.

    The name is that of the file, without its folder, because paths begin below the folder that all files share: a file
    beside it would change them all. Files of the same name have their path as key.

    Args:
        documents: document -> ids of its passages.
        texts: passage id -> text.
    """
    names = {document: document.rstrip("/").rpartition("/")[2] or document for document in documents}
    count = Counter(names.values())
    return {
        document: sha256_of(*sorted(sha256_of(texts[passage]) for passage in passages))
        if is_random(document)
        else (names[document] if count[names[document]] == 1 else document)
        for document, passages in documents.items()
    }


def keys_of_units(
    units: Mapping[str, int], documents: Mapping[str, Sequence[str]], document_keys: Mapping[str, str]
) -> dict[int, str]:
    """Return for each unit the smallest key of its documents, with the position in the document if it is a part of one.

    Args:
        units: passage id -> unit.
        documents: document -> ids of its passages, in order.
        document_keys: document -> key.
    """
    keys: dict[int, str] = {}
    for document, passages in documents.items():
        for position, passage in enumerate(passages):
            part = "" if len(documents) >= MIN_DOCUMENTS else f" {position // PASSAGES_PER_UNIT}"
            key, unit = document_keys[document] + part, units[passage]
            keys[unit] = min(key, keys.get(unit, key))
    return keys
