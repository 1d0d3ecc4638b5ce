"""What chooses between weights: dev questions over a pool of passages, or scored pairs where there are no questions."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rag_ft.dataset.qa_dataset import QADataset, ScoredPair
from rag_ft.dataset.sources import HUMAN, KEY_PHRASES
from rag_ft.dataset.splitting import MOST_DEV
from rag_ft.dataset.text.near_duplicates import near_duplicate_groups
from rag_ft.dataset.text.sketch import hash_of
from rag_ft.embedding.encoding import encode
from rag_ft.evaluation.comparison import resampling_groups
from rag_ft.evaluation.metrics import HEADLINE, metrics_per_query
from rag_ft.retrieval.top_k import top_k_rows

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

POOL = 600
"""Passages that dev questions are searched in: their own, and a random rest."""

AT_ONCE = 256

DEPTH = 10

ENOUGH = 30

DEV_SHARE = 0.15
"""Of scored pairs, by question, where there is no other dev."""


class Dev(Protocol):
    """A measure that weights are chosen by, of units (questions, or scored pairs)."""

    @property
    def metric(self) -> str:
        """Its name."""

    @property
    def sources(self) -> list[str]:
        """How each unit was made: all makings must agree."""

    @property
    def kinds(self) -> list[str]:
        """What each unit asks about, `known` or `new` documents: neither may lose; empty where that is not told."""

    @property
    def groups(self) -> list[object]:
        """What each unit is resampled with."""

    def values(self, model: SentenceTransformer) -> NDArray[np.float64]:
        """The figure of each unit under a model, shape (units,)."""

    def passages(self) -> list[str]:
        """Texts to look at a model's vectors with."""

    def texts(self) -> list[str]:
        """All that a figure reads."""


@dataclass(frozen=True)
class DevQuestions:
    """Dev questions over a pool of passages that is small enough to be encoded again and again; nDCG@10.

    Attributes:
        query_ids: the dev questions.
        query_texts: their texts.
        passage_ids: the pool.
        passage_texts: its texts.
        qrels: the dev judgements.
        sources: `key phrases`, `real` (asked by people) or `other`; with `earlier` before it where the question is
            one of an earlier dataset.
        groups: what each question is resampled with: its document.
        kinds: whether training sees each question's document, `known`, or not, `new`.
        metric: `ndcg@10`.
    """

    query_ids: list[str]
    query_texts: list[str]
    passage_ids: list[str]
    passage_texts: list[str]
    qrels: Mapping[str, Mapping[str, int]]
    sources: list[str]
    groups: list[object]
    kinds: list[str] = field(default_factory=list)
    metric: str = HEADLINE

    @classmethod
    def of(cls, dataset: QADataset, seed: int = 0, pool: int = POOL) -> DevQuestions:
        """The dev split of a dataset, over its relevant passages and a random rest.

        Test passages may be in the pool as passages to be passed over; no test question is looked at. Of more than
        1,000 questions, as many of each making are drawn as there are of it among all.
        """
        earlier = set(dataset.info.get("earlier_questions", ()))
        named = {KEY_PHRASES: "key phrases", HUMAN: "real"}
        source = {
            query: ("earlier " if query in earlier else "") + named.get(dataset.queries[query].source, "other")
            for query in dataset.require("dev")
        }
        asked = _drawn(source, MOST_DEV, seed)
        dataset = dataset.with_qrels(dataset.qrels | {"dev": {query: dataset.qrels["dev"][query] for query in asked}})
        judged = dataset.require("dev")
        # Of very many passages that answer a question ten are enough: no more of them have a place in the figure.
        relevant = {
            passage for grades in judged.values() for passage in sorted(grades, key=lambda p: -grades[p])[:DEPTH]
        }
        qrels = {query: {p: grade for p, grade in grades.items() if p in relevant} for query, grades in judged.items()}
        left_out = {passage for grades in judged.values() for passage in grades}
        others = [passage for passage in dataset.passages if passage not in left_out]
        count = max(0, min(len(others), pool - len(relevant)))
        drawn = set(np.random.default_rng(seed).choice(len(others), count, replace=False).tolist()) if count else set()
        chosen = relevant | {others[place] for place in drawn}
        ids = [passage for passage in dataset.passages if passage in chosen]
        texts = dataset.passage_texts
        known = dataset.seen_queries("dev")
        return cls(
            list(qrels),
            [dataset.queries[query].text for query in qrels],
            ids,
            [texts[passage] for passage in ids],
            qrels,
            [source[query] for query in qrels],
            resampling_groups(dataset, "dev")[0],
            ["known" if query in known else "new" for query in qrels],
        )

    def values(self, model: SentenceTransformer) -> NDArray[np.float64]:
        """nDCG@10 of each dev question under a model, shape (questions,); the search is exact."""
        return self.values_of(encode(model, self.query_texts, "query"), encode(model, self.passage_texts, "document"))

    def values_of(self, queries: NDArray[np.float32], passages: NDArray[np.float32]) -> NDArray[np.float64]:
        """The same of vectors, of length 1, in the order of `query_texts` and `passage_texts`."""
        depth = min(DEPTH, len(self.passage_ids))
        rankings = {}
        for start in range(0, len(queries), AT_ONCE):
            scores = queries[start : start + AT_ONCE] @ passages.T
            top = top_k_rows(scores, depth)
            for query, places in zip(self.query_ids[start : start + AT_ONCE], top, strict=True):
                rankings[query] = [self.passage_ids[place] for place in places]
        return metrics_per_query(rankings, self.qrels, [HEADLINE])[HEADLINE]

    def passages(self) -> list[str]:
        """The texts of the pool."""
        return self.passage_texts

    def texts(self) -> list[str]:
        """The questions and the pool."""
        return [*self.query_texts, *self.passage_texts]

    def level(self, values: NDArray[np.float64]) -> float:
        """The mean over the questions that were made without an LLM, or over all where these are few."""
        plain = np.array([source.endswith("key phrases") for source in self.sources])
        return float((values[plain] if plain.sum() >= ENOUGH else values).mean())

    def chance(self) -> float:
        """nDCG@10 that a ranking at random would have, about."""
        discounts = 1 / np.log2(np.arange(2, min(DEPTH, len(self.passage_ids)) + 2))
        found = [
            len(relevant) / max(1, len(self.passage_ids)) * discounts.sum() / discounts[: len(relevant)].sum()
            for relevant in self.qrels.values()
        ]
        return float(np.mean(found))


@dataclass(frozen=True)
class DevScores:
    """Scored pairs: does the cosine put them in the order of their scores (Spearman's rank correlation).

    Attributes:
        pairs: held-out scored pairs.
        sources: all the same.
        groups: the pairs' questions, near-repeats as one.
        kinds: none.
        metric: `spearman`.
    """

    pairs: list[ScoredPair]
    sources: list[str]
    groups: list[object]
    kinds: list[str] = field(default_factory=list)
    metric: str = "spearman"

    @classmethod
    def carved(
        cls, dataset: QADataset, seed: int = 0, seen: Collection[str] = ()
    ) -> tuple[DevScores | None, QADataset]:
        """(a share of the scored pairs, with what nearly repeats their questions; the dataset without them).

        None where they are too few. Questions in `seen`, hashes of what a model was tuned on before, are not drawn.
        """
        queries = sorted({pair.query for pair in dataset.scored_pairs})
        repeats = dict(zip(queries, near_duplicate_groups(queries), strict=True))
        group_of = [repeats[pair.query] for pair in dataset.scored_pairs]
        sizes = Counter(group_of)
        known = {repeats[query] for query in queries if hash_of(query) in seen}
        drawn = sorted(sizes.keys() - known)
        random.Random(seed).shuffle(drawn)
        # A third of a few pairs, so that they are enough.
        enough = max(DEV_SHARE * len(group_of), min(ENOUGH, len(group_of) / 3))
        held_out: set[int] = set()
        for group in drawn:
            if sum(sizes[each] for each in held_out) >= enough:
                break
            held_out.add(group)
        split = list(zip(dataset.scored_pairs, group_of, strict=True))
        dev = [(pair, group) for pair, group in split if group in held_out]
        if len(dev) > MOST_DEV:
            dev = random.Random(seed).sample(dev, MOST_DEV)
        if len(dev) < ENOUGH or len(held_out) == len(sizes) or len({pair.score for pair, _ in dev}) < 2:
            return None, dataset
        rest = [pair for pair, group in split if group not in held_out]
        pairs = [pair for pair, _ in dev]
        return cls(pairs, ["pairs"] * len(dev), [group for _, group in dev]), replace(dataset, scored_pairs=rest)

    def values(self, model: SentenceTransformer) -> NDArray[np.float64]:
        """What each pair adds to the correlation, shape (pairs,): their mean is Spearman's coefficient."""
        from scipy.stats import rankdata

        queries = encode(model, [pair.query for pair in self.pairs], "query")
        passages = encode(model, [pair.passage for pair in self.pairs], "document")
        ranks = [rankdata((queries * passages).sum(axis=1)), rankdata([pair.score for pair in self.pairs])]
        one, other = ((rank - rank.mean()) / max(float(rank.std()), 1e-12) for rank in ranks)
        return np.asarray(one * other, dtype=np.float64)

    def passages(self) -> list[str]:
        """The distinct passages."""
        return list(dict.fromkeys(pair.passage for pair in self.pairs))

    def texts(self) -> list[str]:
        """Both sides of the pairs."""
        return [text for pair in self.pairs for text in (pair.query, pair.passage)]


def dev_triplets(dataset: QADataset, seed: int = 0) -> list[tuple[str, str, str]]:
    """(question, passage that answers it, one that does not) of the dev questions that were given negatives."""
    texts = dataset.passage_texts
    found = [
        (dataset.queries[query].text, texts[passage], texts[negative])
        for query, grades in dataset.qrels.get("dev", {}).items()
        for passage in grades
        for negative in dataset.negatives.get(query, ())
    ]
    return random.Random(seed).sample(found, MOST_DEV) if len(found) > MOST_DEV else found


def triplet_accuracy(model: SentenceTransformer, triplets: Sequence[tuple[str, str, str]]) -> float:
    """Share of the triplets whose answering passage is nearer to the question than the other one.

    Args:
        model: with its prompts set.
        triplets: question, passage that answers it, one that does not.
    """
    questions = encode(model, [question for question, _, _ in triplets], "query")
    answers = encode(model, [answer for _, answer, _ in triplets], "document")
    others = encode(model, [other for _, _, other in triplets], "document")
    return float(((questions * answers).sum(axis=1) > (questions * others).sum(axis=1)).mean())


def _drawn(source: Mapping[str, str], most: int, seed: int) -> list[str]:
    """About so many questions at most: of each making its share, and 30 at least where it has them."""
    if len(source) <= most:
        return list(source)
    draw, chosen = random.Random(seed), set()
    for name in dict.fromkeys(source.values()):
        those = [query for query, made in source.items() if made == name]
        count = max(round(most * len(those) / len(source)), min(ENOUGH, len(those)))
        chosen |= set(draw.sample(those, count))
    return [query for query in source if query in chosen]


State = dict[str, "torch.Tensor"]


def copy_weights(model: SentenceTransformer) -> State:
    """A copy of a model's weights in main memory."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def interpolate_weights(base: State, tuned: State, share: float) -> State:
    """Weights between base (share 0) and tuned (share 1); tensors of whole numbers stay the base's."""
    return {
        name: base[name] + share * (tuned[name] - base[name]) if base[name].is_floating_point() else base[name]
        for name in base
    }
