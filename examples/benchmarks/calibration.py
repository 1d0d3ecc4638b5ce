"""How often a verdict is right, in thousands of simulated comparisons whose truth is known.

    python examples/benchmarks/calibration.py
    python examples/benchmarks/calibration.py --parts documents --documents 60 --comparisons 200

There are 400 questions. Resampling, interval and verdict are those of `compare`. The results have five parts, which are
written into results/calibration.json.

`documents` ("figures"): one question about each passage, from 1, 5, 10, 29 and 60 documents. Kinds of comparison:

- `copy`: a model and a copy of itself, with different noise on the vectors of each. Neither is better, so `ship` is
  always wrong.
- `chance`: differences with a standard deviation of .25 around 0, correlated (intraclass correlation .1) within the
  resampled groups. These are documents, or groups of neighbouring passages if there are under 10 documents.
- `gain`: the same around .05.

`chance-by-document` is like `chance`, but correlated within documents although neighbouring passages are resampled,
because there are under 10 documents. In this case an interval says nothing about other documents, which a comparison
notes. The figures show how wrong the interval would be about them.

`power`: true gains of 0, .02, .05 and .10 on 10, 30 and 60 documents. `even` is `chance` around the gain. In the other
kinds the documents have unequal sizes, distributed like those of covidqa (`SIZES`):

- `uneven`: the same differences.
- `ndcg`: .7 of the questions do not change. The others rank the relevant passage higher or lower. How many rank it
  higher differs from document to document.
- `rare losses`: a third of the questions gain a little, and one in 20 loses much. `rare gains` is the opposite.
- `long tail`: like `ndcg`, and the documents' own gains have an exponential distribution with a long tail of losses.

`few-questions`: the same kinds without a gain, with 60 questions.

`edge`: mean differences of .6, .8 and .9 from few documents and 60 questions, near the largest possible difference.

`votes`: mean ratings of the sessions of two variants (`difference_of_groups`).

The entry `plain` is the interval of version 0.1.0, which is on the plain scale, clipped to possible differences. Its
`ship` is the fraction of intervals above 0, as in that version. For votes it is Welch's t-interval.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from quality import RESULTS, machine
from scipy.stats import t, ttest_ind

from rag_ft import Passage, QADataset, Query
from rag_ft.ab.vote_verdict import difference_of_groups
from rag_ft.dataset.units import MIN_DOCUMENTS
from rag_ft.evaluation.metrics import HEADLINE, metrics_per_query
from rag_ft.evaluation.resampling import resampling_groups
from rag_ft.evaluation.significance import Difference, paired_bootstrap
from rag_ft.evaluation.verdict import decide

QUESTIONS, FEW_QUESTIONS = 400, 60
GAIN, DEVIATION, CORRELATION = 0.05, 0.25, 0.1
DIMENSION, QUESTION_NOISE, COPY_NOISE = 32, 1.1, 0.35
"""Dimension of the vectors, distance of a question's vector from its passage's, and noise of a copy."""

GAINS, POWER_DOCUMENTS = (0.0, 0.02, 0.05, 0.10), (10, 30, 60)
EDGE_MEANS, EDGE_DOCUMENTS = (0.6, 0.8, 0.9), (3, 5, 10, 30)
SESSIONS, RATINGS = ((5, 5), (10, 10), (10, 40), (30, 30)), ((0.0, 0.0), (0.8, 0.8), (0.0, 0.8), (-0.9, 0.9))
"""Numbers of sessions of the two variants, and their true mean ratings."""

SIZES = 0.75
"""Parameter of the Dirichlet distribution of the documents' sizes. The effective number of documents is .4 of their
number, as for covidqa (98 documents of 1 to 102 questions)."""

NDCG = np.append(1 / np.log2(np.arange(2, 12)), 0.0)
"""nDCG@10 of a question by the rank of its only relevant passage: 1 to 10, and not found."""

_BETTER, _WORSE = np.triu_indices(len(NDCG), 1)
CHANGES, LIKELY = NDCG[_BETTER] - NDCG[_WORSE], (1 / (1 + _BETTER)) / (1 / (1 + _BETTER)).sum()
"""Changes of nDCG@10 from one rank to a higher one, and their probabilities: changes near the top are more frequent."""

CHANGED, LARGE = 0.3, np.array([0.37, 0.63, 1.0])
"""Fraction of the questions that change (`ndcg`), and large losses or gains."""

Draw = tuple[NDArray[np.float64], NDArray[np.int_]]
"""Differences of the questions, and their documents."""


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


def sizes_of(rng: np.random.Generator, documents: int, questions: int) -> NDArray[np.int_]:
    """Return the document of each question; the documents have unequal sizes."""
    fractions = rng.dirichlet(np.full(documents, SIZES))
    return np.repeat(np.arange(documents), 1 + rng.multinomial(questions - documents, fractions))


def fractions_of(rng: np.random.Generator, mean: float, correlation: float, documents: int) -> NDArray[np.float64]:
    """Draw a fraction for each document, with an intraclass correlation of what is drawn by it."""
    return rng.beta(mean * (1 / correlation - 1), (1 - mean) * (1 / correlation - 1), documents)


def even(rng: np.random.Generator, documents: int, questions: int, gain: float) -> Draw:
    """Draw Gaussian differences on documents of equal size."""
    member = np.arange(questions) % documents
    return _gaussian(rng, member, gain), member


def uneven(rng: np.random.Generator, documents: int, questions: int, gain: float) -> Draw:
    """Draw Gaussian differences on documents of unequal size."""
    member = sizes_of(rng, documents, questions)
    return _gaussian(rng, member, gain), member


def _gaussian(rng: np.random.Generator, member: NDArray[np.int_], gain: float) -> NDArray[np.float64]:
    shared = rng.normal(0, DEVIATION * CORRELATION**0.5, member.max() + 1)[member]
    return gain + shared + rng.normal(0, DEVIATION * (1 - CORRELATION) ** 0.5, len(member))


def ndcg(rng: np.random.Generator, documents: int, questions: int, gain: float) -> Draw:
    """Draw differences in nDCG@10, of which most are 0."""
    member = sizes_of(rng, documents, questions)
    better = fractions_of(rng, 0.5 + gain / (2 * CHANGED * float(CHANGES @ LIKELY)), 2 * CORRELATION, documents)
    signs = np.where(rng.random(questions) < better[member], 1.0, -1.0) * (rng.random(questions) < CHANGED)
    return signs * rng.choice(CHANGES, questions, p=LIKELY), member


def rare_losses(rng: np.random.Generator, documents: int, questions: int, gain: float) -> Draw:
    """Draw many small gains and few large losses: .35 and .05 of the questions. The small gains make up for them."""
    return _skewed(rng, documents, questions, rare=0.125, small=(gain + 0.05 * LARGE.mean()) / 0.35, sign=1)


def rare_gains(rng: np.random.Generator, documents: int, questions: int, gain: float) -> Draw:
    """Draw many small losses and few large gains, more of them for a larger gain."""
    return _skewed(rng, documents, questions, rare=(gain / 0.4 + 0.1) / (LARGE.mean() + 0.1), small=0.1, sign=-1)


def _skewed(rng: np.random.Generator, documents: int, questions: int, rare: float, small: float, sign: int) -> Draw:
    member = sizes_of(rng, documents, questions)
    is_rare = rng.random(questions) < fractions_of(rng, rare, CORRELATION, documents)[member]
    values = np.where(is_rare, -rng.choice(LARGE, questions), small * rng.choice([0.7, 1.3], questions))
    return sign * values * (rng.random(questions) < 0.4), member


def long_tail(rng: np.random.Generator, documents: int, questions: int, gain: float) -> Draw:
    """Draw differences in nDCG@10 around documents' gains that have a long tail of losses."""
    member = sizes_of(rng, documents, questions)
    of_document = (gain + DEVIATION * CORRELATION**0.5 * (1 - rng.exponential(1, documents)))[member]
    signs = rng.choice([-1, 0, 1], questions, p=[0.15, 0.7, 0.15])
    return of_document + (1 - abs(of_document)) * signs * rng.choice(CHANGES, questions, p=LIKELY), member


KINDS: dict[str, Callable[[np.random.Generator, int, int, float], Draw]] = {
    "even": even,
    "uneven": uneven,
    "ndcg": ndcg,
    "rare losses": rare_losses,
    "rare gains": rare_gains,
    "long tail": long_tail,
}


def near_the_edge(rng: np.random.Generator, documents: int, mean: float, lowest: float) -> Draw:
    """Draw differences of 1 or the lowest value; how many are 1 differs from document to document."""
    member = np.arange(FEW_QUESTIONS) % documents
    fraction = fractions_of(rng, (mean - lowest) / (1 - lowest), 2 * CORRELATION, documents)[member]
    return np.where(rng.random(FEW_QUESTIONS) < fraction, 1.0, lowest), member


@lru_cache(maxsize=4)
def _counts(groups: int) -> NDArray[np.float64]:
    return np.random.default_rng(0).multinomial(groups, np.full(groups, 1 / groups), 10_000).astype(float)


def plain(differences: NDArray[np.float64], member: NDArray[np.int_]) -> Difference:
    """Return the interval of version 0.1.0, clipped to possible differences: a bootstrap-t on the plain scale."""
    sums, sizes = np.bincount(member, differences), np.bincount(member).astype(float)
    count, mean = len(sums), float(differences.mean())
    residuals = sums - mean * sizes
    error = np.sqrt((residuals**2).sum() * count / (count - 1)) / sizes.sum()
    if error < 1e-12:
        return Difference(mean, (mean, mean), 1.0)
    moments = np.column_stack([sizes, residuals, residuals**2, residuals * sizes, sizes**2])
    numbers, shift, *squares = (_counts(count) @ moments).T
    shift /= numbers
    spread = np.maximum(squares[0] - 2 * shift * squares[1] + shift**2 * squares[2], 0.0)
    errors = np.sqrt(spread * count / (count - 1)) / numbers
    pivots = np.divide(shift, errors, out=np.zeros_like(shift), where=errors > error * 1e-6)
    low, high = np.quantile(pivots, [0.025, 0.975])
    floor = t.ppf(0.975, count - 1)
    low, high = max(-1.0, mean - max(high, floor) * error), min(1.0, mean - min(low, -floor) * error)
    return Difference(mean, (low, high), 1.0)


def rates(
    differences: Iterable[Difference], truth: float, comparisons: int, questions: int = QUESTIONS
) -> dict[str, float]:
    """Return the fraction of the comparisons with each verdict, and with an interval that contains the truth."""
    verdicts: Counter[str] = Counter()
    covered = 0
    for difference in differences:
        verdicts[decide(difference, questions)[0]] += 1
        covered += difference.ci95[0] <= truth <= difference.ci95[1]
    fractions = {name: verdicts[name] / comparisons for name in ("ship", "inconclusive", "keep-baseline")}
    return fractions | {"interval_holds_the_truth": covered / comparisons}


def coverage(differences: Sequence[Difference], truth: float) -> dict[str, float]:
    """Return how many intervals contain the truth, lie above it and lie below it, and their mean width."""
    bounds = np.array([difference.ci95 for difference in differences])
    above, below = (bounds[:, 0] > truth + 1e-9).mean(), (bounds[:, 1] < truth - 1e-9).mean()
    figures = {"interval_holds_the_truth": 1 - above - below, "above": above, "below": below}
    return {name: round(float(value), 4) for name, value in figures.items()} | {
        "width": round(float(np.diff(bounds).mean()), 3)
    }


def by_documents(documents: int, comparisons: int) -> dict[str, Any]:
    """Return the rates of each kind of comparison on questions about that many documents."""
    dataset = corpus(documents)
    groups, note = resampling_groups(dataset, "test")
    document_of = [passage.document for passage in dataset.passages.values()]
    kinds: dict[str, tuple[float, Callable[[int], NDArray[np.float64]]]] = {
        "copy": (0.0, lambda seed: copies(dataset, seed)),
        "chance": (0.0, lambda seed: correlated(groups, 0.0, seed)),
        "gain": (GAIN, lambda seed: correlated(groups, GAIN, seed)),
    }
    if documents < MIN_DOCUMENTS:
        kinds["chance-by-document"] = (0.0, lambda seed: correlated(document_of, 0.0, seed))
    row: dict[str, Any] = {"resampled": len(set(map(str, groups))), "note": note}
    for name, (truth, make) in kinds.items():
        differences = (paired_bootstrap(make(seed), groups) for seed in range(comparisons))
        row[name] = rates(differences, truth, comparisons)
        print(documents, name, row[name], flush=True)
    return row


def power(comparisons: int, questions: int = QUESTIONS, gains: Sequence[float] = GAINS) -> dict[str, Any]:
    """Return documents -> kind -> gain -> rates, and for no gain also those of the plain interval."""
    found: dict[str, Any] = {}
    for documents in POWER_DOCUMENTS:
        of_documents = found.setdefault(str(documents), {})
        for kind, make in KINDS.items():
            for gain in gains:
                draws = [make(np.random.default_rng(seed), documents, questions, gain) for seed in range(comparisons)]
                found_of = [paired_bootstrap(*draw) for draw in draws]
                row: dict[str, Any] = rates(found_of, gain, comparisons, questions)
                if not gain:
                    plain_of = [plain(*draw) for draw in draws]
                    row["plain"] = coverage(plain_of, gain) | {
                        "ship": float(np.mean([difference.ci95[0] > 0 for difference in plain_of]))
                    }
                of_documents.setdefault(kind, {})[f"{gain:.2f}"] = row
                print(documents, kind, gain, row, flush=True)
    return found


def few_questions(comparisons: int) -> dict[str, Any]:
    """Return the same for 60 questions without a gain."""
    return power(comparisons, FEW_QUESTIONS, (0.0,))


def edge(comparisons: int) -> dict[str, Any]:
    """Return documents -> lowest difference -> mean difference -> coverage."""
    found: dict[str, Any] = {}
    for documents in EDGE_DOCUMENTS:
        of_documents = found.setdefault(str(documents), {})
        for lowest in (0.0, -0.1, -1.0):
            for mean in EDGE_MEANS:
                draws = [
                    near_the_edge(np.random.default_rng(seed), documents, mean, lowest) for seed in range(comparisons)
                ]
                row: dict[str, Any] = coverage([paired_bootstrap(*draw) for draw in draws], mean)
                row["plain"] = coverage([plain(*draw) for draw in draws], mean)
                of_documents.setdefault(f"{lowest:g}", {})[f"{mean:g}"] = row
                print(documents, lowest, mean, row, flush=True)
    return found


def votes(comparisons: int) -> dict[str, Any]:
    """Return the sessions of a and b -> their mean ratings -> coverage."""
    found: dict[str, Any] = {}
    for sessions in SESSIONS:
        of_sessions = found.setdefault(f"{sessions[0]} and {sessions[1]}", {})
        for means in RATINGS:
            differences, welch = [], []
            for seed in range(comparisons):
                rng = np.random.default_rng(seed)
                a, b = (_session_ratings(rng, *each) for each in zip(sessions, means, strict=True))
                differences.append(difference_of_groups({"a": a, "b": b}))
                welch.append(_welch(a, b))
            row: dict[str, Any] = coverage(differences, means[1] - means[0])
            row["plain"] = coverage(welch, means[1] - means[0])
            of_sessions[f"{means[0]:g} and {means[1]:g}"] = row
            print(sessions, means, row, flush=True)
    return found


def _session_ratings(rng: np.random.Generator, sessions: int, mean: float) -> dict[str, list[float]]:
    """Draw one to about four ratings, -1 or 1, for each session; sessions differ in how content they are."""
    content = fractions_of(rng, (1 + mean) / 2, 2 * CORRELATION, sessions)
    counts = 1 + rng.poisson(1.5, sessions)
    return {
        f"s{n}": list(np.where(rng.random(count) < fraction, 1.0, -1.0))
        for n, (count, fraction) in enumerate(zip(counts, content, strict=True))
    }


def _welch(a: dict[str, list[float]], b: dict[str, list[float]]) -> Difference:
    """Return Welch's t-interval of the sessions' means, as version 0.1.0 did."""
    one, other = (np.array([np.mean(ratings) for ratings in each.values()]) for each in (a, b))
    mean = float(other.mean() - one.mean())
    if np.ptp(one) == 0 and np.ptp(other) == 0:
        return Difference(mean, (mean, mean), 1.0)
    low, high = ttest_ind(other, one, equal_var=False).confidence_interval(0.95)
    return Difference(mean, (max(-2.0, float(low)), min(2.0, float(high))), 1.0)


def write(part: str, values: Any, comparisons: int) -> None:
    """Write figures into the file of results. It is read only now, because another run may have written into it."""
    file = RESULTS / "calibration.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if part == "figures":
        values = dict(sorted({**results.get("figures", {}), **values}.items(), key=lambda item: int(item[0])))
    results |= {part: values, "questions": QUESTIONS, "comparisons": comparisons, "machine": machine()}
    file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("documents", "power", "few-questions", "edge", "votes")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--documents", type=int, nargs="+", default=[1, 5, 10, 29, 60])
    parser.add_argument("--comparisons", type=int, default=4000)
    arguments = parser.parse_args()
    for part in arguments.parts:
        if part == "documents":
            for documents in arguments.documents:
                row = by_documents(documents, arguments.comparisons)
                write("figures", {str(documents): row}, arguments.comparisons)
        else:
            measure = {"power": power, "few-questions": few_questions, "edge": edge, "votes": votes}[part]
            write(part.replace("-", "_"), measure(arguments.comparisons), arguments.comparisons)


if __name__ == "__main__":
    main()
