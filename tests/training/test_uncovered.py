"""Uncovered documents: found, probed without test questions, and reported if they are out of domain."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_ft import Passage, QADataset, Query, load_dataset, read_documents
from rag_ft.dataset.text.cloze import without_copy
from rag_ft.documents.nodes import cut_into_nodes, passages_from_nodes
from rag_ft.training.selection.dev_set import DevQuestions
from rag_ft.training.selection.forgetting import ForgettingProbe
from rag_ft.training.selection.uncovered import MAX_OUT_OF_DOMAIN, MAX_PROBED, UncoveredDocuments, uncovered_documents


@pytest.fixture(scope="module")
def acme_passages(acme: Path) -> dict[str, Passage]:
    return passages_from_nodes(cut_into_nodes(read_documents(acme / "documents")))


def asking(passages: dict[str, Passage], train: list[str], dev: list[str] = (), test: list[str] = ()) -> QADataset:  # type: ignore[assignment]
    """A dataset whose questions ask for these passages."""
    splits = {"train": train, "dev": dev, "test": test}
    queries = {f"q {key}": Query(f"q {key}", f"What is said in {key}?") for keys in splits.values() for key in keys}
    qrels = {split: {f"q {key}": {key: 1} for key in keys} for split, keys in splits.items() if keys}
    return QADataset(passages, queries, qrels)


def of_documents(passages: dict[str, Passage], documents: set[str]) -> list[str]:
    return [key for key, passage in passages.items() if passage.document in documents]


def questions_of(uncovered: UncoveredDocuments | None) -> DevQuestions:
    assert uncovered is not None
    assert isinstance(uncovered.questions, DevQuestions)
    return uncovered.questions


def test_documents_of_the_same_domain_are_no_domain_shift(acme_passages: dict[str, Passage]) -> None:
    documents = sorted({passage.document for passage in acme_passages.values()})
    random.Random(0).shuffle(documents)
    asked = set(documents[: len(documents) // 2])
    dataset = asking(acme_passages, of_documents(acme_passages, asked))
    uncovered = uncovered_documents(dataset)
    found = questions_of(uncovered)
    assert uncovered is not None
    assert not uncovered.domain_shift
    assert uncovered.findings == []
    assert {dataset.passages[key].document for key in found.passage_ids}.isdisjoint(asked)


def test_documents_of_another_domain_are_reported(acme_passages: dict[str, Passage]) -> None:
    general = {
        f"general {n}": Passage(f"general {n}", text) for n, text in enumerate(ForgettingProbe.shipped().passages)
    }
    uncovered = uncovered_documents(asking(acme_passages | general, list(general)))
    assert uncovered is not None
    assert uncovered.out_of_domain > MAX_OUT_OF_DOMAIN
    assert uncovered.domain_shift
    assert "are unlike the covered passages: a model is shipped only if it is also better" in uncovered.findings[0]
    assert set(questions_of(uncovered).passage_ids) <= set(acme_passages)


@pytest.mark.parametrize("apart", [2, 3, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_few_documents_are_no_domain_shift(shared_data: Path, apart: int, seed: int) -> None:
    passages = load_dataset(shared_data / "covidqa").passages
    documents = sorted({passage.document for passage in passages.values()})
    random.Random(seed).shuffle(documents)
    asked = of_documents(passages, set(documents[:10]))
    those = asked + of_documents(passages, set(documents[10 : 10 + apart]))
    uncovered = uncovered_documents(asking({key: passages[key] for key in those}, asked))
    assert uncovered is None or uncovered.out_of_domain < MAX_OUT_OF_DOMAIN


@pytest.mark.parametrize("count", [1, 2])
def test_a_domain_shift_needs_two_documents(acme_passages: dict[str, Passage], count: int) -> None:
    texts = ForgettingProbe.shipped().passages
    general = {
        f"g{n}": Passage(f"g{n}", text, doc_id=f"general {n * count // len(texts)}") for n, text in enumerate(texts)
    }
    uncovered = uncovered_documents(asking(acme_passages | general, list(general)))
    assert uncovered is not None
    assert uncovered.domain_shift == (count > 1)


def test_out_of_domain_documents_without_sentences_are_reported(acme_passages: dict[str, Passage]) -> None:
    prices = {f"price {n}": Passage(f"price {n}", f"M{n} hex bolt zinc {n * 3} EUR") for n in range(60)}
    uncovered = uncovered_documents(asking(acme_passages | prices, list(acme_passages)))
    assert uncovered is not None
    assert uncovered.questions is None
    assert uncovered.domain_shift
    assert "the effect of tuning on them cannot be measured" in uncovered.findings[0]


def test_copies_are_not_asked_for() -> None:
    text = (
        "Badge {0} opens gate {1} at night for {2}. Ask desk {1} in hall {0} for a badge of kind {2} within {0} days."
    )
    passages = {
        f"{copy}-{n}": Passage(f"{copy}-{n}", text.format(n, 7 * n, f"crew{n * n}")) for copy in "ab" for n in range(60)
    }
    passages["asked"] = Passage("asked", "Leave is booked in HELM.")
    found = questions_of(uncovered_documents(asking(passages, ["asked"])))
    # Of each pair of copies one stands in the pool.
    assert len({key.partition("-")[2] for key in found.passage_ids}) == len(found.passage_ids)


@given(seed=st.integers(0, 1_000))
@settings(max_examples=10)
def test_no_test_question_and_no_document_asked_about_is_in_it(acme_passages: dict[str, Passage], seed: int) -> None:
    draw = random.Random(seed)
    documents = sorted({passage.document for passage in acme_passages.values()})
    draw.shuffle(documents)
    train, dev, test = (of_documents(acme_passages, set(documents[place::4])) for place in range(3))
    dataset = asking(acme_passages, train, dev, test)
    uncovered = uncovered_documents(dataset, seed)
    found = questions_of(uncovered)
    assert uncovered is not None
    assert len(found.query_ids) == len(found.passage_ids) <= 2 * MAX_PROBED
    assert len(uncovered.is_control) == len(found.query_ids)
    assert not {dataset.queries[query].text for query in dataset.qrels["test"]} & set(found.query_texts)
    asked = {
        split: {dataset.passages[key].document for key in keys} for split, keys in {"train": train, "dev": dev}.items()
    }
    for key, question, passage, is_control in zip(
        found.passage_ids, found.query_texts, found.passage_texts, uncovered.is_control, strict=True
    ):
        document = dataset.passages[key].document
        assert document not in asked["train"]
        assert (document in asked["dev"]) == is_control  # the control: dev's unseen documents
        # The passage is searched without its sentence.
        assert without_copy(question, dataset.passages[key].text) is not None
        assert len(passage) < len(dataset.passage_texts[key])
    # Without the test split the same is found: it is not looked at.
    rest = {split: part for split, part in dataset.qrels.items() if split != "test"}
    assert questions_of(uncovered_documents(dataset.with_qrels(rest), seed)) == found


@given(sizes=st.lists(st.tuples(st.integers(1, 30), st.booleans()), min_size=1, max_size=14), alike=st.booleans())
@settings(max_examples=30)
def test_documents_of_any_number_and_size_are_read(sizes: list[tuple[int, bool]], alike: bool) -> None:
    passages = {}
    asked = []
    for document, (size, is_asked) in enumerate(sizes):
        for place in range(size):
            key = f"{document}-{place}"
            words = "gate" if alike else f"gate{document} night{place} badge{document * place}"
            text = f"Badge opens the small {words} at night. Lost badges of the {words} kind are blocked at once."
            passages[key] = Passage(key, text, doc_id=f"d{document}")
            asked += [key] if is_asked else []
    if not asked:
        return
    uncovered = uncovered_documents(asking(passages, asked))
    many = sum(size for size, is_asked in sizes if not is_asked) >= 30
    assert (uncovered is not None) == many
    assert uncovered is None or 0.0 <= uncovered.out_of_domain <= 1.0
    if uncovered is not None and alike:
        assert uncovered.questions is None  # all of them say the same


def test_few_passages_say_nothing(acme_passages: dict[str, Passage]) -> None:
    assert uncovered_documents(asking(acme_passages, list(acme_passages))) is None


def judged(
    uncovered: tuple[float, int],
    control: tuple[float, int],
    *,
    documents: int = 10,
    out_of_domain: float = 0.0,
    gain_on_unseen: float | None = 0.1,
) -> str:
    """The objection to a model, from (mean difference, number of questions) on uncovered documents and the control."""
    draw = np.random.default_rng(0)
    parts = [mean + draw.normal(0, 0.1, count) for mean, count in (uncovered, control)]
    parts = [
        part - part.mean() + mean if len(part) else part
        for part, (mean, _) in zip(parts, (uncovered, control), strict=True)
    ]
    groups = [f"u{n % 10}" for n in range(uncovered[1])] + [f"c{n % documents}" for n in range(control[1])]
    found = UncoveredDocuments(
        questions=SimpleNamespace(groups=groups),  # type: ignore[arg-type]
        is_control=np.array([False] * uncovered[1] + [True] * control[1]),
        is_out_of_domain=np.array([out_of_domain > 0.5] * uncovered[1] + [False] * control[1]),
        out_of_domain=out_of_domain,
    )
    return found.objection_to(np.concatenate(parts), gain_on_unseen)


def test_a_loss_that_the_control_has_too_is_no_evidence() -> None:
    """The figures of a collection on which a gain of .097 was thrown away."""
    assert "loses on the documents" in judged((-0.058, 300), (0.0, 0))
    assert judged((-0.058, 300), (-0.035, 100)) == ""


def test_a_loss_beyond_that_of_the_control_counts() -> None:
    assert "loses on the documents" in judged((-0.058, 300), (-0.005, 100))
    assert "loses on the documents" in judged((-0.15, 300), (-0.06, 100))
    assert "loses on the documents" in judged((-0.058, 300), (+0.03, 100))


@pytest.mark.parametrize("gain", [None, -0.04, 0.0])
def test_a_control_whose_real_questions_do_not_gain_explains_nothing(gain: float | None) -> None:
    assert "loses on the documents" in judged((-0.058, 300), (-0.058, 100), gain_on_unseen=gain)


def test_a_control_of_a_few_documents_explains_nothing() -> None:
    assert "loses on the documents" in judged((-0.05, 300), (+0.03, 30), documents=2)
    assert "loses on the documents" in judged((-0.05, 300), (-0.05, 30), documents=4)


def test_no_loss_needs_no_control() -> None:
    assert judged((0.0, 300), (0.02, 100)) == ""
    assert judged((0.03, 300), (0.2, 100)) == ""


def test_out_of_domain_documents_must_gain_whatever_the_control_does() -> None:
    assert "unlike the others" in judged((-0.02, 300), (-0.05, 100), out_of_domain=0.6)
    assert judged((0.03, 300), (-0.05, 100), out_of_domain=0.6) == ""


def test_passages_of_the_same_domain_do_not_hide_a_loss_on_the_others() -> None:
    groups = [f"d{n % 20}" for n in range(200)]
    unlike = np.arange(200) % 2 == 1
    found = UncoveredDocuments(
        questions=SimpleNamespace(groups=groups),  # type: ignore[arg-type]
        is_out_of_domain=unlike,
        out_of_domain=0.5,
    )
    differences = np.where(unlike, -0.02, 0.1) + np.random.default_rng(0).normal(0, 0.02, 200)
    assert "unlike the others and may not gain (-0.0" in found.objection_to(differences)
