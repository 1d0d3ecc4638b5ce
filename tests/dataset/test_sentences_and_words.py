"""Sentences and words are found by the rules of each language, also in scripts without spaces."""

from pathlib import Path

import pytest
from fakes.texts import ANY_TEXT
from hypothesis import example, given, settings
from hypothesis import strategies as st
from llama_index.core.node_parser.text.utils import split_by_sentence_tokenizer

from rag_ft.dataset.text.language import LANGUAGE_NAMES
from rag_ft.dataset.text.sentences import sentences_of
from rag_ft.dataset.text.words import segmented, stop_words_of, word_count, words_of
from rag_ft.documents.reader import read_documents


@pytest.mark.parametrize(
    ("language", "ends"),
    [
        ("de", "Es gilt z. B. § 5 Abs. 2 und Nr. 5 nicht.|Dr. Ott zahlt bzw. unterschreibt.|Am 3. Mai d. h. morgen."),
        ("de", "Siehe Art. 6 und S. 5 ff. der Ordnung.|Das kostet ca. 5 Euro.|Wer zahlt?|Niemand!"),
        ("fr", "M. Dupont signe p. ex. le formulaire.|Cf. art. 5 ci-dessous.|Qui signe ?|Le capitaine."),
        ("es", "El Sr. García firma.|¿Cuándo?|Hoy, p. ej. por la tarde."),
        ("pl", "Zgodnie z art. 5 ust. 2 umowy.|To koniec."),
        ("ru", "Это п. 5 ст. 3 договора.|Директор подписывает."),
        ("el", "Ποιος υπογράφει;|Ο διευθυντής."),
        ("ar", "من يوقع؟|المدير يوقع."),
        ("hi", "छुट्टी बीस दिन की है।|आवेदन पोर्टल में होता है।"),
        ("ko", "휴가는 이십팔 일이다.|누가 서명합니까?|항만장이다."),
        ("ka", "ეს არის წესი.|ყველა ხელს აწერს."),
    ],
)
def test_sentences_end_by_the_rules_of_their_language(language: str, ends: str) -> None:
    expected = ends.split("|")
    assert [sentence.strip() for sentence in sentences_of(" ".join(expected), language)] == expected


@pytest.mark.parametrize(
    ("language", "ends"),
    [
        ("zh", "年假须提前申请。|何时答复？！|三天内；|版本3.5已经发布……|好的"),
        ("zh", "他说：“可以。”|然后走了。|（见T-9表格。）|完"),
        ("zh", "用HELM吗? |是的。\n\n|第二段没有句号"),
        ("ja", "休暇は二十日です。|「はい。」と言った。|「いいえ。」|彼は帰った！|そうですか？"),
        ("th", "พนักงานมีวันลา 28 วันต่อปี |ต้องยื่นคำขอล่วงหน้า |สิบวันทำการ"),
    ],
)
def test_sentences_end_without_a_space(language: str, ends: str) -> None:
    expected = ends.split("|")
    assert sentences_of("".join(expected), language) == expected


@given(text=ANY_TEXT, language=st.sampled_from(["", "en", "zh", "ja", "th", "ko", "ka", *LANGUAGE_NAMES]) | st.none())
@example(text=" \n", language="de")
@example(text="。", language="zh")
@settings(deadline=None)
def test_sentences_joined_are_the_text(text: str, language: str | None) -> None:
    pieces = sentences_of(text, language)
    assert "".join(pieces) == text
    assert all(pieces)


def test_english_sentences_are_cut_as_in_llama_index(acme: Path) -> None:
    cut = split_by_sentence_tokenizer()
    for document in read_documents(acme / "documents"):
        assert sentences_of(document.text, "en") == cut(document.text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Formular T-9 für Straße", ["formular", "t", "9", "für", "straße"]),
        ("年假", ["年假"]),
        ("假", ["假"]),
        ("用HELM申请年假。", ["用", "helm", "申请", "请年", "年假"]),
        ("휴가는 언제", ["휴가", "가는", "언제"]),
        ("カード𠀀", ["カー", "ード", "ド𠀀"]),
        ("ลาป่วย", ["ลา", "าป", "ป่", "่ว", "วย"]),
        ("छुट्टी के नियम", ["छुट्टी", "के", "नियम"]),
        ("", []),
    ],
)
def test_scripts_without_spaces_give_pairs_of_characters(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@given(text=ANY_TEXT)
@settings(deadline=None)
def test_words_never_crash_and_are_the_same_once_segmented(text: str) -> None:
    assert words_of(segmented(text)) == words_of(text)
    assert all(word and not word.isspace() for word in words_of(text))
    assert word_count(text) >= 0
    assert segmented(segmented(text)).split() == segmented(text).split()


@given(text=st.text(st.characters(max_codepoint=0x24F), max_size=60))
def test_text_with_spaces_is_not_segmented(text: str) -> None:
    assert segmented(text) == text
    assert word_count(text) == len(text.split())


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 0), ("假", 1), ("年假申请", 2), ("谁可以签署 T-9 表格？", 5), ("Who signs a T-9?", 4), ("年假 。", 1)],
)
def test_two_characters_count_as_a_word(text: str, count: int) -> None:
    assert word_count(text) == count


def test_stop_words_are_those_of_the_language() -> None:
    assert {"nicht", "der"} <= set(stop_words_of("de"))
    assert "the" in stop_words_of("en")
    assert [stop_words_of(language) for language in ("zh", "ko", "th", "hr", "")] == [[]] * 5
