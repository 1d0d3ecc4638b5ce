"""The conclusion of a comparison: what was decided, why, what to use, what it costs, and what to do next.

The verdict on test decides which model is used, and the choice on dev decides which retriever is built around it
(BM25, the embedding, or both). They cannot contradict each other: a candidate without the verdict `ship` is not
chosen, and if one ships, the baseline is not. Test questions can reject a choice, but not make one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from rag_ft.evaluation.retriever_choice import MIN_CHOICE_QUESTIONS, Choice
from rag_ft.evaluation.roles import BASELINE, BM25_ROLE, CANDIDATE, HYBRID_PREFIX
from rag_ft.evaluation.verdict import MIN_QUESTIONS, too_few

if TYPE_CHECKING:
    from rag_ft.evaluation.significance import Difference
    from rag_ft.evaluation.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """What a comparison concludes.

    Attributes:
        role: the retriever to use, by its role in the comparison.
        kind: the kind of this retriever: `bm25`, `embedding`, `hybrid`, or `retriever`.
        decision: what was decided, in a few words.
        reason: why, in a sentence.
        best: the allowed role with the highest nDCG@10 on the questions that chose the retriever; empty if there were
            too few to choose.
        costs: role -> what it costs to run, for each step from the simplest retriever to the one to use.
        next_steps: what to do now.
        scores: role -> nDCG@10 on the questions that chose the retriever; empty if there were too few.
        questions: the number of these questions.
        questions_from: where they come from.

    Example:
        >>> from llama_index.core import MockEmbedding
        >>> from rag_ft import Passage, QADataset, Query, compare
        >>> passages = {"a": Passage("a", "Leave is booked in HELM."), "b": Passage("b", "Badges open doors.")}
        >>> dataset = QADataset(passages, {"q": Query("q", "Where is leave booked?")}, {"test": {"q": {"a": 1}}})
        >>> print(compare(dataset, MockEmbedding(embed_dim=8), "bm25").conclusion)
        Keep the baseline for now: 1 question is too few for a verdict: at least 50 are needed.
    """

    role: str
    kind: str
    decision: str
    reason: str
    best: str = ""
    costs: dict[str, str] = field(default_factory=dict)
    next_steps: tuple[str, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)
    questions: int = 0
    questions_from: str = ""

    def __str__(self) -> str:
        return f"{self.decision}: {self.reason}."

    @property
    def is_decided(self) -> bool:
        """Whether there were enough questions to choose a retriever."""
        return bool(self.best)

    def to_dict(self) -> dict[str, Any]:
        """Return the conclusion as JSON values."""
        return asdict(self) | {"next_steps": list(self.next_steps)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], verdicts: Mapping[str, Verdict]) -> Conclusion | None:
        """Read what `to_dict` returned.

        Version 0.1.0 stored a recommendation that was chosen on test: the role, the best role and the reason. It is
        ignored if it contradicts the verdicts.
        """
        role = str(values["role"])
        model = role.removeprefix(HYBRID_PREFIX)
        if "decision" not in values and verdicts.get(model, "ship") != "ship":
            return None
        added = {"kind": Choice().kind(role), "decision": f"Use {role}"}
        known = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        return cls(**{**added, **known, "next_steps": tuple(values.get("next_steps", ()))})


@dataclass(frozen=True, kw_only=True)
class ComparedResults:
    """What the compared questions say, to reject a choice and to report it.

    Attributes:
        ndcg: role -> mean nDCG@10.
        difference: returns the difference of two roles in nDCG@10, the first minus the second.
        verdicts: candidate -> verdict.
        reasons: candidate -> reason of the verdict.
        names: role -> name of its model.
        details: role -> times and sizes.
        questions: number of questions.
        questions_name: how a sentence names the questions that `ndcg` and `difference` come from.
        min_questions: minimum number of questions for a verdict.
        few_documents: whether they are about too few documents to tell about others.
        are_key_phrases: whether most questions are key phrases of their passages.
    """

    ndcg: Mapping[str, float]
    difference: Callable[[str, str], Difference]
    verdicts: Mapping[str, Verdict]
    reasons: Mapping[str, str]
    names: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    questions: int
    questions_name: str = "the test questions"
    min_questions: int = MIN_QUESTIONS
    few_documents: bool = False
    are_key_phrases: bool = False

    @property
    def shipped(self) -> list[str]:
        """The candidates with the verdict `ship`, the best first."""
        shipped = [role for role, verdict in self.verdicts.items() if verdict == "ship"]
        return sorted(shipped, key=lambda role: -self.ndcg[role])

    @property
    def reference(self) -> str:
        """The role that others must not be worse than: the best shipped candidate, or else the baseline."""
        return next(iter(self.shipped), BASELINE)

    def allowed(self, choice: Choice) -> set[str]:
        """Return the roles that the verdicts and the compared questions do not reject."""
        models = {BASELINE, *self.verdicts}
        rejected = {role for role, verdict in self.verdicts.items() if verdict != "ship"}
        # BM25 needs no proof to be chosen, because it is simpler than any embedding.
        rejected -= {role for role in rejected if choice.kind(role) == "bm25" and self.verdicts[role] == "inconclusive"}
        hybrids_of_rejected = {HYBRID_PREFIX + role for role in rejected}
        if self.shipped:
            rejected.add(BASELINE)
        if any(HYBRID_PREFIX + role in self.ndcg for role in self.shipped):
            hybrids_of_rejected.add(HYBRID_PREFIX + BASELINE)
        known = {BM25_ROLE, *models, *(HYBRID_PREFIX + role for role in models)} & self.ndcg.keys()
        left = known - rejected - hybrids_of_rejected
        return {role for role in left if not self._is_worse(role)}

    def _is_worse(self, role: str) -> bool:
        """Tell whether a role is significantly worse than the reference, or a hybrid than the baseline's hybrid."""
        others = [self.reference]
        if role.startswith(HYBRID_PREFIX) and HYBRID_PREFIX + BASELINE in self.ndcg:
            others.append(HYBRID_PREFIX + BASELINE)
        return any(self.difference(role, other).ci95[1] < 0 for other in others if other != role)


def conclude(choice: Choice, test: ComparedResults) -> Conclusion:
    """Return the conclusion from a choice on dev questions and the verdicts on test questions.

    Args:
        choice: the scores on questions that are not test questions.
        test: the results on test questions.
    """
    allowed = test.allowed(choice) & choice.scores.keys()
    if (undecided := _undecided(choice, test)) or not allowed:
        role, best = test.reference, ""
        reason = test.reasons.get(role) or undecided or "no other retriever is proven better"
    else:
        role, best = choice.pick(allowed)
        reason = _reason(role, best, choice, test)
    return Conclusion(
        role=role,
        kind=choice.kind(role),
        decision=_decision(role, choice.kind(role), test)
        + (" (on these documents)" if best and test.few_documents else ""),
        reason=reason,
        best=best,
        costs=_costs(role, choice, test),
        next_steps=_next_steps(role, choice.kind(role), test.are_key_phrases),
        scores={name: round(score, 4) for name, score in choice.scores.items()} if best else {},
        questions=choice.questions if best else 0,
        questions_from=choice.questions_from if best else "",
    )


def _undecided(choice: Choice, test: ComparedResults) -> str:
    """Return why no retriever can be chosen, or ""."""
    if test.questions < test.min_questions:
        return too_few(test.questions, test.min_questions)
    if any(test.difference(role, BASELINE).is_unknown for role in test.ndcg if role != BASELINE):
        return "the questions are about too few documents for a conclusion"
    if choice.questions < MIN_CHOICE_QUESTIONS:
        few = f"there are too few questions to choose a retriever ({choice.questions} {choice.questions_from})"
        verdict = next((role for role in test.reasons if choice.kind(role) != "bm25"), None)
        return few if verdict is None else test.reasons[verdict]
    return ""


def _decision(role: str, kind: str, test: ComparedResults) -> str:
    """Return in a few words what to do."""
    model = role.removeprefix(HYBRID_PREFIX)
    if kind == "bm25":
        return "Use BM25"
    if model.startswith(CANDIDATE):
        name = "the candidate" if len(test.verdicts) == 1 else f"{model} ({test.names.get(model, model)})"
        return f"Ship {name}" + (", served behind the hybrid with BM25" if role != model else "")
    if role != model:
        return "Keep the baseline model and add BM25 (hybrid search)"
    return "Keep the baseline for now" if "inconclusive" in test.verdicts.values() else "Keep the baseline"


def _reason(role: str, best: str, choice: Choice, test: ComparedResults) -> str:
    """Return why a role was chosen, and what the test questions say about it."""
    why = _why_chosen(role, best, choice, test)
    measured = f"it has {test.ndcg[role]:.3f} on {test.questions_name}"
    if role != BASELINE:
        measured += f", {test.difference(role, BASELINE)} against the baseline"
    model = role.removeprefix(HYBRID_PREFIX)
    embedding = next((name for name in test.shipped if name != model and choice.kind(name) == "embedding"), None)
    if embedding is not None and choice.kind(role) != "embedding":
        return (
            f"{why}; {measured}. If you need an embedding alone, take {_name(embedding, choice)}: "
            + (test.reasons[embedding])
        )
    if model == BASELINE and test.reasons and choice.kind(next(iter(test.reasons))) != "bm25":
        return f"{next(iter(test.reasons.values()))}; {why}; {measured}"
    return f"{why}; {measured}"


def _why_chosen(role: str, best: str, choice: Choice, test: ComparedResults) -> str:
    """Return what the questions that chose a role say."""
    asked = f"on {choice.questions:,} {choice.questions_from}"
    score = f"{choice.scores[role]:.3f}"
    if role != best:
        return (
            f"{_name(role, choice)} is the simplest retriever within {choice.margin:g} nDCG@10 of the best {asked} "
            f"({score}; {_name(best, choice)} has {choice.scores[best]:.3f})"
        )
    allowed = test.allowed(choice) & choice.scores.keys()
    limited = "of the retrievers that were not rejected, " if allowed != choice.scores.keys() else ""
    second = max(allowed - {role}, key=choice.scores.__getitem__, default="")
    if second and f"{choice.scores[second]:.3f}" == score:
        return f"{limited}{_name(role, choice)} and {_name(second, choice)} have the highest nDCG@10 {asked} ({score})"
    following = f"; {_name(second, choice)} is next with {choice.scores[second]:.3f}" if second else ""
    return f"{limited}{_name(role, choice)} has the highest nDCG@10 {asked} ({score}{following})"


def _name(role: str, choice: Choice) -> str:
    """Return how a sentence names a role."""
    if choice.kind(role) == "bm25":
        return "BM25"
    model = role.removeprefix(HYBRID_PREFIX)
    name = model if "-" in model else f"the {model}"
    return f"the hybrid of {name} and BM25" if role != model else name


def _costs(role: str, choice: Choice, test: ComparedResults) -> dict[str, str]:
    """Return what each step from the simplest retriever up to a role costs."""
    model = role.removeprefix(HYBRID_PREFIX)
    bm25 = next((each for each in test.ndcg if choice.kind(each) == "bm25"), "")
    steps = [bm25] if choice.kind(role) == "bm25" else [bm25, model, role]
    costs = {step: cost_of(choice.kind(step), test.details.get(step, {})) for step in steps if step in test.ndcg}
    return {step: cost for step, cost in costs.items() if cost}


def cost_of(kind: str, details: Mapping[str, Any]) -> str:
    """Return what a retriever costs to run: time of a question, memory, and what has to run for it.

    Example:
        >>> from rag_ft.evaluation.conclusion import cost_of
        >>> cost_of("hybrid", {"query_milliseconds": 12.3, "index_megabytes": 4.0, "model_megabytes": 90.9})
        '12 ms per question, 4 MB of indexes, 91 MB of weights in the app or a server, BM25 in each process of the app'
    """
    parts = []
    if milliseconds := details.get("query_milliseconds"):
        parts.append(f"{max(1, round(milliseconds))} ms per question")
    if megabytes := details.get("index_megabytes"):
        parts.append(f"{math.ceil(megabytes)} MB of {'indexes' if kind == 'hybrid' else 'index'}")
    if weights := details.get("model_megabytes"):
        parts.append(f"{round(weights)} MB of weights in the app or a server")
    if parts and kind in ("bm25", "hybrid"):
        parts.append("BM25 in each process of the app" if kind == "hybrid" else "no model")
    return ", ".join(parts)


def _next_steps(role: str, kind: str, are_key_phrases: bool) -> tuple[str, ...]:
    """Return what to do now."""
    steps = []
    if are_key_phrases and kind in ("bm25", "hybrid"):
        steps.append("compare on real questions first: key phrases are words of their passages, which favours BM25")
    if role.removeprefix(HYBRID_PREFIX).startswith(CANDIDATE) and kind in ("embedding", "hybrid"):
        steps.append(
            "use an index of its vectors (rag-ft index; a run has built it): vectors of two models cannot be mixed"
        )
    if kind == "hybrid":
        steps.append("search with HybridRetriever(index)")
    elif kind == "bm25":
        steps.append("search with HybridRetriever(index, Fusion(weight=0)), which asks BM25 alone")
    return tuple(steps)
