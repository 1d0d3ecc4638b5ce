"""The language of passages, corpora and questions is identified."""

import csv
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes.texts import ANY_TEXT
from hypothesis import given, settings

from rag_ft.dataset.text.language import corpus_language, is_other_language, language_of

PASSAGES = {
    "en": "Every member of the crew has twenty-eight days of paid leave a year. Leave is booked in HELM at "
    "least ten working days before the first day, and the harbourmaster answers within three days. Days "
    "that are not taken by the end of March lapse.",
    "de": "Alle Beschäftigten haben im Jahr achtundzwanzig Tage bezahlten Urlaub. Der Urlaub wird spätestens "
    "zehn Arbeitstage vor dem ersten Tag im Portal HELM beantragt, und die Hafenmeisterin antwortet "
    "binnen drei Tagen. Tage, die bis Ende März nicht genommen sind, verfallen. Formular T-9 gilt für "
    "Sonderurlaub.",
    "fr": "Chaque membre de l'équipage dispose de vingt-huit jours de congés payés par an. La demande se fait "
    "dans HELM au moins dix jours ouvrés avant le premier jour, et le capitaine du port répond sous trois "
    "jours. Les jours non pris à la fin du mois de mars sont perdus.",
    "es": "Cada miembro de la tripulación tiene veintiocho días de vacaciones pagadas al año. La solicitud se "
    "hace en HELM al menos diez días laborables antes del primer día, y el jefe de puerto contesta en "
    "tres días. Los días que no se toman antes de finales de marzo se pierden.",
    "zh": "每位员工每年享有二十八天带薪年假。年假须在首日前至少十个工作日通过HELM系统提出申请，港务主管应在三天"
    "内答复。截至三月底仍未使用的年假作废。特殊假期请填写T-9表格。",
    "ja": "従業員は年間二十八日の有給休暇を取得できます。休暇は初日の十営業日前までにHELMで申請し、港長は三日以"
    "内に回答します。三月末までに取得しなかった休暇は失効します。",
    "ko": "모든 직원은 매년 이십팔 일의 유급 휴가를 받습니다. 휴가는 첫날로부터 최소 열흘 전에 "
    "HELM에서 신청해야 하며 항만장은 사흘 안에 답합니다. 삼월 말까지 쓰지 않은 휴가는 "
    "소멸됩니다.",
    "ru": "Каждый член экипажа имеет двадцать восемь дней оплачиваемого отпуска в год. Отпуск оформляется в "
    "HELM не позднее чем за десять рабочих дней, и начальник порта отвечает в течение трёх дней.",
}
QUESTIONS = {
    "en": [
        "How many days of leave do I have each year?",
        "When do unused days of leave lapse?",
        "Who answers my request for leave?",
        "How early must leave be booked in HELM?",
        "What happens to days I did not take?",
        "Is there a form for special leave?",
        "unused holiday at the end of March",
        "Where do I book leave?",
    ],
    "de": [
        "Wie viele Urlaubstage habe ich im Jahr?",
        "Wann verfallen nicht genommene Tage?",
        "Wer antwortet auf meinen Antrag?",
        "Wie früh muss der Urlaub in HELM beantragt werden?",
        "Was passiert mit Tagen, die ich nicht nehme?",
        "Gibt es ein Formular für Sonderurlaub?",
    ],
    "fr": [
        "Combien de jours de congés ai-je par an ?",
        "Quand les jours non pris sont-ils perdus ?",
        "Qui répond à ma demande ?",
        "Quand faut-il faire la demande dans HELM ?",
    ],
    "es": [
        "¿Cuántos días de vacaciones tengo al año?",
        "¿Cuándo se pierden los días no usados?",
        "¿Quién contesta a mi solicitud?",
        "¿Con cuánta antelación hay que pedirlas en HELM?",
    ],
    "zh": ["我每年有多少天年假？", "没用完的年假什么时候作废？", "谁来答复我的申请？", "要提前多久在HELM申请年假？"],
    "ja": ["年間の有給休暇は何日ですか。", "使わなかった休暇はいつ失効しますか。", "誰が申請に回答しますか。"],
    "ko": ["일 년에 휴가가 며칠인가요?", "쓰지 않은 휴가는 언제 소멸되나요?"],
    "ru": ["Сколько дней отпуска у меня в году?", "Когда сгорают неиспользованные дни?"],
}
FEWEST_FOUND = 0.9
MOST_FALSE_ALARMS = 0.002


@pytest.mark.parametrize("language", PASSAGES)
def test_the_language_of_a_passage_is_identified(language: str) -> None:
    assert language_of(PASSAGES[language]) == language


@pytest.mark.parametrize("text", ["", " \n", "T-9", "12 345", "!?", "😀", "https://example.org/who/signs/the/form"])
def test_a_text_without_words_has_no_language(text: str) -> None:
    assert language_of(text) == ""
    assert not is_other_language(text, PASSAGES["de"])
    assert not is_other_language("Who signs the form of the harbour?", text)


def test_the_language_of_a_corpus_is_its_most_frequent_one() -> None:
    assert corpus_language([PASSAGES["de"], PASSAGES["fr"], PASSAGES["de"], "T-9", ""]) == "de"
    assert corpus_language(["T-9", ""]) == corpus_language([]) == ""
    # An even sample: the last texts count as the first ones do.
    assert corpus_language([PASSAGES["en"]] * 300 + [PASSAGES["fr"]] * 700, sample=10) == "fr"


def test_the_language_is_the_same_in_any_thread() -> None:
    texts = [f"{text} {number}" for number in range(25) for text in PASSAGES.values()]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(language_of, texts)) == list(PASSAGES) * 25


def test_questions_in_another_language_are_recognised() -> None:
    pairs = [
        (question, passage, asked == given)
        for asked, questions in QUESTIONS.items()
        for question in questions
        for given, passage in PASSAGES.items()
    ]
    assert not [question for question, passage, same in pairs if same and is_other_language(question, passage)]
    foreign = [is_other_language(question, passage) for question, passage, same in pairs if not same]
    assert sum(foreign) >= FEWEST_FOUND * len(foreign)


@pytest.mark.parametrize(
    ("question", "language"),
    [
        ("Kittiwake T-9 limit?", "en"),
        ("T-9", "zh"),
        ("HELM T-9", "zh"),
        ("HELM", "ru"),
        ("SARS-CoV-2 spike ACE2 binding", "en"),
        ("HELM Formular T-9?", "de"),
        ("download software Sonderurlaub", "de"),
        ("HELM系统", "zh"),
        ("休暇申請 HELM", "ja"),
    ],
)
def test_names_and_codes_belong_to_no_language(question: str, language: str) -> None:
    assert not is_other_language(question, PASSAGES[language])


def test_terms_in_another_script_are_foreign_only_if_the_passage_does_not_have_them() -> None:
    passage = "运行环境需要CUDA工具包，显存不足时请降低batch size参数，然后重新启动训练程序。"
    assert not is_other_language("CUDA batch size", passage)
    assert is_other_language("How do I restart the training?", passage)
    english = "Lower the batch size where the card has too little memory, and start the training again."
    assert is_other_language("显存不足怎么办", english)


def human_pairs(folder: Path) -> Iterator[tuple[str, str]]:
    def read(name: str) -> dict[str, str]:
        rows = map(json.loads, (folder / name).read_text(encoding="utf-8").splitlines())
        return {row["_id"]: f"{row.get('title', '')}\n{row['text']}".strip() for row in rows}

    questions, passages = read("queries.jsonl"), read("corpus.jsonl")
    for file in sorted((folder / "qrels").glob("*.tsv")):
        for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines(), delimiter="\t"):
            yield questions[row["query-id"]], passages[row["corpus-id"]]


@pytest.mark.parametrize("name", ["covidqa", "scifact", "tenk-lyft", "tenk-uber"])
def test_hardly_any_english_question_counts_as_another_language(name: str, shared_data: Path) -> None:
    pairs = list(human_pairs(shared_data / name))
    alarms = [question for question, passage in pairs if is_other_language(question, passage)]
    assert len(alarms) <= MOST_FALSE_ALARMS * len(pairs), alarms


def test_no_question_about_the_demo_counts_as_another_language(acme: Path) -> None:
    for line in (acme / "questions.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for name in row["documents"]:
            assert not is_other_language(row["text"], (acme / "documents" / name).read_text(encoding="utf-8"))


@given(question=ANY_TEXT, passage=ANY_TEXT)
@settings(max_examples=60, deadline=None)
def test_a_question_is_never_in_another_language_than_itself(question: str, passage: str) -> None:
    assert is_other_language(question, passage) in (True, False)
    assert not is_other_language(question, question)
