"""The local LLM: verified weights, answers in batches, the same ones each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag_ft import OutsideError
from rag_ft.dataset.qa_dataset import Passage
from rag_ft.generation import LocalLLM, local_llm
from rag_ft.generation.llm_questions import questions_from_llm
from rag_ft.generation.resolve_llm import resolve_llm

PASSAGES = [
    Passage(
        "claims",
        "An expenses claim is filed within thirty days of the purchase, with the receipt, in the claims portal.",
    ),
    Passage("leave", "Annual leave is booked two weeks before it begins. The team lead approves it within three days."),
]


@pytest.fixture(scope="module")
def llm() -> LocalLLM:
    try:
        local_llm.weights_file()
    except OutsideError as error:
        pytest.skip(f"the weights are not here and cannot be fetched: {error}")
    return LocalLLM(max_new_tokens=24)


@pytest.mark.slow
def test_it_writes_a_question_for_each_passage_and_the_same_ones_again(llm: LocalLLM) -> None:
    found = questions_from_llm(PASSAGES, llm)
    pairs, dropped = found.pairs, found.dropped
    assert {passage for _, passage in pairs} | {row["passage"] for row in dropped} == {"claims", "leave"}
    assert any("?" in query.text for query, _ in pairs)
    again = questions_from_llm(PASSAGES, llm).pairs
    assert again == pairs


@pytest.mark.slow
def test_llama_index_can_use_it_like_any_llm(llm: LocalLLM) -> None:
    assert llm.complete("What is the capital of France?").text
    assert llm.metadata.model_name == "SmolLM2-135M-Instruct"
    assert resolve_llm("local").class_name() == "LocalLLM"  # type: ignore[union-attr]


def test_other_weights_than_the_verified_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAG_FT_CACHE", str(tmp_path))
    (tmp_path / local_llm.GGUF).write_bytes(b"other weights")
    with pytest.raises(OutsideError, match="unexpected SHA-256"):
        local_llm.weights_file()
