"""The conclusion of a comparison: what was decided, why, what to use, what it costs, and what to do next.

The verdict on test decides which model is used, and the choice on dev decides which retriever is built around it
(BM25, the embedding, or both). They cannot contradict each other: a candidate without the verdict `ship` is not
chosen, and if one ships, the baseline is not. Test questions can reject a choice, but not make one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
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
        best: the role with the highest nDCG@10 on the questions that chose the retriever.
        costs: role -> what it costs to run, for each step from the simplest retriever to the one to use.
        next_steps: what to do now.
        scores: role -> nDCG@10 on the questions that chose the retriever; empty if there are too few.
        questions: the number of these questions.
        questions_from: where they come from.

    Example:
        >>> import numpy as np
        >>> from rag_ft import Passage, QADataset, Query, compare
        >>> passages = {"a": Passage("a", "Leave is booked in HELM."), "b": Passage("b", "Badges open doors.")}
        >>> dataset = QADataset(passages, {"q": Query("q", "Where is leave booked?")}, {"test": {"q": {"a": 1}}})
        >>> from llama_index.core import MockEmbedding
        >>> print(compare(dataset, MockEmbedding(embed_dim=8), "bm25").conclusion)
        Keep the baseline for now: 1 questions are too few for a verdict: at least 50 are needed.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the conclusion as JSON values."""
        return asdict(self) | {"next_steps": list(self.next_steps)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Conclusion:
        """Read what `to_dict` returned. Version 0.1.0 stored the role, the best role and the reason alone."""
        role = values["role"]
        added = {"kind": Choice().kind(role), "decision": f"Use {role}"}
        return cls(**{**added, **values, "next_steps": tuple(values.get("next_steps", ()))})


@dataclass(frozen=True, kw_only=True)
class ComparedResults:
    """What the compared questions say, to reject a choice and to report it.

    Attributes:
        ndcg: role -> mean nDCG@10.
        gains: role -> difference to the baseline in nDCG@10.
        verdicts: candidate -> verdict.
        reasons: candidate -> reason of the verdict.
        details: role -> times and sizes.
        questions: number of questions.
        questions_name: how a sentence names the questions that `ndcg` and `gains` come from.
    """

    ndcg: Mapping[str, float]
    gains: Mapping[str, Difference]
    verdicts: Mapping[str, Verdict]
    reasons: Mapping[str, str]
    details: Mapping[str, Mapping[str, Any]]
    questions: int
    questions_name: str = "the test questions"

    def allowed(self, choice: Choice) -> set[str]:
        """Return the roles that the test questions do not reject.

        BM25 is allowed as a candidate too unless it is worse, because it is simpler than any embedding.
        """
        candidates = {role: verdict for role, verdict in self.verdicts.items() if choice.kind(role) != "bm25"}
        rejected = {role for role, verdict in candidates.items() if verdict != "ship"}
        if len(rejected) < len(candidates):
            rejected.add(BASELINE)
        rejected |= {HYBRID_PREFIX + role for role in rejected}
        worse = {role for role, gain in self.gains.items() if gain.ci95[1] < 0}
        return set(self.ndcg) - rejected - worse


def conclude(choice: Choice, test: ComparedResults) -> Conclusion:
    """Return the conclusion from a choice on dev questions and the verdicts on test questions.

    Args:
        choice: the scores on questions that are not test questions.
        test: the results on test questions.
    """
    allowed = test.allowed(choice)
    undecided = _undecided(choice, test)
    if undecided or not allowed & choice.scores.keys():
        shipped = [role for role, verdict in test.verdicts.items() if verdict == "ship"]
        role, best = (shipped[0] if shipped else BASELINE), ""
        reason = undecided or f"{test.questions_name} reject every other retriever"
        if shipped:
            reason = test.reasons[role]
    else:
        role, best = choice.pick(allowed)
        reason = _reason(role, best, choice, test)
    return Conclusion(
        role=role,
        kind=choice.kind(role),
        decision=decision(role, test.verdicts, choice.kind(role)),
        reason=reason,
        best=best,
        costs=_costs(role, choice, test),
        next_steps=_next_steps(role, test),
        scores={name: round(score, 4) for name, score in choice.scores.items()} if best else {},
        questions=choice.questions if best else 0,
        questions_from=choice.questions_from if best else "",
    )


def _undecided(choice: Choice, test: ComparedResults) -> str:
    """Return why no retriever can be chosen, or ""."""
    if test.questions < MIN_QUESTIONS:
        return too_few(test.questions, MIN_QUESTIONS)
    if any(gain.is_unknown for gain in test.gains.values()):
        return "the questions are about too few documents for a conclusion"
    if choice.questions < MIN_CHOICE_QUESTIONS:
        kept = next(iter(test.reasons.values()), "")
        return kept or f"there are too few dev questions to choose a retriever ({choice.questions})"
    return ""


def decision(role: str, verdicts: Mapping[str, Verdict], kind: str = "") -> str:
    """Return in a few words what to do.

    Example:
        >>> from rag_ft.evaluation.conclusion import decision
        >>> decision("hybrid-candidate", {"candidate": "ship"}), decision("baseline", {"candidate": "keep-baseline"})
        ('Ship the candidate, served behind the hybrid with BM25', 'Keep the baseline')
    """
    model = role.removeprefix(HYBRID_PREFIX)
    if BM25_ROLE in (role, kind):
        return "Use BM25"
    behind = ", served behind the hybrid with BM25" if role.startswith(HYBRID_PREFIX) else ""
    if model.startswith(CANDIDATE):
        number = f" {model}" if len(verdicts) > 1 else " the candidate"
        return f"Ship{number}{behind}"
    undecided = " for now" if next(iter(verdicts.values()), "") == "inconclusive" else ""
    return f"Keep the baseline{undecided}{behind}"


def _reason(role: str, best: str, choice: Choice, test: ComparedResults) -> str:
    """Return why a role was chosen, and what the test questions say about it."""
    measured = f"on {choice.questions:,} {choice.questions_from}"
    if role == best:
        others = {name: score for name, score in choice.scores.items() if name != role and name in test.allowed(choice)}
        second = max(others, key=others.__getitem__, default="")
        why = f"{_name(role, choice)} has the highest nDCG@10 {measured} ({choice.scores[role]:.3f}"
        why += f"; {_name(second, choice)} is next with {others[second]:.3f})" if second else ")"
    else:
        why = (
            f"nothing is better than {_name(role, choice)} by {choice.margin:g} or more {measured} (nDCG@10 "
            f"{choice.scores[role]:.3f}; the best, {_name(best, choice)}, has {choice.scores[best]:.3f})"
        )
    on_test = f"it has {test.ndcg[role]:.3f} on {test.questions_name}"
    if role in test.gains:
        on_test += f", {test.gains[role]} against the baseline"
    model = role.removeprefix(HYBRID_PREFIX)
    shipped = [name for name, verdict in test.verdicts.items() if verdict == "ship" and name != model]
    if embedding := next((name for name in shipped if choice.kind(name) == "embedding"), None):
        instead = f"If you need an embedding, take {_name(embedding, choice)}: {test.reasons[embedding]}"
        return f"{why}, and {on_test}. {instead}"
    if model == BASELINE and test.reasons:
        return f"{next(iter(test.reasons.values()))}; {why}, and {on_test}"
    return f"{why}, and {on_test}"


def _name(role: str, choice: Choice) -> str:
    """Return how a sentence names a role."""
    if choice.kind(role) == "bm25":
        return "BM25"
    model = role.removeprefix(HYBRID_PREFIX)
    name = model if "-" in model else f"the {model}"
    return f"the hybrid of {name} and BM25" if role != model else name


def _costs(role: str, choice: Choice, test: ComparedResults) -> dict[str, str]:
    """Return what each step from the simplest retriever up to a role costs."""
    kinds = {role: choice.kind(role)} | {each: choice.kind(each) for each in test.ndcg}
    model = role.removeprefix(HYBRID_PREFIX)
    steps = [each for each in (BM25_ROLE, model if role != BM25_ROLE else "", role) if each in test.ndcg]
    return {each: cost_of(kinds[each], test.details.get(each, {})) for each in dict.fromkeys(steps)}


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
    elif kind in ("embedding", "hybrid"):
        parts.append("requests to the model's server")
    if kind in ("bm25", "hybrid"):
        parts.append("BM25 in each process of the app" if kind == "hybrid" else "no model")
    return ", ".join(parts)


def _next_steps(role: str, test: ComparedResults) -> tuple[str, ...]:
    """Return what to do now."""
    model = role.removeprefix(HYBRID_PREFIX)
    steps = []
    if model.startswith(CANDIDATE):
        steps.append("rebuild the index with it, because vectors of two models cannot be mixed (rag-ft index)")
    if role.startswith(HYBRID_PREFIX):
        steps.append("search with HybridRetriever(index)")
    elif role == BM25_ROLE:
        steps.append("search with HybridRetriever(index, Fusion(weight=0)), which asks BM25 alone")
    if "inconclusive" in test.verdicts.values() and not model.startswith(CANDIDATE):
        steps.append("add test questions, best of all real ones, and compare again")
    return tuple(steps)
