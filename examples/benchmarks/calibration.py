"""Is a verdict right as often as it says: thousands of simulated comparisons whose truth is known.

    python examples/benchmarks/calibration.py
    python examples/benchmarks/calibration.py --documents 60 --comparisons 200

400 questions, one on each passage, from 1, 5, 10, 29 and 60 documents; what is resampled, the interval and the verdict
are those of `compare`. Three kinds of comparison, 1,000 of each:

- `copy`: a model and a copy of itself, the vectors of both blurred by noise of their own. Neither is better; `ship` is
  wrong in each case.
- `chance`: differences of standard deviation .25 around 0, correlated (intraclass correlation .1) within what is
  resampled: documents, and groups of neighbouring passages where there are under 10 documents.
- `gain`: the same around .05.

`chance-by-document`: as `chance`, correlated within documents where these are under 10 and neighbours are resampled.
There an interval says nothing about other documents, which a comparison notes: this shows how far it is off if one
takes it for that. Results are in results/calibration.json.
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
WIDTH, ASKED, BLUR = 32, 1.1, 0.35
"""Of vectors: how many numbers, how far a question's lies from its passage's, and the noise of a copy."""


def corpus(documents: int) -> QADataset:
    """A question on each passage, as many passages in each document as go."""
    draw = np.random.default_rng(0)
    words = draw.integers(10**8, size=(QUESTIONS, 6))
    passages = {
        f"p{n}": Passage(f"p{n}", " ".join(map(str, words[n])), doc_id=f"d{n * documents // QUESTIONS}")
        for n in range(QUESTIONS)
    }
    queries = {f"q{n}": Query(f"q{n}", f"What about {words[n, 0]}?") for n in range(QUESTIONS)}
    return QADataset(passages, queries, {"test": {f"q{n}": {f"p{n}": 1} for n in range(QUESTIONS)}})


def copies(dataset: QADataset, seed: int) -> NDArray[np.float64]:
    """nDCG@10 of a blurred copy minus that of another blurred copy of the same vectors, shape (questions,)."""
    draw = np.random.default_rng(seed)
    passages = draw.normal(size=(QUESTIONS, WIDTH))
    questions = passages + ASKED * draw.normal(size=passages.shape)
    ids, qrels, values = list(dataset.passages), dataset.qrels["test"], []
    for _ in range(2):
        one, other = (vectors + BLUR * draw.normal(size=vectors.shape) for vectors in (passages, questions))
        one /= np.linalg.norm(one, axis=1, keepdims=True)
        top = np.argsort(-(other @ one.T), axis=1)[:, :10]
        rankings = {query: [ids[place] for place in row] for query, row in zip(qrels, top, strict=True)}
        values.append(metrics_per_query(rankings, qrels, [HEADLINE])[HEADLINE])
    return values[1] - values[0]


def correlated(groups: Sequence[object], gain: float, seed: int) -> NDArray[np.float64]:
    """Differences around a gain, of which groups share a part of the noise, shape (questions,)."""
    draw = np.random.default_rng(seed)
    _, member = np.unique([str(group) for group in groups], return_inverse=True)
    shared = draw.normal(0, DEVIATION * CORRELATION**0.5, member.max() + 1)[member]
    return gain + shared + draw.normal(0, DEVIATION * (1 - CORRELATION) ** 0.5, len(member))


def counted(found: Iterator[Difference], truth: float, comparisons: int) -> dict[str, float]:
    """Shares of the comparisons: each verdict, and intervals that hold the truth."""
    verdicts: Counter[str] = Counter()
    held = 0
    for difference in found:
        verdicts[decide(difference, QUESTIONS)[0]] += 1
        held += difference.ci95[0] <= truth <= difference.ci95[1]
    shares = {name: verdicts[name] / comparisons for name in ("ship", "inconclusive", "keep-baseline")}
    return shares | {"interval_holds_the_truth": held / comparisons}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, nargs="+", default=[1, 5, 10, 29, 60])
    parser.add_argument("--comparisons", type=int, default=1000)
    arguments = parser.parse_args()
    file = RESULTS / "calibration.json"
    for documents in arguments.documents:
        dataset = corpus(documents)
        groups, note = resampling_groups(dataset, "test")
        of_documents = [passage.document for passage in dataset.passages.values()]
        kinds = {
            "copy": (0.0, lambda seed, data=dataset: copies(data, seed)),
            "chance": (0.0, lambda seed, by=groups: correlated(by, 0.0, seed)),
            "gain": (GAIN, lambda seed, by=groups: correlated(by, GAIN, seed)),
        }
        if documents < MIN_DOCUMENTS:
            kinds["chance-by-document"] = (0.0, lambda seed, by=of_documents: correlated(by, 0.0, seed))
        row: dict[str, object] = {"resampled": len(set(map(str, groups))), "note": note}
        for name, (truth, make) in kinds.items():
            seeds = range(arguments.comparisons)
            row[name] = counted((paired_bootstrap(make(seed), groups, seed) for seed in seeds), truth, len(seeds))
            print(documents, name, row[name], flush=True)
        # Read as late as this: another run may have written figures of other documents.
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"figures": {}}
        found["figures"] = dict(
            sorted({**found["figures"], str(documents): row}.items(), key=lambda item: int(item[0]))
        )
        found |= {"questions": QUESTIONS, "comparisons": arguments.comparisons, "machine": machine()}
        file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
