"""How often a verdict is right, in thousands of simulated comparisons whose truth is known.

    python examples/benchmarks/calibration.py
    python examples/benchmarks/calibration.py --documents 60 --comparisons 200

There are 400 questions, one about each passage, from 1, 5, 10, 29 and 60 documents. Resampling, interval and verdict
are those of `compare`. There are three kinds of comparison, 1,000 of each:

- `copy`: a model and a copy of itself, with different noise on the vectors of each. Neither is better, so `ship` is
  always wrong.
- `chance`: differences with a standard deviation of .25 around 0, correlated (intraclass correlation .1) within the
  resampled groups. These are documents, or groups of neighbouring passages if there are under 10 documents.
- `gain`: the same around .05.

`chance-by-document` is like `chance`, but correlated within documents although neighbouring passages are resampled,
because there are under 10 documents. In this case an interval says nothing about other documents, which a comparison
notes. The figures show how wrong the interval would be about them. Results are in results/calibration.json.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from quality import RESULTS, machine

from rag_ft import Passage, QADataset, Query
from rag_ft.dataset.units import MIN_DOCUMENTS
from rag_ft.evaluation.metrics import HEADLINE, metrics_per_query
from rag_ft.evaluation.resampling import resampling_groups
from rag_ft.evaluation.significance import Difference, paired_bootstrap
from rag_ft.evaluation.verdict import decide

QUESTIONS = 400
GAIN, DEVIATION, CORRELATION = 0.05, 0.25, 0.1
DIMENSION, QUESTION_NOISE, COPY_NOISE = 32, 1.1, 0.35
"""Dimension of the vectors, distance of a question's vector from its passage's, and noise of a copy."""


def corpus(documents: int) -> QADataset:
    """Make a question about each passage, with the passages spread evenly over the documents."""
    rng = np.random.default_rng(0)
    words = rng.integers(10**8, size=(QUESTIONS, 6))
    passages = {
        f"p{n}": Passage(f"p{n}", " ".join(map(str, words[n])), doc_id=f"d{n * documents // QUESTIONS}")
        for n in range(QUESTIONS)
    }
    queries = {f"q{n}": Query(f"q{n}", f"What about {words[n, 0]}?") for n in range(QUESTIONS)}
    return QADataset(passages, queries, {"test": {f"q{n}": {f"p{n}": 1} for n in range(QUESTIONS)}})


def copies(dataset: QADataset, seed: int) -> NDArray[np.float64]:
    """Return nDCG@10 of a noisy copy minus that of another noisy copy of the same vectors, shape (questions,)."""
    rng = np.random.default_rng(seed)
    passages = rng.normal(size=(QUESTIONS, DIMENSION))
    questions = passages + QUESTION_NOISE * rng.normal(size=passages.shape)
    ids, qrels, values = list(dataset.passages), dataset.qrels["test"], []
    for _ in range(2):
        one, other = (vectors + COPY_NOISE * rng.normal(size=vectors.shape) for vectors in (passages, questions))
        one /= np.linalg.norm(one, axis=1, keepdims=True)
        top = np.argsort(-(other @ one.T), axis=1)[:, :10]
        rankings = {query: [ids[place] for place in row] for query, row in zip(qrels, top, strict=True)}
        values.append(metrics_per_query(rankings, qrels, [HEADLINE])[HEADLINE])
    return values[1] - values[0]


def correlated(groups: Sequence[object], gain: float, seed: int) -> NDArray[np.float64]:
    """Return differences around a gain, with noise that is partly shared within groups, shape (questions,)."""
    rng = np.random.default_rng(seed)
    _, member = np.unique([str(group) for group in groups], return_inverse=True)
    shared = rng.normal(0, DEVIATION * CORRELATION**0.5, member.max() + 1)[member]
    return gain + shared + rng.normal(0, DEVIATION * (1 - CORRELATION) ** 0.5, len(member))


def rates(differences: Iterator[Difference], truth: float, comparisons: int) -> dict[str, float]:
    """Return the fraction of the comparisons with each verdict, and with an interval that contains the truth."""
    verdicts: Counter[str] = Counter()
    covered = 0
    for difference in differences:
        verdicts[decide(difference, QUESTIONS)[0]] += 1
        covered += difference.ci95[0] <= truth <= difference.ci95[1]
    fractions = {name: verdicts[name] / comparisons for name in ("ship", "inconclusive", "keep-baseline")}
    return fractions | {"interval_holds_the_truth": covered / comparisons}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, nargs="+", default=[1, 5, 10, 29, 60])
    parser.add_argument("--comparisons", type=int, default=1000)
    arguments = parser.parse_args()
    file = RESULTS / "calibration.json"
    for documents in arguments.documents:
        dataset = corpus(documents)
        groups, note = resampling_groups(dataset, "test")
        document_of = [passage.document for passage in dataset.passages.values()]
        kinds = {
            "copy": (0.0, lambda seed, data=dataset: copies(data, seed)),
            "chance": (0.0, lambda seed, by=groups: correlated(by, 0.0, seed)),
            "gain": (GAIN, lambda seed, by=groups: correlated(by, GAIN, seed)),
        }
        if documents < MIN_DOCUMENTS:
            kinds["chance-by-document"] = (0.0, lambda seed, by=document_of: correlated(by, 0.0, seed))
        row: dict[str, object] = {"resampled": len(set(map(str, groups))), "note": note}
        for name, (truth, make) in kinds.items():
            seeds = range(arguments.comparisons)
            row[name] = rates((paired_bootstrap(make(seed), groups, seed) for seed in seeds), truth, len(seeds))
            print(documents, name, row[name], flush=True)
        # Read only now, because another run may have written the figures of other numbers of documents.
        results = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"figures": {}}
        results["figures"] = dict(
            sorted({**results["figures"], str(documents): row}.items(), key=lambda item: int(item[0]))
        )
        results |= {"questions": QUESTIONS, "comparisons": arguments.comparisons, "machine": machine()}
        file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
