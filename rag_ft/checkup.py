"""Is it worth it: what a base model, BM25 and both together find on a corpus, before anything is trained."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.dataset.sources import HUMAN
from rag_ft.dataset.splitting import hold_out_dev
from rag_ft.dataset.text.sketch import shared, sketch_of
from rag_ft.embedding.contract import read_model_record
from rag_ft.embedding.loading import DEFAULT_BASE_MODEL, model_folder
from rag_ft.errors import InputError
from rag_ft.evaluation.comparison import resampling_groups
from rag_ft.evaluation.metrics import HEADLINE, metrics_per_query
from rag_ft.evaluation.significance import Difference, paired_bootstrap, smallest_effect
from rag_ft.evaluation.verdict import ENOUGH_QUESTIONS
from rag_ft.retrieval.bm25 import BM25
from rag_ft.retrieval.exact import ExactSearch
from rag_ft.retrieval.normalisation import RRF_K
from rag_ft.training.selection.headroom import HIGH_BASE_NDCG, LOW_BASE_NDCG

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode
    from numpy.typing import NDArray

    from rag_ft.embedding.fine_tuned import FineTunedEmbedding

logger = logging.getLogger(__name__)

Answer = Literal["worth it", "not worth it", "perhaps", "cannot tell"]

"""nDCG@10 (and, for the first, recall@10) of a base model under which tuning is said to pay, and over which it is not.
Rules of thumb that practitioners' guides repeat, not measurements: recall over .85 is left alone
(skillopedia.ai, "Embedding Fine-Tuning"), nDCG@10 over .80 too (nextgenailearn.com, lesson emb-03). Measured here: the
collections that gained had .58 to .70 on questions made of their passages, the one that lost .85 (`headroom`)."""

FEW_PAIRS = 500
"""Training pairs under which a tuning seldom holds: the same guides see overfitting below."""

SMALL_GAIN = 0.02
"""A gain under which the questions are the problem, and not the model."""

MOST_PASSAGES, MOST_QUESTIONS = 5_000, 500
FORWARD_AND_BACKWARD = 3.5
"""What a training pair costs, in encoded passages: forward, backward, and its question."""

SAME_CORPUS = 0.5
DEPTH = 100


@dataclass(frozen=True)
class CheckUp:
    """What was found before any training.

    Attributes:
        answer: `worth it`, `not worth it`, `perhaps`, or `cannot tell`.
        reasons: why, most important first.
        advice: what else to try, or to do first.
        questions: that were asked; `generated` of them were made from the passages.
        generated: how many.
        passages: that were searched.
        pairs: training pairs that there are.
        figures: `base`, `bm25` and `hybrid` (reciprocal rank fusion) -> metric -> mean.
        hybrid_gain: of the hybrid over the base, in nDCG@10.
        smallest_effect: gain in nDCG@10 that this many questions would show in 4 of 5 comparisons.
        minutes: that a training takes on this machine, about.

    Example:
        >>> from rag_ft import Passage, QADataset, Query, check
        >>> dataset = QADataset({"p": Passage("p", "A claim is a form.")}, {"q": Query("q", "What is a claim?")},
        ...                     {"test": {"q": {"p": 1}}})
        >>> found = check(dataset, "local")
        >>> found.answer, found.figures["bm25"]["hit_rate@5"]
        ('cannot tell', 1.0)
        >>> print(found.reasons[0])
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
        """The check-up as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.answer}: {self.reasons[0]}", *(f"  - {reason}" for reason in self.reasons[1:])]
        if self.figures:
            lines += ["", f"{'':8s} nDCG@10  recall@10  hit@5"]
            for name, figures in self.figures.items():
                values = (figures[HEADLINE], figures["recall@10"], figures["hit_rate@5"])
                lines.append(f"{name:8s} {values[0]:7.3f}  {values[1]:9.3f}  {values[2]:5.3f}")
        made = f", {self.generated} of them generated" if self.generated else ""
        lines += ["", f"{self.questions} questions{made}; {self.passages:,} passages; {self.pairs:,} training pairs"]
        if self.smallest_effect is not None:
            lines.append(f"a gain under {self.smallest_effect:.3f} would go unseen with so many questions")
        if self.minutes is not None:
            lines.append(f"training takes about {max(1, round(self.minutes))} min on this machine")
        return "\n".join(
            [*lines, *(["", "what else:"] if self.advice else []), *(f"  - {each}" for each in self.advice)]
        )


def check(
    source: QADataset | Sequence[BaseNode],
    base_model: str = DEFAULT_BASE_MODEL,
    *,
    split: str | None = None,
    device: str | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> CheckUp:
    """Tell whether tuning a model for a corpus is worth it, before any training.

    Args:
        source: a dataset, or LlamaIndex nodes: then questions are made of their passages, without an LLM.
        base_model: a hub name, a folder, or `local`.
        split: whose questions are asked; `test` where there is one, else dev or train.
        device: a torch device; the best there is where None.
        seed: of every draw.
        show_progress: a progress bar.

    Raises:
        InputError: where there is no text, or no question.
        OutsideError: where the hub cannot be reached.

    Example:
        >>> from rag_ft import Passage, QADataset, Query, check
        >>> dataset = QADataset({"p": Passage("p", "A claim is a form.")}, {"q": Query("q", "What is a claim?")},
        ...                     {"test": {"q": {"p": 1}}})
        >>> check(dataset, "local").answer
        'cannot tell'
    """
    from rag_ft.embedding.fine_tuned import FineTunedEmbedding

    dataset = source if isinstance(source, QADataset) else _asked_about(source, seed)
    chosen = split or next((name for name in ("test", "dev", "train") if dataset.qrels.get(name)), "test")
    qrels = dataset.require(chosen)
    asked = sorted(random.Random(seed).sample(sorted(qrels), min(len(qrels), MOST_QUESTIONS)))
    dataset = dataset.with_qrels(dataset.qrels | {chosen: {query: qrels[query] for query in asked}})
    pairs = len(hold_out_dev(dataset, seed=seed).pairs("train")) if dataset.qrels.get("train") else 0
    generated = sum(dataset.queries[query].source not in ("", HUMAN) for query in asked)
    texts = _searched(dataset, chosen, seed)
    model = FineTunedEmbedding.load(base_model, device=device)
    model.get_text_embedding("what is loaded at first use is not counted")
    began = time.monotonic()
    search = ExactSearch(model, texts, show_progress)
    minutes = (time.monotonic() - began) / len(texts) * FORWARD_AND_BACKWARD * pairs * 3 / 60
    values = _values(search, dataset, chosen, texts)
    groups, _ = resampling_groups(dataset, chosen)
    gain = paired_bootstrap(values["hybrid"][HEADLINE] - values["base"][HEADLINE], groups)
    figures = {name: {metric: float(found.mean()) for metric, found in each.items()} for name, each in values.items()}
    answer, reasons = _decide(figures, len(asked), pairs, _tuned_for(base_model, dataset))
    return CheckUp(
        answer,
        reasons,
        _advice(figures, gain, len(asked), generated, pairs, model, texts),
        len(asked),
        generated,
        len(texts),
        pairs,
        figures,
        gain,
        smallest_effect(values["hybrid"][HEADLINE] - values["base"][HEADLINE], groups),
        minutes if pairs else None,
    )


def _asked_about(nodes: Sequence[BaseNode], seed: int) -> QADataset:
    from rag_ft.generation.generate import generate_qa_dataset

    if not nodes:
        raise InputError("there is no passage to ask about: give a folder with documents")
    return generate_qa_dataset(nodes, use_llm=False, seed=seed).dataset


def _searched(dataset: QADataset, split: str, seed: int) -> dict[str, str]:
    """The passages that answer, and others at random: enough to tell, and no more."""
    texts = dataset.passage_texts
    wanted = dict.fromkeys(passage for grades in dataset.qrels[split].values() for passage in grades)
    others = [passage for passage in texts if passage not in wanted]
    drawn = random.Random(seed).sample(others, max(0, min(len(others), MOST_PASSAGES - len(wanted))))
    if len(drawn) < len(others):
        searched = len(wanted) + len(drawn)
        logger.info("%d of %d passages are searched: figures on all of them are lower", searched, len(texts))
    return {passage: texts[passage] for passage in [*wanted, *drawn]}


def _values(
    search: ExactSearch, dataset: QADataset, split: str, texts: dict[str, str]
) -> dict[str, dict[str, NDArray[np.float64]]]:
    qrels = dataset.qrels[split]
    queries = [dataset.queries[query].text for query in qrels]
    dense = search.rank(queries, DEPTH)
    words = BM25(texts).rank(queries, DEPTH)
    hybrid = [_fused(one, other) for one, other in zip(dense, words, strict=True)]
    metrics = [HEADLINE, "recall@10", "hit_rate@5"]
    return {
        name: metrics_per_query(dict(zip(qrels, lists, strict=True)), qrels, metrics)
        for name, lists in (("base", dense), ("bm25", words), ("hybrid", hybrid))
    }


def _fused(*rankings: Sequence[str]) -> list[str]:
    """Reciprocal rank fusion."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        for place, passage in enumerate(ranking):
            scores[passage] = scores.get(passage, 0.0) + 1 / (RRF_K + place + 1)
    return sorted(scores, key=lambda passage: -scores[passage])


def _tuned_for(base_model: str, dataset: QADataset) -> float:
    """How much of the corpus a model was tuned on already, from 0 to 1."""
    folder = model_folder(base_model)
    record = read_model_record(Path(folder)) if folder is not None else {}
    known = record.get("training", {}).get("corpus", [])
    if not known or not record["training"].get("share"):
        return 0.0
    return shared(known, sketch_of(dataset.passage_texts.values()))


def _decide(
    figures: dict[str, dict[str, float]], questions: int, pairs: int, tuned_for: float
) -> tuple[Answer, list[str]]:
    level, recall = figures["base"][HEADLINE], figures["base"]["recall@10"]
    if questions < ENOUGH_QUESTIONS:
        return "cannot tell", [
            f"{questions} questions are too few: at least {ENOUGH_QUESTIONS} are needed, and 200 for a gain of .05"
        ]
    if tuned_for >= SAME_CORPUS:
        return "not worth it", [
            f"the model was tuned on this corpus already ({tuned_for:.0%} of the passages are the same): give it new "
            "questions with --continue-from, or the base model that it was tuned from"
        ]
    if level >= HIGH_BASE_NDCG:
        return "not worth it", [f"the base model is at home here: nDCG@10 {level:.3f} is over {HIGH_BASE_NDCG}"]
    few = f"{pairs} training pairs are few: under {FEW_PAIRS} a tuning seldom holds"
    if pairs and pairs < FEW_PAIRS:
        return "perhaps", [few, f"the base model's nDCG@10 is {level:.3f}, its recall@10 {recall:.3f}"]
    if level < LOW_BASE_NDCG or recall < LOW_BASE_NDCG:
        lost = f"the base model is lost here: nDCG@10 {level:.3f}, recall@10 {recall:.3f} (under {LOW_BASE_NDCG})"
        return "worth it", [lost]
    return "perhaps", [
        f"the base model is neither lost nor at home here: nDCG@10 {level:.3f}, recall@10 {recall:.3f}. If a tuning "
        f"gains less than {SMALL_GAIN}, better questions would do more than another recipe"
    ]


def _advice(
    figures: dict[str, dict[str, float]],
    gain: Difference,
    questions: int,
    generated: int,
    pairs: int,
    model: FineTunedEmbedding,
    texts: dict[str, str],
) -> list[str]:
    advice = []
    base, bm25, hybrid = (figures[name][HEADLINE] for name in ("base", "bm25", "hybrid"))
    if bm25 > base:
        advice.append(f"BM25 alone finds more than the base model (nDCG@10 {bm25:.3f} against {base:.3f})")
    if gain.ci95[0] > 0:
        advice.append(f"a hybrid of both, without any training, gains {gain} (nDCG@10 {hybrid:.3f})")
    if generated:
        advice.append(
            f"{generated} of {questions} questions were made from the passages and share their words, which flatters "
            "BM25: fifty real questions tell more (--questions)"
        )
    tokenizer = model.sentence_transformer.tokenizer
    sample = list(texts.values())[:200]
    lengths = [len(ids) for ids in tokenizer([text[:20_000] for text in sample])["input_ids"]]
    cut = np.mean([length > (model.max_length or length) for length in lengths])
    if cut > 0.25:
        advice.append(
            f"{cut:.0%} of the passages are longer than the model reads ({model.max_length} tokens): cut them smaller"
        )
    if pairs == 0:
        advice.append("there are no training pairs yet: rag-ft generate makes some, with an LLM or without")
    if figures["base"]["hit_rate@5"] < 0.5:
        advice.append("questions and passages may speak differently: query expansion (HyDE) is a try without training")
    return advice
