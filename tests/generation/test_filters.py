"""Which questions stay, and the reason for each one that does not."""

import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding

from rag_ft.dataset.qa_dataset import Passage, Query
from rag_ft.errors import InputError
from rag_ft.generation.filters import Filters, filter_questions

PASSAGES = {f"p{n}": Passage(f"p{n}", f"Form T-{n} is signed by the master of harbour {n}.") for n in range(40)} | {
    "badge": Passage("badge", "A badge opens the doors of the laboratory at night.")
}


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("Which badge?", "too short"),
        ("?! ... --", "too short"),
        ("badge " * 61, "too long"),
        ("A badge opens the doors of the laboratory at night", "copies the passage"),
        ("Womit öffnet man nachts die Türen des Labors im Keller?", "in another language than its passage"),
        ("Was steht in diesem Abschnitt über den Ausweis?", "refers to the text"),
        ("这篇文章讲了什么内容？", "refers to the text"),
        ("What opens the doors at night now?", "nearly repeated"),
        ("What does the passage say about a badge?", "refers to the text"),
        ("According to the handbook, what does a badge open?", "refers to the text"),
        ("what opens the doors -- at NIGHT!", "repeated"),
        ("Who signs form T-3 of harbour 3?", "does not find its passage among the first 20 of BM25"),
        ("Completely unrelated words about cooking", "does not find its passage among the first 20 of BM25"),
    ],
)
def test_a_dropped_question_has_its_reason(question: str, reason: str) -> None:
    good = Query("good", "What opens the doors at night?", "question")
    kept, dropped = filter_questions([(good, "badge"), (Query("q", question, "question"), "badge")], PASSAGES)
    assert kept == [(good, "badge")]
    assert dropped == [{"query": question, "passage": "badge", "reason": reason, "style": "question"}]


def test_a_question_in_chinese_counts_characters() -> None:
    passages = {"zh": Passage("zh", "谁 可以 签署 这张 表格")}
    kept, dropped = filter_questions([(Query("q", "谁可以签署 这张 表格"), "zh")], passages)
    assert [query.id for query, _ in kept] == ["q"]
    assert dropped == []


def test_no_question_at_all_is_no_failure() -> None:
    assert filter_questions([], PASSAGES) == ([], [])


def test_a_question_that_finds_a_copy_of_its_passage_stays() -> None:
    passages = {
        f"copy{n}": Passage(f"copy{n}", "A badge opens the doors of the laboratory at night.") for n in range(30)
    }
    query = Query("q", "What opens the doors at night?", "question")
    # Where nobody knows that they are copies, the question cannot tell one of them from the others.
    assert not any(filter_questions([(query, key)], passages, Filters(depth=1))[0] for key in passages)
    groups = dict.fromkeys(passages, 0)
    for key in passages:
        assert filter_questions([(query, key)], passages, Filters(depth=1), groups=groups)[0] == [(query, key)]


@pytest.mark.parametrize(
    ("round_trip", "kept"),
    [("bm25", {"words"}), ("dense", {"meaning"}), ("both", set()), ("either", {"words", "meaning"}),
     ("none", {"words", "meaning"})],
)  # fmt: skip
def test_the_round_trip_goes_by_words_by_meaning_or_by_both(round_trip: str, kept: set[str]) -> None:
    class Meaning(BaseEmbedding):
        """Knows that entering is what a badge is for, and nothing else."""

        def _get_text_embedding(self, text: str) -> list[float]:
            near = "badge" in text or "get in" in text
            return [1.0, 0.0] if near else [0.0, 1.0]

        def _get_query_embedding(self, query: str) -> list[float]:
            return self._get_text_embedding(query)

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return self._get_query_embedding(query)

    pairs = [
        (Query("words", "Who signs form 3 of harbour 3?", "question"), "p3"),
        (Query("meaning", "How can I get in after hours?", "question"), "badge"),
    ]
    filters = Filters(round_trip=round_trip, depth=1, embed_model=Meaning())  # type: ignore[arg-type]
    assert {query.id for query, _ in filter_questions(pairs, PASSAGES, filters)[0]} == kept


def test_a_dense_round_trip_without_an_embedding_is_refused() -> None:
    with pytest.raises(InputError, match="the round trip 'dense' needs an embedding"):
        Filters(round_trip="dense")


@pytest.mark.parametrize(("setting", "value"), [("round_trip", "foo"), ("depth", 0)])
def test_an_invalid_setting_is_named(setting: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{setting} is "):
        Filters(**{setting: value})  # type: ignore[arg-type]


def test_sentences_of_the_passage_do_not_count_as_copies() -> None:
    passages = PASSAGES | {"gate": Passage("gate", "The gate of the yard is shut at dusk. A porter shuts the gate.")}
    pairs = [(Query("q", "The gate of the yard is shut at dusk.", "sentence"), "gate")]
    assert filter_questions(pairs, passages)[0] == pairs
    # Without its only sentence nothing is left of a passage that could be found.
    alone = [(Query("q", PASSAGES["badge"].text, "sentence"), "badge")]
    assert not filter_questions(alone, PASSAGES)[0]


def test_a_sentence_must_find_its_passage_without_itself() -> None:
    passages = PASSAGES | {
        "near": Passage("near", "The crane lifts cargo from the quay. Cargo waits on the quay for the crane at dawn."),
        "far": Passage("far", "The mayor likes tulips. Lunch is served at noon in the canteen beside the gate."),
    }
    pairs = [
        (Query("tells", "The crane lifts cargo from the quay.", "sentence"), "near"),
        (Query("tells nothing", "The mayor likes tulips.", "sentence"), "far"),
    ]
    kept, dropped = filter_questions(pairs, passages)
    assert [query.id for query, _ in kept] == ["tells"]
    assert [row["reason"] for row in dropped] == ["does not find its passage among the first 20 of BM25"]


def test_a_question_that_cannot_tell_its_passage_from_others_is_dropped() -> None:
    passages = {f"p{n}": Passage(f"p{n}", f"valid code{n} alpha{n} beta{n}") for n in range(100)}
    pair = (Query("q", "is it valid today", "question"), "p7")
    assert filter_questions([pair], passages)[0] == []
    precise = (Query("q", "is code7 valid today", "question"), "p7")
    assert filter_questions([precise], passages)[0] == [precise]


def test_the_only_sentence_of_a_passage_cannot_find_it() -> None:
    passages = {
        "a": Passage("a", "Badges are blocked at the gate within three days."),
        "b": Passage("b", "Leave is booked in the portal. It is approved within a week by the lead."),
    }
    pair = (Query("q", passages["a"].text, "sentence"), "a")
    assert filter_questions([pair], passages)[0] == []
