"""Texts that nearly repeat each other, found with MinHash and locality-sensitive hashing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

PERMUTATIONS = 160
BANDS = 20
"""Number of LSH bands, of 8 hashes each. Texts of similarity 0.8 collide in a band with probability 0.975, of 0.85 with
0.998, and of 0.5, such as questions that begin alike, with 0.08. Bands of 4 would compare almost all of the latter,
which takes most of the time on a large corpus."""

SHINGLE_LENGTH = 5

MAX_COMPARED = 32
"""Maximum number of texts of a group that later texts are compared with."""


def near_duplicate_groups(texts: Sequence[str], threshold: float = 0.8) -> list[int]:
    """Give texts that nearly repeat each other the same group number.

    Similarity is the Jaccard index of five-character shingles, estimated by MinHash (Broder 1997). Banding finds the
    candidates; groups are the connected components.

    Args:
        texts: the texts, in any order.
        threshold: similarity from 0 to 1 from which two texts belong to one group.

    Returns:
        One group number for each text: the index of the group's first text.

    Example:
        >>> from rag_ft.dataset.text.near_duplicates import near_duplicate_groups
        >>> near_duplicate_groups(["Leave is booked in HELM.", "Badges open doors.", "leave is booked in HELM!"])
        [0, 1, 0]
    """
    from rensa import RMinHash, RMinHashLSH
    from scipy.cluster.hierarchy import DisjointSet

    groups = DisjointSet()
    first_of: dict[int, int] = {}  # root of a group -> its first text
    first_with: dict[str, int] = {}
    index = RMinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, num_bands=BANDS)
    sketches: dict[int, RMinHash] = {}
    compared: Counter[int] = Counter()
    for place, text in enumerate(texts):
        groups.add(place)
        first_of[place] = place
        plain = re.sub(r"\W+", " ", text.lower()).strip()
        if plain in first_with:
            groups.merge(first_with[plain], place)
            continue
        first_with[plain] = place
        sketch = RMinHash(num_perm=PERMUTATIONS, seed=0)
        sketch.update(
            [plain[start : start + SHINGLE_LENGTH] for start in range(max(1, len(plain) - SHINGLE_LENGTH + 1))]
        )
        for other in index.query(sketch):
            if not groups.connected(other, place) and sketch.jaccard(sketches[other]) >= threshold:
                first = min(first_of[groups[other]], first_of[groups[place]])
                groups.merge(other, place)
                first_of[groups[place]] = first
        # A few texts stand for a template that thousands of texts fill in: else each is compared with each.
        group = first_of[groups[place]]
        if compared[group] < MAX_COMPARED:
            compared[group] += 1
            index.insert(place, sketch)
            sketches[place] = sketch
    return [first_of[groups[place]] for place in groups]
