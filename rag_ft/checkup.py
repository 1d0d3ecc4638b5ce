"""Check whether fine-tuning is worth it, without training: the comparison of a base model, BM25 and both together."""

from __future__ import annotations

import logging
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from html import escape
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
from rag_ft.evaluation.compare import compare
from rag_ft.evaluation.metrics import HEADLINE
from rag_ft.evaluation.resampling import resampling_groups
from rag_ft.evaluation.roles import BASELINE, CANDIDATE, HYBRID_PREFIX
from rag_ft.evaluation.significance import Difference, paired_bootstrap, smallest_effect
from rag_ft.evaluation.verdict import MIN_QUESTIONS
from rag_ft.training.loop.time_budget import in_words
from rag_ft.training.max_length import MAX_CHARACTERS, MAX_TRUNCATION, fitting_max_length
from rag_ft.training.selection.headroom import HIGH_BASE_NDCG, LOW_BASE_NDCG
from rag_ft.training.selection.select import why_base

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode
    from sentence_transformers import SentenceTransformer

    from rag_ft.dataset.formats.real_questions import RealQuestion
    from rag_ft.embedding.fine_tuned import FineTunedEmbedding
    from rag_ft.embedding.model_spec import ModelSpec
    from rag_ft.evaluation.comparison import Comparison
    from rag_ft.training.plan import Plan

logger = logging.getLogger(__name__)

Answer = Literal["worth it", "not worth it", "perhaps", "cannot tell"]

RECALL, HIT_RATE = "recall@10", "hit_rate@5"

NAMES = {BASELINE: "base", CANDIDATE: "bm25", HYBRID_PREFIX + BASELINE: "hybrid"}
"""Role in the comparison -> name in a check-up."""

DECISIONS = {
    "": "Not decided",
    "base": "Use the base model",
    "bm25": "Use BM25",
    "hybrid": "Use the base model, served behind the hybrid with BM25",
}

MIN_PAIRS = 500
"""Number of training pairs below which tuning seldom helps. The guides that `headroom` cites report overfitting below
it."""

SMALL_GAIN = 0.02
"""Gain in nDCG@10 below which better questions help more than another recipe."""

MAX_PASSAGES, MAX_QUESTIONS = 20_000, 2_000
"""Maximum numbers of passages and questions of a check-up."""

SAME_CORPUS = 0.5
"""Minimum fraction of common passages for two corpora to count as the same."""


@dataclass(frozen=True)
class CheckUp:
    """The result of a check-up: what to use without training, and whether tuning is worth it.

    Attributes:
        answer: `worth it`, `not worth it`, `perhaps`, or `cannot tell`.
        reasons: the reasons, the most important first.
        advice: what else to try, or what to do first.
        questions: number of questions.
        generated: number of questions that were generated from the passages.
        passages: number of passages that were searched.
        pairs: number of training pairs.
        use: the retriever to use without training: `base`, `bm25` or `hybrid`, as `compare` concludes; empty if there
            are too few questions to decide.
        why: the reason for it.
        figures: `base`, `bm25` and `hybrid` -> metric -> mean, as `compare` measures them.
        hybrid_gain: gain of the hybrid over the base model in nDCG@10.
        smallest_effect: gain in nDCG@10 that 4 of 5 comparisons with this many questions would detect.
        minutes: estimated training time on this machine; None if nothing would be trained.

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
    use: str = ""
    why: str = ""
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    hybrid_gain: Difference | None = None
    smallest_effect: float | None = None
    minutes: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the check-up as JSON values."""
        return asdict(self)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    def __str__(self) -> str:
        lines = [f"{DECISIONS[self.use]}: {self.why}."]
        lines += [f"Fine-tuning: {self.answer}: {self.reasons[0]}", *(f"  - {reason}" for reason in self.reasons[1:])]
        if self.figures:
            lines += ["", f"{'':8s} nDCG@10  recall@10  hit@5"]
            for name, figures in self.figures.items():
                lines.append(f"{name:8s} {figures[HEADLINE]:7.3f}  {figures[RECALL]:9.3f}  {figures[HIT_RATE]:5.3f}")
        generated = f", {self.generated} of them generated" if self.generated else ""
        counts = f"{self.questions} questions{generated}; {self.passages:,} passages; {self.pairs:,} training pairs"
        lines += ["", counts]
        if self.smallest_effect:
            lines.append(f"gains under {self.smallest_effect:.3f} are too small to detect with this many questions")
        if self.minutes is not None:
            lines.append(f"training takes {in_words(60 * self.minutes)} on this machine")
        if self.advice:
            lines += ["", "advice:", *(f"  - {advice}" for advice in self.advice)]
        return "\n".join(lines)


def check(
    source: QADataset | Sequence[BaseNode],
    base_model: str = DEFAULT_BASE_MODEL,
    *,
    questions: Sequence[RealQuestion] = (),
    split: str | None = None,
    device: str | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> CheckUp:
    """Check whether tuning a model for a corpus is worth it, without any training.

    The figures are those of `compare`. At most 20,000 passages and 2,000 questions are used.

    Args:
        source: a dataset, or LlamaIndex nodes. For nodes, questions are generated without an LLM.
        base_model: a hub name, a folder, or `local`.
        questions: questions that people asked about the nodes. They are the test questions then.
        split: the split of the questions; `test` if it has any, else dev or train.
        device: a torch device; None picks the best one available.
        seed: seeds every random choice.
        show_progress: show a progress bar.

    Raises:
        InputError: if there are no passages or no questions, or `questions` are given together with a dataset.
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

    dataset = _dataset_of(source, questions, seed)
    split = split or next((name for name in ("test", "dev", "train") if dataset.qrels.get(name)), "test")
    dataset = _sample(dataset, split, seed)
    spec = ModelSpec(name=base_model, device=device)
    model = FineTunedEmbedding.load(spec)
    comparison = compare(dataset, model, "bm25", split=split, seed=seed, show_progress=show_progress)
    conclusion = comparison.conclusion
    assert conclusion is not None
    figures = {name: dict(comparison.models[role]) for role, name in NAMES.items()}
    values = {role: comparison.per_query[role][HEADLINE] for role in NAMES}
    gains, groups = values[HYBRID_PREFIX + BASELINE] - values[BASELINE], resampling_groups(dataset, split)[0]
    pairs = len(hold_out_dev(dataset, seed=seed).pairs("train")) if dataset.qrels.get("train") else 0
    use = NAMES[conclusion.role] if conclusion.is_decided else ""
    answer, reasons = _decide(figures, use, comparison.queries, pairs, _fraction_tuned(base_model, dataset))
    plan = _plan(dataset, spec, seed) if pairs else None
    checkup = CheckUp(
        answer,
        reasons,
        advice=[],
        questions=comparison.queries,
        generated=sum(query.source not in ("", HUMAN) for query in dataset.questions(split)),
        passages=comparison.passages,
        pairs=pairs,
        use=use,
        why=_why(comparison, use, figures),
        figures=figures,
        hybrid_gain=paired_bootstrap(gains, groups),
        smallest_effect=smallest_effect(gains, groups),
        minutes=plan.seconds / 60 if plan is not None and plan.seconds is not None else None,
    )
    return replace(checkup, advice=_advise(checkup, plan, model, list(dataset.passage_texts.values())))


def _dataset_of(source: QADataset | Sequence[BaseNode], questions: Sequence[RealQuestion], seed: int) -> QADataset:
    from rag_ft.generation.generate import generate_qa_dataset

    if isinstance(source, QADataset):
        if questions:
            raise InputError("questions are given together with a dataset, which has its own: give documents or nodes")
        return source
    if not source:
        raise InputError("there are no passages to ask about: choose a folder with documents")
    return generate_qa_dataset(source, use_llm=False, questions=questions, seed=seed).dataset


def _sample(dataset: QADataset, split: str, seed: int) -> QADataset:
    """Sample the questions of a split, and the passages, if there are more than a check-up needs."""
    qrels = dataset.require(split)
    rng = random.Random(seed)
    if len(qrels) > MAX_QUESTIONS:
        logger.info("asking %d of %d questions", MAX_QUESTIONS, len(qrels))
        chosen = set(rng.sample(sorted(qrels), MAX_QUESTIONS))
        dataset = dataset.with_qrels(dataset.qrels | {split: {q: qrels[q] for q in qrels if q in chosen}})
    if len(dataset.passages) <= MAX_PASSAGES:
        return dataset
    answers = {passage for part in dataset.qrels.values() for grades in part.values() for passage in grades}
    others = [passage for passage in dataset.passages if passage not in answers]
    kept = answers | set(rng.sample(others, max(0, min(len(others), MAX_PASSAGES - len(answers)))))
    logger.info("searching %d of %d passages: scores on all would be lower", len(kept), len(dataset.passages))
    passages = {key: passage for key, passage in dataset.passages.items() if key in kept}
    return replace(dataset, passages=passages, negatives={})


def _plan(dataset: QADataset, spec: ModelSpec, seed: int) -> Plan:
    """Plan the training that `train_model` would run, to know how long it takes."""
    from rag_ft.training.plan import plan_training
    from rag_ft.training.prepare import Choices, prepare

    with tempfile.TemporaryDirectory() as folder:
        return plan_training(prepare(dataset, spec.load(), Choices(seed=seed)), Path(folder) / "model")


def _why(comparison: Comparison, use: str, figures: Mapping[str, Mapping[str, float]]) -> str:
    """Return why a retriever is to be used: its figures beside those of the others."""
    assert comparison.conclusion is not None
    reason = comparison.conclusion.reason.replace("the baseline", "the base model")
    if not use:
        return f"{reason} (with at least 50 dev questions, or 100 test questions, a retriever can be chosen)"
    others = ", ".join(f"{name} {each[HEADLINE]:.3f}" for name, each in figures.items() if name != use)
    measured = f"nDCG@10 {figures[use][HEADLINE]:.3f} on {comparison.queries:,} questions ({others})"
    best = max(figures, key=lambda name: figures[name][HEADLINE])
    return measured if figures[best][HEADLINE] - figures[use][HEADLINE] < 0.0005 else f"{measured}; {reason}"


def _fraction_tuned(base_model: str, dataset: QADataset) -> float:
    """Return the fraction of the corpus that a model was already tuned on."""
    folder = model_folder(base_model)
    training = (read_model_record(Path(folder)) if folder is not None else {}).get("training", {})
    if not training.get("corpus") or not training.get("share"):
        return 0.0
    return jaccard(training["corpus"], sketch_of(dataset.passage_texts.values()))


def _decide(
    figures: Mapping[str, Mapping[str, float]], use: str, questions: int, pairs: int, fraction_tuned: float
) -> tuple[Answer, list[str]]:
    """Decide whether tuning is worth it, with reasons. What matters is the best that is there without training."""
    use = use or max(figures, key=lambda name: figures[name][HEADLINE])
    best = figures[use][HEADLINE]
    name = {"base": "the base model", "bm25": "BM25", "hybrid": "the hybrid with BM25"}[use]
    base = f"nDCG@10 {figures['base'][HEADLINE]:.3f}, recall@10 {figures['base'][RECALL]:.3f}"
    if questions < MIN_QUESTIONS:
        return "cannot tell", [
            f"{questions} questions are too few: at least {MIN_QUESTIONS} are needed, and 200 for a gain of .05"
        ]
    if fraction_tuned >= SAME_CORPUS:
        return "not worth it", [
            f"the model was already tuned on this corpus ({fraction_tuned:.0%} of the passages are the same): continue "
            "training on new questions (--continue-from), or choose the base model that it was tuned from"
        ]
    if best >= HIGH_BASE_NDCG:
        return "not worth it", [f"{name} already does well here: nDCG@10 {best:.3f} is not below {HIGH_BASE_NDCG}"]
    if pairs and pairs < MIN_PAIRS:
        too_few = f"{pairs} training pairs are few: tuning seldom helps with fewer than {MIN_PAIRS}"
        return "perhaps", [too_few, f"the base model has {base}"]
    if best < LOW_BASE_NDCG:
        others = "" if use == "base" else f", {name} {best:.3f}"
        return "worth it", [f"retrieval does badly here: the base model has {base}{others}"]
    return "perhaps", [
        f"{name} does neither badly nor well here: nDCG@10 {best:.3f}. If tuning gains less than {SMALL_GAIN}, improve "
        "the questions before you try another recipe"
    ]


def _advise(checkup: CheckUp, plan: Plan | None, model: FineTunedEmbedding, texts: Sequence[str]) -> list[str]:
    """Return what else to try, or what to do first."""
    advice = []
    if checkup.generated > checkup.questions / 2:
        advice.append(
            f"{checkup.generated} of {checkup.questions} questions were generated from the passages and share their "
            "words, which favours BM25: check again with a hundred real questions or more (--questions FILE)"
        )
    if (cut := _mean_truncation(model.sentence_transformer, texts)) > MAX_TRUNCATION:
        advice.append(f"{cut:.0%} of a passage is beyond what the model reads, on average: use smaller chunks")
    if checkup.pairs == 0:
        advice.append("there are no training pairs yet: create some with rag-ft generate, with or without an LLM")
    elif plan is not None and plan.seconds is None:
        advice.append(f"training would keep the base model: {why_base(plan.job.dev, plan.recipe.alphas, {})}")
    if max(figures[HIT_RATE] for figures in checkup.figures.values()) < 0.5:
        advice.append("questions and passages may use different words: try query expansion (HyDE), without training")
    return advice


def _mean_truncation(model: SentenceTransformer, texts: Sequence[str]) -> float:
    """Return the mean fraction of a passage that is cut off at the length that training would choose."""
    from rag_ft.quiet import quiet_libraries

    limit = fitting_max_length(model, texts)
    if not limit:
        return 0.0
    with quiet_libraries():
        tokens = model.tokenizer([text[:MAX_CHARACTERS] for text in texts[:: max(1, len(texts) // 200)]])["input_ids"]
    return float(np.mean([max(0, len(ids) - limit) / len(ids) for ids in tokens]))
