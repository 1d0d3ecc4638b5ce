"""Texts that nearly repeat each other, found with MinHash and locality-sensitive hashing."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rag_ft.dataset.groups import joined

PERMUTATIONS = 128
BANDS = 32
SHINGLE = 5


def near_duplicate_groups(texts: Sequence[str], threshold: float = 0.8) -> list[int]:
    """Give texts that nearly repeat each other the same group number.

    Similarity is the Jaccard index of five-character shingles, estimated by MinHash (Broder 1997);
    candidates come from banding, groups are the connected components.

    Args:
        texts: the texts, in any order.
        threshold: the similarity from 0 to 1 above which two texts belong together.

    Returns:
        One group number for each text; the number is the place of the group's first text.

    Example:
        >>> from rag_ft.dataset.near_duplicates import near_duplicate_groups
        >>> near_duplicate_groups(["Leave is booked in HELM.", "Badges open doors.", "leave is booked in HELM!"])
        [0, 1, 0]
    """
    from rensa import RMinHash, RMinHashLSH

    edges: list[tuple[int, int]] = []
    first_with: dict[str, int] = {}
    index = RMinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, num_bands=BANDS)
    sketches: dict[int, RMinHash] = {}
    for place, text in enumerate(texts):
        plain = re.sub(r"\W+", " ", text.lower()).strip()
        if plain in first_with:
            edges.append((first_with[plain], place))
            continue
        first_with[plain] = place
        sketch = RMinHash(num_perm=PERMUTATIONS, seed=0)
        sketch.update([plain[start : start + SHINGLE] for start in range(max(1, len(plain) - SHINGLE + 1))])
        edges += [(other, place) for other in index.query(sketch) if sketch.jaccard(sketches[other]) >= threshold]
        index.insert(place, sketch)
        sketches[place] = sketch
    return joined(len(texts), edges)
