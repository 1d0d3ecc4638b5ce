"""Texts that nearly repeat each other, found with MinHash and locality-sensitive hashing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from rag_ft.dataset.text.groups import Groups

PERMUTATIONS = 160
BANDS = 20
"""Bands of 8: texts of similarity .8 meet in one with probability .975, of .85 with .998, and of .5, as many questions
that begin alike have, with .08. Bands of 4 would compare almost all of those: most of the time on a large corpus."""

SHINGLE = 5

MOST_COMPARED = 32
"""Texts of one group that further texts are compared with."""


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
        >>> from rag_ft.dataset.text.near_duplicates import near_duplicate_groups
        >>> near_duplicate_groups(["Leave is booked in HELM.", "Badges open doors.", "leave is booked in HELM!"])
        [0, 1, 0]
    """
    from rensa import RMinHash, RMinHashLSH

    groups = Groups(len(texts))
    first_with: dict[str, int] = {}
    index = RMinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, num_bands=BANDS)
    sketches: dict[int, RMinHash] = {}
    compared: Counter[int] = Counter()
    for place, text in enumerate(texts):
        plain = re.sub(r"\W+", " ", text.lower()).strip()
        if plain in first_with:
            groups.join(first_with[plain], place)
            continue
        first_with[plain] = place
        sketch = RMinHash(num_perm=PERMUTATIONS, seed=0)
        sketch.update([plain[start : start + SHINGLE] for start in range(max(1, len(plain) - SHINGLE + 1))])
        group = place
        for other in index.query(sketch):
            if groups.of(other) != group and sketch.jaccard(sketches[other]) >= threshold:
                groups.join(other, place)
                group = groups.of(place)
        # Of a template that thousands of texts fill in, some stand for all: else each is compared with each.
        if compared[group] < MOST_COMPARED:
            compared[group] += 1
            index.insert(place, sketch)
            sketches[place] = sketch
    return groups.numbers()
