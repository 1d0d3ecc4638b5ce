"""Metadata that is embedded with a passage although it is no content: paths, sizes, dates of files, ids."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rag_ft.dataset.qa_dataset import Passage

KEYS = re.compile(
    r"(?:file|source|abs(?:olute)?|full)?_?(?:path|dir(?:ectory)?)|file_?(?:size|type|id|hash|extension)|mime_?type|"
    r"(?:creation|created|last_(?:modified|accessed|updated|edited)|modified|modification|updated|accessed|ingested|"
    r"crawled|indexed)(?:_?(?:date|time|at|on))?|timestamp|(?:ref_?)?(?:doc|document|node|chunk|parent|page)_?id|"
    r"uuid|guid|hash|checksum|sha256|md5|etag",
    re.IGNORECASE,
)
"""Names of metadata that is no content, as readers write them."""

VALUES = re.compile(
    r"(?:file://|~/|[A-Za-z]:[/\\]).*|(?:/[^/\n]+)+/[^/\n]*\.\w{1,8}|[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}|[0-9a-f]{32,}|"
    r"\d{4}-\d\d-\d\dT\d\d:.*",
    re.IGNORECASE,
)
"""Values that are no content: absolute paths, random ids, hashes, times."""

MAX_METADATA_LINES = 50


def keys_without_content(passages: Iterable[Passage]) -> dict[str, tuple[int, str]]:
    """Find metadata in embedded texts that is no content.

    Returns:
        Key -> (number of passages, its value in the first of them), most frequent first.

    Example:
        >>> from rag_ft import Passage
        >>> from rag_ft.dataset.text.embedded_metadata import keys_without_content
        >>> text = "Leave is booked in HELM."
        >>> passage = Passage("p", "file_path: /home/ann/leave.pdf\\nauthor: Ann\\n\\n" + text, content=text)
        >>> keys_without_content([passage])
        {'file_path': (1, '/home/ann/leave.pdf')}
    """
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for passage in passages:
        for key, value in _metadata_of(passage):
            if KEYS.fullmatch(key.strip().replace(" ", "_")) or VALUES.fullmatch(value):
                counts[key] += 1
                first.setdefault(key, value)
    return {key: (count, first[key]) for key, count in counts.most_common()}


def warning_about(keys: dict[str, tuple[int, str]], passages: int) -> str:
    """Return one line that says which metadata is no content, and how to leave it out; empty if there is none."""
    if not keys:
        return ""
    key, (count, value) = next(iter(keys.items()))
    names = ", ".join(f'"{name}"' for name in keys)
    return (
        f"{count} of {passages} passages are embedded with the metadata {', '.join(keys)} ({key}: {value[:60]!r}), "
        "which is no content and moves their vectors: before you build an index, leave it out with "
        f"`for node in nodes: node.excluded_embed_metadata_keys += [{names}]`"
    )


def _metadata_of(passage: Passage) -> Iterator[tuple[str, str]]:
    """Yield the metadata that LlamaIndex's template put around the text of a passage."""
    if not passage.content:
        return
    before, _, after = passage.text.partition(passage.content)
    for line in f"{before}\n{after}".splitlines()[:MAX_METADATA_LINES]:
        key, separator, value = line.partition(": ")
        if separator and len(key) <= 60:
            yield key, value.strip()
