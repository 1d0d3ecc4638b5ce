"""Candidates on the same questions: each is searched as an app would search it, then judged."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.splitting import carve_dev
from rag_ft.dataset.text.sketch import QUESTIONS, share_in
from rag_ft.errors import InputError
from rag_ft.evaluation.aspects import characters_read_by
from rag_ft.evaluation.comparison import BASELINE, DEPTH, Comparison, judge, resampling_groups
from rag_ft.evaluation.learning_fusion import LearnedFusion, learn_fusion
from rag_ft.evaluation.metrics import DEFAULT_METRICS
from rag_ft.evaluation.search import QUERIES_AT_ONCE, EmbeddedCorpus, rank_with_retriever
from rag_ft.evaluation.verdict import VerdictRules
from rag_ft.files import sha256_of
from rag_ft.retrieval.bm25 import BM25, WordScores, best_places
from rag_ft.retrieval.fusion import Fusion
from rag_ft.retrieval.pooling import pool_of, pools_of

if TYPE_CHECKING:
    import numpy as np
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

    Candidate: TypeAlias = "BaseEmbedding | Hybrid | BaseRetriever | Literal['bm25']"


@dataclass(frozen=True)
class Hybrid:
    """A candidate of `compare`: an embedding and BM25, their lists mixed.

    Attributes:
        embed_model: any LlamaIndex embedding.
        fusion: how; None: as the model's folder says, else as it is learned on dev questions, else reciprocal ranks.
    """

    embed_model: BaseEmbedding
    fusion: Fusion | None = None


def compare(
    dataset: QADataset,
    baseline: Candidate,
    candidates: Sequence[Candidate] | Candidate,
    *,
    split: str = "test",
    name: str = "",
    metrics: Sequence[str] = DEFAULT_METRICS,
    rules: VerdictRules | None = None,
    hybrids: bool = True,
    seed: int = 0,
    show_progress: bool = False,
) -> Comparison:
    """Compare retrievers on the questions of one split: embeddings through a Chroma index, and BM25 beside them.

    Args:
        dataset: with questions in the split; the whole corpus is searched.
        baseline: what is in use: an embedding, a `Hybrid`, a LlamaIndex retriever whose nodes have the ids of the
            passages, or `"bm25"`.
        candidates: one or several that might replace it, likewise.
        split: whose questions are asked.
        name: of the dataset, for the report.
        metrics: names like `ndcg@10`; the headline metric is always among them.
        rules: of the verdict.
        hybrids: show the baseline and the first candidate mixed with BM25 too, where they are embeddings. The mix is
            learned on dev questions, which must not be those of `split`.
        seed: of the bootstrap.
        show_progress: progress bars while passages are embedded.

    Raises:
        InputError: where the split has no question, or a model was trained on its test questions.
        OutsideError: where an embedding or a retriever fails.
    """
    from llama_index.core.base.embeddings.base import BaseEmbedding

    dataset.require(split)
    given = list(candidates) if isinstance(candidates, Sequence) and not isinstance(candidates, str) else [candidates]
    if not given:
        raise InputError("there is no candidate to compare with the baseline: give at least one")
    roles: dict[str, Candidate] = {BASELINE: baseline}
    roles |= {"candidate" if place == 0 else f"candidate-{place + 1}": each for place, each in enumerate(given)}
    if hybrids:
        for role in (BASELINE, "candidate"):
            if isinstance(model := roles[role], BaseEmbedding):
                roles[f"hybrid-{role}"] = Hybrid(model)
    if not any(isinstance(each, str) for each in roles.values()):
        roles["bm25"] = "bm25"
    seen = _trained_on(roles, dataset, split)
    found = _Searches(dataset, split, seed, show_progress).of(roles)
    comparison = judge(
        dataset,
        split,
        {role: value.passages for role, value in found.items()},
        {role: display_name(each) for role, each in roles.items()},
        name,
        metrics,
        seed,
        {role: value.details | {"kind": _kind_of(roles[role])} for role, value in found.items()},
        rules,
        characters_read_by(given, dataset, split),
    )
    return replace(comparison, notes=(*comparison.notes, *seen))


SEEN = 0.1
"""Share of the test questions that a model was trained on, over which its figures would mean nothing: single questions
are asked twice by chance."""


def _trained_on(roles: Mapping[str, Candidate], dataset: QADataset, split: str) -> list[str]:
    """A note for each model that was trained on some of the questions.

    Raises:
        InputError: where it was trained on many of those of the test split.
    """
    texts = [dataset.queries[query].text for query in dataset.qrels[split]]
    models: dict[int, tuple[str, Any]] = {}
    for role, each in roles.items():
        models.setdefault(id(_model_of(each)), (role, _model_of(each)))
    notes = []
    for role, model in models.values():
        training = getattr(model, "record", {}).get("training", {})
        share = share_in(training.get("questions", ()), texts, QUESTIONS)
        if not share or training.get("share") == 0:  # then it has the base model's weights
            continue
        name = display_name(model)
        if share > SEEN and split == "test":
            raise InputError(
                f"{name} was trained on {share:.0%} of the {split} questions, so that its figures would mean nothing: "
                "compare on questions that it has not seen"
            )
        notes.append(f"The {role} ({name}) was trained on {share:.1%} of these questions.")
    return notes


BM25_ROLE = "bm25"

INDEXED = 20_000
"""Passages up to which all go into a Chroma index. Of more the exact search gives the figures, and what an index of
some of them finds stands beside."""

SAMPLED = 5_000
"""Passages of that index."""

SCORES_AT_ONCE = 25_600_000
"""Of one embedding in memory: 100 MB."""

ASKED = 500
"""Questions by which that is told."""


@dataclass
class _Found:
    passages: list[list[str]]
    details: dict[str, Any]


class _Searches:
    """Searches all questions with every candidate; what several of them need is made once."""

    def __init__(self, dataset: QADataset, split: str, seed: int, show_progress: bool) -> None:
        self._dataset, self._split, self._seed, self._show_progress = dataset, split, seed, show_progress
        self._texts = dataset.passage_texts
        self._queries = [dataset.queries[query].text for query in dataset.qrels[split]]
        self._corpora: dict[int, EmbeddedCorpus] = {}
        self._words: BM25 | None = None
        self._words_seconds = 0.0

    def of(self, roles: Mapping[str, Candidate]) -> dict[str, _Found]:
        """What each finds."""
        from llama_index.core.base.base_retriever import BaseRetriever
        from llama_index.core.base.embeddings.base import BaseEmbedding

        found: dict[str, _Found] = {}
        exact: dict[str, Candidate] = {}
        for role, each in roles.items():
            if isinstance(each, BaseRetriever):
                passages, milliseconds = rank_with_retriever(each, self._queries, DEPTH, self._texts)
                found[role] = _Found(passages, {"query_milliseconds": round(milliseconds, 2)})
            elif isinstance(each, BaseEmbedding) and len(self._texts) <= INDEXED:
                found[role] = self._through_chroma(each)
            else:
                exact[role] = each
        found |= self._exactly(exact)
        return {role: found[role] for role in roles}

    def _through_chroma(self, model: BaseEmbedding) -> _Found:
        corpus = self._corpus(model)
        passages, agreement, milliseconds = corpus.rank(DEPTH)
        return _Found(passages, corpus_details(corpus, agreement) | {"query_milliseconds": round(milliseconds, 2)})

    def _exactly(self, roles: Mapping[str, Candidate]) -> dict[str, _Found]:
        """Rank all passages by each candidate, in one pass over the questions."""
        from tqdm.auto import tqdm

        found = {role: _Found([], self._details(each)) for role, each in roles.items()}
        mixed = [role for role, each in roles.items() if isinstance(each, Hybrid)]
        fusions = {role: Fusion.from_dict(found[role].details["fusion"]) for role in mixed}
        words = self._bm25() if fusions or "bm25" in roles.values() else None
        corpora = {role: self._corpus(_model_of(each)) for role, each in roles.items() if each != "bm25"}
        seconds: dict[str, float] = defaultdict(float)
        step = max(16, min(QUERIES_AT_ONCE, SCORES_AT_ONCE // max(1, len(self._texts))))
        blocks = range(0, len(self._queries), step)
        ids = list(self._texts)
        quiet = not self._show_progress or len(self._texts) <= INDEXED
        for start in tqdm(blocks, desc="searching", unit="block", disable=quiet, dynamic_ncols=True):
            queries = self._queries[start : start + step]
            by_words: list[WordScores] = []
            firsts: dict[str, list[NDArray[np.intp]]] = {}
            with _timed(seconds, BM25_ROLE):
                if words is not None:
                    by_words = list(words.search(queries))
                    firsts[BM25_ROLE] = [best_places(each.scores, DEPTH, above=0.0) for each in by_words]
            similarities: dict[str, NDArray[np.float32]] = {}
            for name, corpus in {str(id(each)): each for each in corpora.values()}.items():
                with _timed(seconds, name):
                    similarities[name] = corpus.block(start, start + step)
                    firsts[name] = [best_places(row, DEPTH) for row in similarities[name]]
            for role in roles:
                name = str(id(corpora[role])) if role in corpora else BM25_ROLE
                with _timed(seconds, f"mix {role}"):
                    if role in fusions:
                        pairs = zip(firsts[name], firsts[BM25_ROLE], strict=True)
                        found[role].passages += self._mixed(fusions[role], similarities[name], by_words, list(pairs))
                    else:
                        found[role].passages += [[ids[place] for place in row] for row in firsts[name]]
        for role, value in found.items():
            taken = seconds[f"mix {role}"] + (seconds[BM25_ROLE] if role in fusions or role not in corpora else 0.0)
            embedding = corpora[role].query_milliseconds if role in corpora else 0.0
            taken += seconds[str(id(corpora[role]))] if role in corpora else 0.0
            value.details["query_milliseconds"] = round(embedding + 1000 * taken / len(self._queries), 2)
        return found

    def _mixed(
        self,
        fusion: Fusion,
        similarities: NDArray[np.float32],
        by_words: Sequence[WordScores],
        firsts: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]],
    ) -> list[list[str]]:
        """The passages of a block of questions, by an embedding and BM25 mixed."""
        ids = list(self._texts)
        known = firsts if fusion.depth <= DEPTH else [None] * len(by_words)
        pools = (
            pool_of(ids, row, words, fusion.depth, places)
            for row, words, places in zip(similarities, by_words, known, strict=True)
        )
        return [[passage for passage, _ in fusion.ranked(pool)[:DEPTH]] for pool in pools]

    def _details(self, candidate: Candidate) -> dict[str, Any]:
        """What a candidate takes, and how it mixes."""
        if isinstance(candidate, str):
            words = self._bm25()
            return {"index_seconds": round(self._words_seconds, 2), "index_megabytes": round(words.megabytes, 1)}
        corpus = self._corpus(_model_of(candidate))
        if not isinstance(candidate, Hybrid):
            agreement = corpus.agreement(SAMPLED, ASKED, self._seed)
            return corpus_details(corpus, agreement) | {"agreement_passages": SAMPLED}
        words = self._bm25()
        fusion, learned = self._fusion(candidate, corpus, words)
        details = corpus_details(corpus) | {"fusion": fusion.to_dict()}
        details["index_seconds"] = round(corpus.seconds + self._words_seconds, 2)
        details["index_megabytes"] = round(corpus.megabytes + words.megabytes, 1)
        return details | ({"fusion_learned_on": learned.questions} if learned is not None else {})

    def _corpus(self, model: BaseEmbedding) -> EmbeddedCorpus:
        if id(model) not in self._corpora:
            self._corpora[id(model)] = EmbeddedCorpus(model, self._texts, self._queries, self._show_progress)
        return self._corpora[id(model)]

    def _bm25(self) -> BM25:
        if self._words is None:
            began = time.monotonic()
            self._words = BM25(self._texts)
            self._words_seconds = time.monotonic() - began
        return self._words

    def _fusion(self, hybrid: Hybrid, corpus: EmbeddedCorpus, words: BM25) -> tuple[Fusion, LearnedFusion | None]:
        if hybrid.fusion is not None:
            return hybrid.fusion, None
        kept = getattr(hybrid.embed_model, "fusion", None)
        if kept and not set(kept.get("asked", ())) & {question_hash(query) for query in self._queries}:
            return Fusion.from_dict(kept), None
        learned = _learned(self._dataset, self._split, corpus, words, self._seed)
        return (learned.fusion, learned) if learned is not None else (Fusion(), None)


def corpus_details(corpus: EmbeddedCorpus, agreement: float | None = None) -> dict[str, Any]:
    """What an embedding's index takes."""
    return ({"exact_agreement": round(agreement, 4)} if agreement is not None else {}) | {
        "index_seconds": round(corpus.seconds, 2),
        "dimension": corpus.dimension,
        "index_megabytes": round(corpus.megabytes, 1),
    }


def _kind_of(candidate: Candidate) -> str:
    """`bm25`, `embedding`, `hybrid` or `retriever`."""
    from llama_index.core.base.embeddings.base import BaseEmbedding

    if isinstance(candidate, str):
        return "bm25"
    if isinstance(candidate, Hybrid):
        return "hybrid"
    return "embedding" if isinstance(candidate, BaseEmbedding) else "retriever"


def _model_of(candidate: Candidate) -> Any:
    return candidate.embed_model if isinstance(candidate, Hybrid) else candidate


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[name] += time.monotonic() - began


FEWEST_DEV = 20
"""Dev questions under which a mix is not learned."""


def _learned(dataset: QADataset, split: str, corpus: EmbeddedCorpus, words: BM25, seed: int) -> LearnedFusion | None:
    """The mix that is best on dev; None where there are too few dev questions besides those that are asked."""
    if not dataset.qrels.get("dev") and dataset.qrels.get("train") and split != "train":
        # The questions that chose the model's weights, and that it was not trained on: drawn by its own seed.
        own = getattr(corpus.model, "record", {}).get("recipe", {}).get("seed")
        dataset = carve_dev(dataset, seed=seed if own is None else int(own))
    asked = {question_hash(dataset.queries[query].text) for query in dataset.qrels.get(split, {})}
    dev = {
        query: grades
        for query, grades in dataset.qrels.get("dev", {}).items()
        if question_hash(dataset.queries[query].text) not in asked
    }
    if split == "dev" or len(dev) < FEWEST_DEV:
        return None
    dataset = dataset.with_qrels(dataset.qrels | {"dev": dev})
    queries = [dataset.queries[query].text for query in dev]
    pools = list(pools_of(corpus, words, queries))
    learned = learn_fusion(pools, list(dev.values()), resampling_groups(dataset, "dev")[0], seed)
    return replace(learned, asked=tuple(question_hash(query) for query in queries))


def question_hash(question: str) -> str:
    """A question as a model folder remembers it."""
    return sha256_of(question)[:12]


def learn_fusion_of(
    dataset: QADataset, embed_model: BaseEmbedding, *, seed: int = 0, show_progress: bool = False
) -> LearnedFusion:
    """Learn how an embedding and BM25 are mixed best, on the dev questions of a dataset.

    Args:
        dataset: the one that the model was trained on, with its dev split; where it has none, the same questions are
            taken out of train as in training with this seed.
        embed_model: any LlamaIndex embedding.
        seed: of the training, where the model's folder does not say.
        show_progress: a progress bar while passages are embedded.

    Raises:
        InputError: where there are under 20 dev questions.
    """
    texts = dataset.passage_texts
    corpus = EmbeddedCorpus(embed_model, texts, [], show_progress)
    learned = _learned(dataset, "", corpus, BM25(texts), seed)
    if learned is None:
        raise InputError(
            f"the dataset has {len(dataset.qrels.get('dev', {}))} dev questions: at least {FEWEST_DEV} are needed to "
            "learn how lists are mixed"
        )
    return learned


def reach_of(candidate: Candidate) -> int:
    """Tokens that a candidate reads of a passage; 0 where it has no such bound, or none is known."""
    return int(getattr(_model_of(candidate), "max_length", None) or 0)


def display_name(candidate: Candidate) -> str:
    """A name for people: the last part of a folder, a hub name as it is."""
    if isinstance(candidate, str):
        return candidate
    if isinstance(candidate, Hybrid):
        return f"hybrid:{display_name(candidate.embed_model)}"
    name = getattr(candidate, "model_name", None) or getattr(candidate, "name", None)
    if not name:
        return type(candidate).__name__
    path = Path(name)
    return path.name if path.is_dir() else str(name)
