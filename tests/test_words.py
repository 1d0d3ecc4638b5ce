"""The project speaks the field's language: old private words do not come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent

OLD = {
    "making": "source (of a question)",
    "makings": "sources (of questions)",
    "unasked": "uncovered",
    "room_to_learn": "headroom",
    "room to learn": "headroom",
    "ApartSampler": "NoFalseNegativesBatchSampler",
    "carve_dev": "hold_out_dev",
    "carved": "held out",
    "general_probe": "forgetting probe",
    "mend": "fix",
    "mended": "fixed",
    "standing_of": "tally_of",
    "moves_of": "compute_rank_changes",
    "Sending": "RequestPolicy",
    "Searches": "CandidateRunner",
    "choose_share": "select",
    "shares": "alphas (of tuned weights), fractions",
    "standardised": "zscore",
}
"""Old word -> the field's."""

STORED = {
    "rag_ft/generation/split_assembly.py": {"making"},
    "rag_ft/training/recipe.py": {"shares"},
    "rag_ft/training/record.py": {"makings"},
    "rag_ft/retrieval/fusion.py": {"standardised"},
}
"""Keys and values of files that version 0.1.0 wrote stand in these modules, where they are mapped."""

FILES = sorted(
    file.relative_to(REPOSITORY).as_posix()
    for pattern in ("rag_ft/**/*.py", "rag_ft/**/*.pyi", "rag_ft/**/*.j2", "examples/*.py", "examples/*.md",
                    "examples/benchmarks/*.py", "examples/benchmarks/README.md", "README.md", "docs/*.md")
    for file in REPOSITORY.glob(pattern)
)  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_old_words_are_gone(name: str) -> None:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    # `dev_makings` and other keys of stored files are quoted as they are.
    found = {
        word: instead
        for word, instead in OLD.items()
        if word not in STORED.get(name, ()) and re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text)
    }
    assert not found, found
