"""Check whether fine-tuning is worth it: measure a base model, BM25 and both together on a corpus, without training."""

from __future__ import annotations

import logging
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.sources import HUMAN
from rag_ft.dataset.splitting import hold_out_dev
from rag_ft.dataset.text.sketch import jaccard, sketch_of
from rag_ft.embedding.contract import read_model_record
from rag_ft.embedding.loading import DEFAULT_BASE_MODEL, model_folder
from rag_ft.errors import InputError
from rag_ft.evaluation.metrics import HEADLINE, metrics_per_query
from rag_ft.evaluation.resampling import resampling_groups
from rag_ft.evaluation.significance import Difference, paired_bootstrap, smallest_effect
from rag_ft.evaluation.verdict import MIN_QUESTIONS
from rag_ft.retrieval.bm25 import BM25
from rag_ft.retrieval.exact import ExactSearch
from rag_ft.retrieval.normalisation import RRF_K
from rag_ft.retrieval.top_k import MAX_RANK
from rag_ft.training.selection.headroom import HIGH_BASE_NDCG, LOW_BASE_NDCG

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode
    from numpy.typing import NDArray

    from rag_ft.embedding.fine_tuned import FineTunedEmbedding

logger = logging.getLogger(__name__)

Answer = Literal["worth it", "not worth it", "perhaps", "cannot tell"]

RECALL, HIT_RATE = "recall@10", "hit_rate@5"

MIN_PAIRS = 500
"""Number of training pairs below which tuning seldom helps. The guides that `headroom` cites report overfitting below
it."""

SMALL_GAIN = 0.02
"""Gain in nDCG@10 below which better questions help more than another recipe."""

MAX_PASSAGES, MAX_QUESTIONS = 5_000, 500
"""Maximum numbers of passages and questions of a check-up."""

PASSAGES_PER_PAIR = 3.5
"""Cost of a training pair in encoded passages: forward, backward, and its question."""

EPOCHS = 3
"""Number of epochs of the estimated training."""

SAME_CORPUS = 0.5
"""Minimum fraction of common passages for two corpora to count as the same."""

MAX_TRUNCATED = 0.25
"""Fraction of truncated passages above which smaller chunks are advised."""


@dataclass(frozen=True)
class CheckUp:
    """The result of a check-up: the measurements without training, and whether tuning is worth it.

    Attributes:
        answer: `worth it`, `not worth it`, `perhaps`, or `cannot tell`.
        reasons: the reasons, the most important first.
        advice: what else to try, or what to do first.
        questions: number of questions.
        generated: number of questions that were generated from the passages.
        passages: number of passages that were searched.
        pairs: number of training pairs.
        figures: `base`, `bm25` and `hybrid` (reciprocal rank fusion) -> metric -> mean.
        hybrid_gain: gain of the hybrid over the base model in nDCG@10.
        smallest_effect: gain in nDCG@10 that 4 of 5 comparisons with this many questions would detect.
        minutes: estimated training time on this machine.

    Example:
        >>> from rag_ft import Passage, QADataset, Query, check
        >>> dataset = QADataset({"p": Passage("p", "A claim is a form.")}, {"q": Query("q", "What is a claim?")},
        ...                     {"test": {"q": {"p": 1}}})
        >>> checkup = check(dataset, "local")
        >>> checkup.answer, checkup.figures["bm25"]["hit_rate@5"]
        ('cannot tell', 1.0)
        >>> print(checkup.reasons[0])
        1 questions are too few: at least 50 are needed, and 200 for a gain of .05
    """

    answer: Answer
    reasons: list[str]
    advice: list[str]
    questions: int
    generated: int
    passages: int
    pairs: int
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    hybrid_gain: Difference | None = None
    smallest_effect: float | None = None
    minutes: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the check-up as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.answer}: {self.reasons[0]}", *(f"  - {reason}" for reason in self.reasons[1:])]
        if self.figures:
            lines += ["", f"{'':8s} nDCG@10  recall@10  hit@5"]
            for name, figures in self.figures.items():
                lines.append(f"{name:8s} {figures[HEADLINE]:7.3f}  {figures[RECALL]:9.3f}  {figures[HIT_RATE]:5.3f}")
        generated = f", {self.generated} of them generated" if self.generated else ""
        counts = f"{self.questions} questions{generated}; {self.passages:,} passages; {self.pairs:,} training pairs"
        lines += ["", counts]
        if self.smallest_effect is not None:
            lines.append(f"gains under {self.smallest_effect:.3f} are too small to detect with this many questions")
        if self.minutes is not None:
            lines.append(f"training takes about {max(1, round(self.minutes))} min on this machine")
        if self.advice:
            lines += ["", "advice:", *(f"  - {advice}" for advice in self.advice)]
        return "\n".join(lines)


def check(
    source: QADataset | Sequence[BaseNode],
    base_model: str = DEFAULT_BASE_MODEL,
    *,
    split: str | None = None,
    device: str | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> CheckUp:
    """Check whether tuning a model for a corpus is worth it, without any training.

    Args:
        source: a dataset, or LlamaIndex nodes. For nodes, questions are generated without an LLM.
        base_model: a hub name, a folder, or `local`.
        split: the split of the questions; `test` if it has any, else dev or train.
        device: a torch device; None picks the best one available.
        seed: seeds every random choice.
        show_progress: show a progress bar.

    Raises:
        InputError: if there are no passages or no questions.
        OutsideError: if the hub cannot be reached.

    Example:
        >>> from rag_ft import Passage, QADataset, Query, check
        >>> dataset = QADataset({"p": Passage("p", "A claim is a form.")}, {"q": Query("q", "What is a claim?")},
        ...                     {"test": {"q": {"p": 1}}})
        >>> check(dataset, "local").answer
        'cannot tell'
    """
    from rag_ft.embedding.fine_tuned import FineTunedEmbedding
    from rag_ft.embedding.model_spec import ModelSpec

    dataset = source if isinstance(source, QADataset) else _generate(source, seed)
    split = split or next((name for name in ("test", "dev", "train") if dataset.qrels.get(name)), "test")
    qrels = dataset.require(split)
    queries = sorted(random.Random(seed).sample(sorted(qrels), min(len(qrels), MAX_QUESTIONS)))
    dataset = dataset.with_qrels(dataset.qrels | {split: {query: qrels[query] for query in queries}})
    pairs = len(hold_out_dev(dataset, seed=seed).pairs("train")) if dataset.qrels.get("train") else 0
    texts = _sample_passages(dataset, split, seed)
    model = FineTunedEmbedding.load(ModelSpec(name=base_model, device=device))
    model.get_text_embedding("a warm-up that is not timed")
    started = time.monotonic()
    search = ExactSearch(model, texts, show_progress)
    seconds_per_passage = (time.monotonic() - started) / len(texts)
    values = _measure(search, dataset, split, texts)
    groups, _ = resampling_groups(dataset, split)
    gains = values["hybrid"][HEADLINE] - values["base"][HEADLINE]
    figures = {
        name: {metric: float(of_queries.mean()) for metric, of_queries in of_metrics.items()}
        for name, of_metrics in values.items()
    }
    answer, reasons = _decide(figures, len(queries), pairs, _fraction_tuned(base_model, dataset))
    checkup = CheckUp(
        answer,
        reasons,
        advice=[],
        questions=len(queries),
        generated=sum(dataset.queries[query].source not in ("", HUMAN) for query in queries),
        passages=len(texts),
        pairs=pairs,
        figures=figures,
        hybrid_gain=paired_bootstrap(gains, groups),
        smallest_effect=smallest_effect(gains, groups),
        minutes=seconds_per_passage * PASSAGES_PER_PAIR * pairs * EPOCHS / 60 if pairs else None,
    )
    return replace(checkup, advice=_advise(checkup, model, list(texts.values())))


def _generate(nodes: Sequence[BaseNode], seed: int) -> QADataset:
    from rag_ft.generation.generate import generate_qa_dataset

    if not nodes:
        raise InputError("there are no passages to ask about: choose a folder with documents")
    return generate_qa_dataset(nodes, use_llm=False, seed=seed).dataset


def _sample_passages(dataset: QADataset, split: str, seed: int) -> dict[str, str]:
    """Return the passages that answer the questions, and a random sample of the others."""
    texts = dataset.passage_texts
    relevant = dict.fromkeys(passage for grades in dataset.qrels[split].values() for passage in grades)
    others = [passage for passage in texts if passage not in relevant]
    sample = random.Random(seed).sample(others, max(0, min(len(others), MAX_PASSAGES - len(relevant))))
    if len(sample) < len(others):
        searched = len(relevant) + len(sample)
        logger.info("searching %d of %d passages: scores on all passages would be lower", searched, len(texts))
    return {passage: texts[passage] for passage in [*relevant, *sample]}


def _measure(
    search: ExactSearch, dataset: QADataset, split: str, texts: Mapping[str, str]
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Return retriever -> metric -> value of each question."""
    qrels = dataset.qrels[split]
    queries = [dataset.queries[query].text for query in qrels]
    dense = search.rank(queries, MAX_RANK)
    sparse = BM25(texts).rank(queries, MAX_RANK)
    hybrid = [_fuse_ranks(*rankings) for rankings in zip(dense, sparse, strict=True)]
    return {
        name: metrics_per_query(dict(zip(qrels, rankings, strict=True)), qrels, [HEADLINE, RECALL, HIT_RATE])
        for name, rankings in (("base", dense), ("bm25", sparse), ("hybrid", hybrid))
    }


def _fuse_ranks(*rankings: Sequence[str]) -> list[str]:
    """Fuse rankings by reciprocal ranks."""
    scores: dict[str, float] = defaultdict(float)
    for ranking in rankings:
        for rank, passage in enumerate(ranking, 1):
            scores[passage] += 1 / (RRF_K + rank)
    return sorted(scores, key=lambda passage: -scores[passage])


def _fraction_tuned(base_model: str, dataset: QADataset) -> float:
    """Return the fraction of the corpus that a model was already tuned on."""
    folder = model_folder(base_model)
    training = (read_model_record(Path(folder)) if folder is not None else {}).get("training", {})
    if not training.get("corpus") or not training.get("share"):
        return 0.0
    return jaccard(training["corpus"], sketch_of(dataset.passage_texts.values()))


def _decide(
    figures: Mapping[str, Mapping[str, float]], questions: int, pairs: int, fraction_tuned: float
) -> tuple[Answer, list[str]]:
    """Decide whether tuning is worth it, with reasons."""
    base_ndcg, recall = figures["base"][HEADLINE], figures["base"][RECALL]
    measured = f"nDCG@10 {base_ndcg:.3f}, recall@10 {recall:.3f}"
    if questions < MIN_QUESTIONS:
        return "cannot tell", [
            f"{questions} questions are too few: at least {MIN_QUESTIONS} are needed, and 200 for a gain of .05"
        ]
    if fraction_tuned >= SAME_CORPUS:
        return "not worth it", [
            f"the model was already tuned on this corpus ({fraction_tuned:.0%} of the passages are the same): continue "
            "training on new questions (--continue-from), or choose the base model that it was tuned from"
        ]
    if base_ndcg >= HIGH_BASE_NDCG:
        return "not worth it", [
            f"the base model already does well here: nDCG@10 {base_ndcg:.3f} is not below {HIGH_BASE_NDCG}"
        ]
    if pairs and pairs < MIN_PAIRS:
        too_few = f"{pairs} training pairs are few: tuning seldom helps with fewer than {MIN_PAIRS}"
        return "perhaps", [too_few, f"the base model has {measured}"]
    if base_ndcg < LOW_BASE_NDCG or recall < LOW_BASE_NDCG:
        return "worth it", [f"the base model does badly here: {measured} (at least one is below {LOW_BASE_NDCG})"]
    return "perhaps", [
        f"the base model does neither badly nor well here: {measured}. If tuning gains less than {SMALL_GAIN}, improve "
        "the questions before you try another recipe"
    ]


def _advise(checkup: CheckUp, model: FineTunedEmbedding, texts: Sequence[str]) -> list[str]:
    """Return what else to try, or what to do first."""
    advice = []
    base, bm25, hybrid = (checkup.figures[name][HEADLINE] for name in ("base", "bm25", "hybrid"))
    if bm25 > base:
        advice.append(f"BM25 alone beats the base model (nDCG@10 {bm25:.3f} against {base:.3f})")
    if checkup.hybrid_gain is not None and checkup.hybrid_gain.ci95[0] > 0:
        advice.append(f"a hybrid of both gains {checkup.hybrid_gain} without any training (nDCG@10 {hybrid:.3f})")
    if checkup.generated:
        advice.append(
            f"{checkup.generated} of {checkup.questions} questions were generated from the passages and share their "
            "words, which favours BM25: add about fifty real questions (--questions)"
        )
    lengths = [
        len(ids) for ids in model.sentence_transformer.tokenizer([text[:20_000] for text in texts[:200]])["input_ids"]
    ]
    truncated = np.mean([length > (model.max_length or length) for length in lengths])
    if truncated > MAX_TRUNCATED:
        advice.append(
            f"{truncated:.0%} of the passages are longer than the model reads ({model.max_length} tokens): use smaller "
            "chunks"
        )
    if checkup.pairs == 0:
        advice.append("there are no training pairs yet: create some with rag-ft generate, with or without an LLM")
    if checkup.figures["base"][HIT_RATE] < 0.5:
        advice.append("questions and passages may use different words: try query expansion (HyDE), without training")
    return advice
