"""Find texts that nearly repeat each other, with MinHash and locality-sensitive hashing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

PERMUTATIONS = 160
BANDS = 20
"""Number of LSH bands, of 8 hashes each. Texts of similarity 0.8 collide in a band with probability 0.975, of 0.85 with
0.998, and of 0.5, such as questions that begin alike, with 0.08. Bands of 4 hashes would compare almost all of the
latter, which would take most of the time on a large corpus."""

SHINGLE_LENGTH = 5

MAX_COMPARED = 32
"""Maximum number of texts in a group with which later texts are compared."""


def near_duplicate_groups(texts: Sequence[str], threshold: float = 0.8) -> list[int]:
    """Assign the same group number to texts that nearly repeat each other.

    Similarity is the Jaccard index of five-character shingles, estimated by MinHash (Broder 1997). Banding finds the
    candidates; groups are the connected components.

    Args:
        texts: the texts, in any order.
        threshold: minimum similarity of two texts in one group, 0 to 1.

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
    for number, text in enumerate(texts):
        groups.add(number)
        first_of[number] = number
        plain = re.sub(r"\W+", " ", text.lower()).strip()
        if plain in first_with:
            groups.merge(first_with[plain], number)
            continue
        first_with[plain] = number
        sketch = RMinHash(num_perm=PERMUTATIONS, seed=0)
        sketch.update(
            [plain[start : start + SHINGLE_LENGTH] for start in range(max(1, len(plain) - SHINGLE_LENGTH + 1))]
        )
        for other in index.query(sketch):
            if not groups.connected(other, number) and sketch.jaccard(sketches[other]) >= threshold:
                first = min(first_of[groups[other]], first_of[groups[number]])
                groups.merge(other, number)
                first_of[groups[number]] = first
        # A few texts represent a template that thousands of texts use: otherwise all of them are compared in pairs.
        group = first_of[groups[number]]
        if compared[group] < MAX_COMPARED:
            compared[group] += 1
            index.insert(number, sketch)
            sketches[number] = sketch
    return [first_of[groups[number]] for number in groups]
