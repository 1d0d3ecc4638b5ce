"""The summary of a training: one sentence on the decision, each rejected candidate once, and what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rag_ft import InputError, TrainedModel
from rag_ft.embedding.training_summary import RejectedCandidate, TrainingSummary

REJECTED = "every candidate that beat the base model on dev was rejected"


def tuned(**changed: Any) -> dict[str, Any]:
    """The record of a training that selected an alpha of 0.75, and rejected 1."""
    training = {
        "share": 0.75, "selected": "share 0.75", "select": "safe", "dev_questions": 90, "base_stays_because": None,
        "dev_ndcg@10": {"base": 0.612, "epoch 1": 0.7, "share 1": 0.7, "share 0.75": 0.688},
        "gain": {"mean": 0.0761, "ci95": [0.0502, 0.1013]},
        "refused": {"share 1": "forgets: 0.750 -> 0.600 on general questions"},
        "refused_gains": {"share 1": {"mean": 0.088, "ci95": [0.061, 0.114]}},
        "findings": ["the loss did not decrease: train longer"],
    }  # fmt: skip
    return {"training": training | changed}


def kept(**changed: Any) -> dict[str, Any]:
    """The record of a training that kept the base model."""
    training = {
        "share": 0, "selected": "base", "select": "safe", "dev_questions": 60, "base_stays_because": REJECTED,
        "dev_ndcg@10": {"base": 0.532, "epoch 1": 0.536, "share 1": 0.536, "share 0.5": 0.534}, "gain": None,
        "refused": {
            "share 1": "its gain on dev may be chance (+0.004 [-0.044, +0.052])",
            "share 0.5": "it loses on the dev questions from source 'real' (-0.050 [-0.060, -0.040])",
        },
        "refused_gains": {
            "share 1": {"mean": 0.004, "ci95": [-0.0445, 0.052]},  # rounded twice it differs from the reason
            "share 0.5": {"mean": 0.002, "ci95": [None, None]},
        },
        "findings": [],
    }  # fmt: skip
    return {"training": training | changed}


def old(record: dict[str, Any]) -> dict[str, Any]:
    """The same record as version 0.1.0 wrote it."""
    new = ("selected", "select", "refused_gains")
    return {"training": {key: value for key, value in record["training"].items() if key not in new}}


def test_a_tuned_model_is_named_with_its_gain() -> None:
    summary = TrainingSummary.of(tuned())
    assert summary.decided == (
        "Training selected the tuned model at alpha 0.75: dev nDCG@10 0.612 -> 0.688 (+0.076 [+0.050, +0.101])."
    )
    assert (summary.is_base, summary.base_kept_because, summary.selected) == (False, "", "alpha 0.75")
    assert [str(each) for each in summary.rejected] == [
        "alpha 1 (dev +0.088 [+0.061, +0.114]): forgets: 0.750 -> 0.600 on general questions"
    ]
    assert len(summary.next_steps) == 1
    assert summary.next_steps[0].startswith("alpha 1 has the highest dev score")


def test_a_kept_base_model_says_why_and_how_to_take_the_best_candidate() -> None:
    summary = TrainingSummary.of(kept())
    assert summary.decided == f"The base model is kept: {REJECTED}."
    assert (summary.is_base, summary.base_kept_because, summary.selected) == (True, REJECTED, "base")
    assert summary.rejected == (
        RejectedCandidate(
            name="alpha 1", reason="its gain on dev may be chance", gain="+0.004 [-0.044, +0.052]", score=0.536
        ),
        RejectedCandidate(
            name="alpha 0.5", reason="it loses on the dev questions from source 'real' (-0.050 [-0.060, -0.040])",
            gain="+0.002 [interval unknown]", score=0.534,
        ),
    )  # fmt: skip
    (step,) = summary.next_steps
    assert all(said in step for said in ("alpha 1 has the highest", "--select dev", 'select="dev"', "test questions"))


def test_no_reason_and_no_candidate_appears_twice() -> None:
    text = str(TrainingSummary.of(kept()))
    assert text.count("its gain on dev may be chance") == text.count("+0.004") == 1
    assert text.count("- alpha 0.5") == 1
    assert "share" not in text


def test_an_older_record_gives_the_same_decision() -> None:
    assert TrainingSummary.of(old(tuned())).decided == TrainingSummary.of(tuned()).decided
    summary = TrainingSummary.of(old(kept()))
    assert summary.decided == f"The base model is kept: {REJECTED}."
    assert [str(each) for each in summary.rejected] == [
        "alpha 1 (dev +0.004 [-0.044, +0.052]): its gain on dev may be chance",
        "alpha 0.5 (dev +0.002): it loses on the dev questions from source 'real' (-0.050 [-0.060, -0.040])",
    ]
    rounds = {"base": 0.5, "round 1 share 0.75": 0.6, "round 2 share 0.75": 0.7}
    record = old(tuned(refused={"round 1 share 0.75": "forgets"}, **{"dev_ndcg@10": rounds}))
    decided = TrainingSummary.of(record).decided
    assert decided.startswith("Training selected the tuned model of round 2 at alpha 0.75: dev nDCG@10 0.500 -> 0.700")


def test_without_dev_questions() -> None:
    reason = "too few questions can be held out to test whether a tuned model is better"
    nothing = {"dev_ndcg@10": {}, "dev_questions": 0, "refused": {}, "refused_gains": {}, "gain": None}
    summary = TrainingSummary.of(kept(base_stays_because=reason, **nothing))
    assert summary.decided == f"The base model is kept: {reason}."
    assert str(summary) == summary.decided
    summary = TrainingSummary.of(tuned(share=1.0, selected="share 1", findings=[], **nothing))
    assert str(summary) == (
        "Training selected the tuned model at alpha 1. Its gain is unknown, because no dev questions were held out."
    )
    assert TrainingSummary.of({"training": {"share": 0}}).decided == (
        "The base model is kept: no candidate beat the base model on dev."
    )
    with pytest.raises(InputError, match="has no training"):
        TrainingSummary.of({})


def test_a_candidate_selected_by_its_dev_score_alone_is_not_called_proven() -> None:
    reason = "its gain on dev may be chance (+0.004 [-0.044, +0.052])"
    record = kept(
        share=1.0, selected="share 1", select="dev", base_stays_because=None,
        gain={"mean": 0.004, "ci95": [-0.044, 0.052]}, refused={"share 1": reason},
    )  # fmt: skip
    summary = TrainingSummary.of(record)
    assert summary.decided == (
        "Training selected the tuned model at alpha 1: dev nDCG@10 0.532 -> 0.536 (+0.004 [-0.044, +0.052]). It was "
        f"selected by its dev score alone; the default selection rejects it: {reason}."
    )
    assert (summary.rejected, summary.next_steps) == ((), ())
    assert TrainingSummary.of(kept(select="dev")).next_steps == ()


def test_a_base_model_without_headroom_needs_real_questions() -> None:
    reason = "the base model already does well on this corpus, so generated questions would not help"
    record = kept(base_stays_because=reason, level=0.9, refused={}, refused_gains={}, **{"dev_ndcg@10": {"base": 0.9}})
    questions, select = TrainingSummary.of(record).next_steps
    assert "questions that people asked" in questions
    assert "--select dev" in select
    assert TrainingSummary.of(record | {"adapter": {"share": 0.0}}).next_steps == (questions,)


def test_scored_pairs_have_their_own_metric() -> None:
    scores = {"dev_ndcg@10": {}, "dev_spearman": {"base": 0.5, "share 0.75": 0.6}}
    text = str(TrainingSummary.of(tuned(refused={}, **scores)))
    assert "dev Spearman's correlation 0.500 -> 0.600" in text
    assert "dev Spearman's correlation on 90 pairs: base 0.500, alpha 0.75 0.600" in text


def test_an_earlier_model_that_is_kept_is_no_base_model() -> None:
    record = kept() | {"generations": [{"name": "first", "pairs": 50, "share": 1.0}]}
    assert TrainingSummary.of(record).decided == f"The earlier model first is kept: {REJECTED}."


@pytest.mark.parametrize("new", [True, False])
def test_adapters_have_a_summary_too(new: bool) -> None:
    scores = {"base": 0.5, "pull 10 (share 0.6)": 0.6, "pull 3 (share 0.6)": 0.65}
    record = tuned(
        share=0.6, selected="pull 10 (share 0.6)", refused={"pull 3 (share 0.6)": "forgets"}, **{"dev_ndcg@10": scores}
    )
    record = (record if new else old(record)) | {"adapter": {"share": 0.6, "strength": 10.0}}
    summary = TrainingSummary.of(record)
    assert summary.decided.startswith(
        "Training selected the adapter with pull 10 (alpha 0.6): dev nDCG@10 0.500 -> 0.600"
    )
    assert summary.rejected[0].name == "pull 3 (alpha 0.6)"
    assert summary.next_steps == ()
    unchanged = kept() | {"adapter": {"share": 0.0, "strength": None}}
    assert TrainingSummary.of(unchanged).decided == f"The embedding is kept unchanged: {REJECTED}."


def test_a_trained_model_prints_its_summary() -> None:
    record = tuned()
    trained = TrainedModel(Path("models/acme"), alpha=0.75, dev={}, record=record)
    assert trained.summary == TrainingSummary.of(record)
    assert str(trained).splitlines() == [
        trained.summary.decided,
        "dev nDCG@10 on 90 questions: base 0.612, epoch 1 0.700, alpha 1 0.700, alpha 0.75 0.688",
        "rejected:",
        "- alpha 1 (dev +0.088 [+0.061, +0.114]): forgets: 0.750 -> 0.600 on general questions",
        "findings:",
        "- the loss did not decrease: train longer",
        "next:",
        f"- {trained.summary.next_steps[0]}",
    ]
    assert repr(trained).startswith("TrainedModel(folder=")


def test_the_html_form_escapes_what_comes_from_data() -> None:
    attack = "<script>alert('x')</script>"
    record = kept(refused={"share 1": attack}, base_stays_because=attack, findings=[attack])
    html = TrainedModel(Path("m"), alpha=0.0, dev={}, record=record)._repr_html_()
    assert attack not in html
    assert html.count("&lt;script&gt;") == 3
    assert "<td>base</td><td>0.532</td><td></td><td>selected</td>" in html
