"""The summary of a training: which candidate was selected and why, read from the record in `rag_ft.json`.

The command line, `TrainedModel`, the model card and the report all use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from rag_ft.embedding.stored_names import displayed_name
from rag_ft.errors import InputError

DEV_METRICS = {"dev_ndcg@10": "nDCG@10", "dev_spearman": "Spearman's correlation"}
"""Key of the dev scores in a training's record -> name of the metric."""

BASE = "base"

NO_BETTER = "no candidate beat the base model on dev"
"""The reason for a kept base model if the record has none."""

SELECT_DEV = '--select dev (in Python: select="dev")'
"""How to ship the candidate with the best dev score without further proof."""

GAIN_IN_REASON = re.compile(r"(its gain on dev may be chance.*) \((\S+ \[[^\]]*\])\)")
"""A reason that ends with the candidate's gain on dev."""

NO_INTERVAL = "interval unknown"
"""The interval of a gain on the questions of too few documents."""


@dataclass(frozen=True, kw_only=True)
class RejectedCandidate:
    """A candidate that beat the base model on dev, but was not accepted.

    Attributes:
        name: the candidate, such as `alpha 0.5`.
        reason: why it was rejected.
        gain: its gain over the base model on dev, with the 95 % interval if that is known; empty if unknown.
        score: its dev score; None if unknown.
    """

    name: str
    reason: str
    gain: str = ""
    score: float | None = None

    def __str__(self) -> str:
        gain = f" (dev {self.gain})" if self.gain else ""
        return f"{self.name}{gain}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class TrainingSummary:
    """Which candidate a training selected, and why.

    Attributes:
        decided: what was selected and why, in one or two sentences.
        is_base: whether the base model is kept, or the adapter changes nothing.
        base_kept_because: the reason for that; empty if a tuned model is shipped.
        selected: the selected candidate, such as `alpha 0.75`; empty if the record does not say.
        metric: the metric on dev.
        dev_questions: number of dev questions (or scored pairs).
        scores: dev score by candidate.
        rejected: candidates that beat the base model on dev, but were rejected, each once.
        findings: problems that were found, each with its fix.
        next_steps: what can be done about the decision.

    Example:
        >>> from rag_ft.embedding.training_summary import TrainingSummary
        >>> training = {
        ...     "share": 0, "base_stays_because": "every candidate that beat the base model on dev was rejected",
        ...     "dev_ndcg@10": {"base": 0.61, "share 0.5": 0.62}, "dev_questions": 90,
        ...     "refused": {"share 0.5": "its gain on dev may be chance"},
        ...     "refused_gains": {"share 0.5": {"mean": 0.01, "ci95": [-0.02, 0.04]}},
        ... }
        >>> summary = TrainingSummary.of({"training": training})  # or FineTunedEmbedding.load(folder).record
        >>> print(summary.decided)
        The base model is kept: every candidate that beat the base model on dev was rejected.
        >>> print(*summary.rejected)
        alpha 0.5 (dev +0.010 [-0.020, +0.040]): its gain on dev may be chance
    """

    decided: str
    is_base: bool
    base_kept_because: str = ""
    selected: str = ""
    metric: str = "nDCG@10"
    dev_questions: int = 0
    scores: Mapping[str, float]
    rejected: tuple[RejectedCandidate, ...] = ()
    findings: tuple[str, ...] = ()
    next_steps: tuple[str, ...] = ()

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> TrainingSummary:
        """Summarise the training of a model or an adapter.

        Args:
            record: the content of its `rag_ft.json`.

        Raises:
            InputError: if the record has no training.
        """
        if "training" not in record:
            raise InputError("the record has no training: pass the content of the rag_ft.json of a trained model")
        return _RecordReader(record).summary()

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """Yield the lines of the summary as plain text."""
        yield self.decided
        if self.scores:
            units = "questions" if self.metric == DEV_METRICS["dev_ndcg@10"] else "pairs"
            yield f"dev {self.metric} on {self.dev_questions} {units}: {self.scores_text}"
        for title, entries in (("rejected", self.rejected), ("findings", self.findings), ("next", self.next_steps)):
            if entries:
                yield f"{title}:"
                yield from (f"- {entry}" for entry in entries)

    @property
    def scores_text(self) -> str:
        """The dev score of each candidate on one line."""
        return ", ".join(f"{name} {score:.3f}" for name, score in self.scores.items())

    def to_html(self) -> str:
        """Return the summary as an HTML fragment with a table of the candidates, for notebooks."""
        notes = {each.name: f"rejected: {each.reason}" for each in self.rejected}
        gains = {each.name: each.gain for each in self.rejected}
        if self.selected:
            notes[self.selected] = "selected"
        rows = []
        for name in dict.fromkeys([*self.scores, *gains]):
            score = f"{self.scores[name]:.3f}" if name in self.scores else ""
            cells = (name, score, gains.get(name, ""), notes.get(name, ""))
            rows.append("".join(f"<td>{escape(cell)}</td>" for cell in cells))
        html = f"<p>{escape(self.decided)}</p>"
        if rows:
            head = f"<th>candidate</th><th>dev {escape(self.metric)}</th><th>gain</th><th></th>"
            html += f"<table>{''.join(f'<tr>{row}</tr>' for row in (head, *rows))}</table>"
        if items := "".join(f"<li>{escape(each)}</li>" for each in (*self.findings, *self.next_steps)):
            html += f"<ul>{items}</ul>"
        return html

    def _repr_html_(self) -> str:
        return self.to_html()


class TrainingResult:
    """What a trained model and a trained adapter have in common: a record with a summary."""

    record: dict[str, Any]

    @property
    def findings(self) -> list[str]:
        """Problems that were found, each with its fix."""
        return list(self.record["training"]["findings"])

    @property
    def summary(self) -> TrainingSummary:
        """Which candidate was selected and why, which ones were rejected, and what to do about it."""
        return TrainingSummary.of(self.record)

    def __str__(self) -> str:
        return str(self.summary)

    def _repr_html_(self) -> str:
        return self.summary.to_html()


class _RecordReader:
    """Reads a summary from a record. Records of older versions lack some entries."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self._training: Mapping[str, Any] = record["training"]
        self._adapter: Mapping[str, Any] = record.get("adapter", {})
        self._generations: Sequence[Mapping[str, Any]] = record.get("generations", ())
        self._dev_key = next((key for key in DEV_METRICS if self._training.get(key)), "dev_ndcg@10")
        self._metric = DEV_METRICS[self._dev_key]
        self._scores: Mapping[str, float] = self._training.get(self._dev_key, {})
        self._refused: Mapping[str, str] = self._training.get("refused", {})
        self._selected = self._training.get("selected") or self._find_selected()
        self._is_base = self._selected == BASE

    def summary(self) -> TrainingSummary:
        training = self._training
        rejected = [self._rejected(name) for name in self._refused if name != self._selected]
        return TrainingSummary(
            decided=self._decided(),
            is_base=self._is_base,
            base_kept_because=self._reason() if self._is_base else "",
            selected=displayed_name(self._selected),
            metric=self._metric,
            dev_questions=training.get("dev_questions", 0),
            scores={displayed_name(name): score for name, score in self._scores.items()},
            rejected=tuple(rejected),
            findings=tuple(training.get("findings", ())),
            next_steps=tuple(self._next_steps(rejected)),
        )

    def _find_selected(self) -> str:
        """Return the stored name of the selected candidate, for records without `selected`; empty if unknown."""
        share = self._training.get("share")
        if share is None:
            return ""
        if share == 0:
            return BASE
        accepted = [name for name in self._scores if name not in self._refused]
        if self._adapter:
            name = f"pull {self._adapter.get('strength') or 0:g}"
            fitting = [each for each in accepted if each == name or each.startswith(f"{name} (")]
        else:
            fitting = [each for each in accepted if each.endswith(f"share {share:g}")]
        return max(fitting, key=self._scores.__getitem__, default=f"share {share:g}")

    def _reason(self) -> str:
        return self._training.get("base_stays_because") or NO_BETTER

    def _decided(self) -> str:
        if self._is_base:
            return f"{self._kept()}: {self._reason()}."
        name = displayed_name(self._selected)
        if self._adapter:
            selected = f"Training selected the adapter with {name}"
        else:
            fitted, _, alpha = name.rpartition("alpha ")
            selected = f"Training selected the tuned model{f' of {fitted.strip()}' if fitted else ''}"
            selected += f" at alpha {alpha}" if alpha else ""
        if not self._scores:
            return f"{selected}. Its gain is unknown, because no dev questions were held out."
        if BASE not in self._scores or self._selected not in self._scores:
            return f"{selected}."
        gain = self._gain(self._selected)
        change = f"dev {self._metric} {self._scores[BASE]:.3f} -> {self._scores[self._selected]:.3f} ({gain})"
        return f"{selected}: {change}.{self._how_selected()}"

    def _kept(self) -> str:
        if self._adapter:
            return "The embedding is kept unchanged"
        if self._generations:
            return f"The earlier model {self._generations[-1].get('name') or ''}".strip() + " is kept"
        return "The base model is kept"

    def _how_selected(self) -> str:
        """Return a sentence if the selection asked for no proof of the gain; else an empty text."""
        if self._training.get("select") != "dev" and self._training.get("gain", True):
            return ""
        reason = self._refused.get(self._selected)
        rejection = f"; the default selection rejects it: {reason}" if reason else ""
        return f" It was selected by its dev score alone{rejection}."

    def _gain(self, name: str) -> str:
        """Return a candidate's gain over the base model on dev, as text; empty if unknown."""
        stored = self._training.get("gain") if name == self._selected else None
        stored = stored or self._training.get("refused_gains", {}).get(name)
        if stored:
            return gain_text(stored)
        if BASE in self._scores and name in self._scores:
            return f"{self._scores[name] - self._scores[BASE]:+z.3f}"
        return ""

    def _rejected(self, name: str) -> RejectedCandidate:
        reason, gain = self._refused[name].replace("[-inf, +inf]", f"[{NO_INTERVAL}]"), self._gain(name)
        if said := GAIN_IN_REASON.fullmatch(reason):
            reason, gain = said.groups()
        return RejectedCandidate(name=displayed_name(name), reason=reason, gain=gain, score=self._scores.get(name))

    def _next_steps(self, rejected: Sequence[RejectedCandidate]) -> Iterator[str]:
        if self._is_base and set(self._scores) == {BASE} and self._training.get("level") is not None:
            yield (
                "The limit applies to generated questions only: if you have questions that people asked, train on them."
            )
            if not self._adapter:  # whose training has no `select`
                yield f"To train on the generated questions all the same, use {SELECT_DEV}."
        best = max(rejected, key=lambda each: each.score or 0.0, default=None)
        if best is None or best.score is None or self._adapter or self._training.get("select") == "dev":
            return
        if best.score > self._scores.get(self._selected, 0.0):
            yield (
                f"{best.name} has the highest dev score. To ship it all the same, train again with {SELECT_DEV}, and "
                "compare it with the base model on test questions before you use it."
            )


def gain_text(stored: Mapping[str, Any]) -> str:
    """Return a stored gain as text: the mean and the 95 % interval.

    Example:
        >>> from rag_ft.embedding.training_summary import gain_text
        >>> gain_text({"mean": 0.0761, "ci95": [0.0502, 0.1013]}), gain_text({"mean": 0.1, "ci95": [None, None]})
        ('+0.076 [+0.050, +0.101]', '+0.100 [interval unknown]')
    """
    low, high = stored["ci95"]
    interval = NO_INTERVAL if low is None or high is None else f"{low:+z.3f}, {high:+z.3f}"
    return f"{stored['mean']:+z.3f} [{interval}]"
