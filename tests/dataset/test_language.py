"""Languages other than English: identification, sentences, words, and a German and a Chinese corpus end to end."""

import csv
import json
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from llama_index.core import Document
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.node_parser.text.utils import split_by_sentence_tokenizer

from rag_ft.dataset.text.cloze import sentences
from rag_ft.dataset.text.language import NAMES, corpus_language, is_other_language, language_of
from rag_ft.dataset.text.sentences import sentences_of
from rag_ft.dataset.text.words import segmented, stop_words_of, word_count, words_of
from rag_ft.documents.nodes import cut_into_nodes, passages_from_nodes
from rag_ft.documents.reader import read_documents
from rag_ft.generation.without_llm import KEY_PHRASES, KeyPhrases, heading_queries, questions_without_llm
from rag_ft.retrieval.bm25 import BM25

LETTERS = "aZé ß.!?…;,\n\t\"'「」“”()123年假。！？；のカー한글ไทยทีកាမြन्दी।؟ـعрусελ\u0301\ud83d\U00020000"
ANY_TEXT = st.text(max_size=60) | st.text(st.sampled_from(LETTERS), max_size=60)

# Which language

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


# Sentences


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


@given(text=ANY_TEXT, language=st.sampled_from(["", "en", "zh", "ja", "th", "ko", "ka", *NAMES]) | st.none())
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


# Words


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


# BM25


def test_bm25_stems_and_leaves_out_stop_words_in_its_language() -> None:
    passages = {"tür": "Die Ausweise öffnen die Türen.", "urlaub": "Der Urlaub ist frei für die Crew und die Gäste."}
    assert BM25(passages).language == "de"
    assert BM25(passages).rank(["die der und ist", "offene Tür", "Wer öffnet?"], 2) == [[], ["tür"], ["tür"]]
    assert BM25(passages, "en").rank(["Ausweisen"], 2) == [[]]


@pytest.mark.parametrize("language", [None, "en", "de", "zh", "ka"])
@pytest.mark.parametrize("passages", [{}, {"a": ""}, {"a": "", "b": "..."}, {"a": "the der"}, {"a": "Türen", "b": ""}])
def test_bm25_of_almost_no_text_does_not_fail(passages: dict[str, str], language: str | None) -> None:
    bm25 = BM25(passages, language)
    assert bm25.rank(["", "!?", "unknown", "到底"], 5) == [[]] * 4
    assert bm25.rank([], 5) == []


def test_bm25_ranks_in_chunks_as_it_ranks_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    words = [f"w{number}" for number in range(40)]
    bm25 = BM25({f"p{number}": " ".join(draw.choices(words, k=12)) for number in range(50)}, "en")
    queries = [" ".join(draw.choices([*words, "the"], k=draw.randint(0, 3))) for _ in range(25)]
    whole = bm25.rank(queries, 5)
    monkeypatch.setattr(sys.modules[BM25.__module__], "BATCH_SIZE", 4)
    assert bm25.rank(queries, 5) == whole == [bm25.rank([query], 5)[0] for query in queries]


# A German and a Chinese corpus


GERMAN = {
    "urlaub": """# Urlaub

Alle Beschäftigten der Möwe Werft haben im Jahr achtundzwanzig Tage bezahlten Urlaub. Der Antrag wird spätestens
zehn Arbeitstage vor dem ersten Urlaubstag im Portal KOGGE gestellt. Die Schichtleitung entscheidet binnen drei
Tagen, d. h. auch in der Ferienzeit. Resturlaub verfällt am 31. März des folgenden Jahres.

## Sonderurlaub aus wichtigem Grund

Für Umzug, Hochzeit oder einen Trauerfall gibt es nach § 4 Abs. 2 der Ordnung zwei Tage Sonderurlaub. Der
Nachweis wird mit Formular W-3 bei der Personalstelle eingereicht.""",
    "reisen": """# Dienstreisen

Eine Dienstreise wird vor dem Kauf der Fahrkarte von der Abteilungsleitung genehmigt. Bahnfahrten werden in der
zweiten Klasse gebucht, ab vier Stunden Fahrzeit auch in der ersten. Wer mit dem eigenen Auto fährt, bekommt
eine Kilometerpauschale von 30 Cent.

## Abrechnung der Reisekosten

Belege, z. B. Hotelrechnungen, werden innerhalb von vierzehn Tagen mit Formular R-7 abgerechnet. Ohne Beleg
erstattet die Buchhaltung höchstens 15 Euro je Tag.""",
    "heimarbeit": """# Arbeiten von zu Hause

An zwei Tagen je Woche darf von zu Hause gearbeitet werden, sofern die Werkbank nicht besetzt sein muss. Die
Vereinbarung gilt zwölf Monate und wird danach neu unterschrieben. Für den Schreibtisch zahlt die Werft einmalig
einen Zuschuss von 240 Euro.

## Erreichbarkeit während der Heimarbeit

Von neun bis fünfzehn Uhr ist man über das Funktelefon erreichbar. Vertrauliche Zeichnungen dürfen das
Werftgelände nicht verlassen.""",
    "krankheit": """# Krankmeldung

Wer krank ist, meldet sich vor Schichtbeginn bei der Schichtleitung und nicht nur bei Kolleginnen oder Kollegen.
Eine ärztliche Bescheinigung ist ab dem dritten Tag nötig. Während der ersten sechs Wochen wird der Lohn
weitergezahlt.

## Wiedereingliederung nach langer Krankheit

Nach sechs Wochen Krankheit lädt Dr. Petersen vom betriebsärztlichen Dienst zu einem Gespräch ein. Die
Stundenzahl steigt dann stufenweise, bzw. so, wie es der Plan festlegt.""",
    "ausweise": """# Werksausweise und Schlüssel

Der Werksausweis wird im Hafengelände sichtbar getragen und niemals verliehen. Ein verlorener Ausweis wird
sofort bei der Pforte gemeldet, damit er gesperrt werden kann. Der Ersatz kostet beim zweiten Verlust 25 Euro.

## Besuch auf dem Werftgelände

Gäste werden einen Tag vorher angemeldet und an der Pforte abgeholt. Sie tragen einen gelben Ausweis, der am
Abend zurückgegeben wird.""",
    "passwoerter": """# Passwörter und Geräte

Ein Passwort hat mindestens vierzehn Zeichen und wird nur für einen Dienst verwendet. Der zweite Faktor kommt
aus der App LOTSE auf dem Diensthandy. Verdächtige Nachrichten werden ungeöffnet an die Wache für
Informationssicherheit weitergeleitet.

## Verlust eines Geräts

Der Verlust eines Laptops wird binnen einer Stunde gemeldet, notfalls telefonisch unter Nr. 112 im Hausnetz. Die
Daten werden aus der Ferne gelöscht.""",
    "beschaffung": """# Einkauf und Bestellungen

Bestellungen bis 500 Euro gibt die Gruppenleitung frei, darüber entscheidet die kaufmännische Leitung. Ab 5000
Euro werden drei Angebote eingeholt und mit Formular B-2 verglichen. Rahmenverträge gehen immer vor.

## Neue Lieferanten

Ein neuer Lieferant wird vor der ersten Bestellung von der Buchhaltung geprüft. Dazu reicht er seine
Bankverbindung und eine Selbstauskunft ein.""",
    "arbeitsschutz": """# Arbeitsschutz in den Hallen

In allen Hallen gelten Helmpflicht und Schutzschuhe der Klasse S3. Schweißarbeiten brauchen einen
Erlaubnisschein, der nur für eine Schicht gilt. Die Brandwache bleibt nach dem Schweißen noch zwei Stunden vor
Ort.

## Unfälle und Beinaheunfälle

Jeder Unfall wird noch am selben Tag ins Verbandbuch eingetragen. Beinaheunfälle kann man auch ohne Namen über
den blauen Briefkasten melden.""",
    "ausbildung": """# Ausbildung und Weiterbildung

Jede und jeder Beschäftigte hat Anspruch auf fünf Tage Weiterbildung im Jahr. Die Kosten übernimmt die Werft,
wenn der Kurs vorher mit der Bildungsstelle abgestimmt wurde. Wer kündigt, zahlt Kurse über 2000 Euro anteilig
zurück.

## Auszubildende in der Prüfungszeit

Vor der Abschlussprüfung sind Auszubildende an drei Tagen von der Arbeit freigestellt. Das Berichtsheft wird
wöchentlich von der Ausbilderin unterschrieben.""",
    "arbeitszeit": """# Arbeitszeit und Überstunden

Die Woche hat achtunddreißig Stunden, verteilt auf Früh-, Spät- und Nachtschicht. Überstunden werden vorher
angeordnet und später durch freie Zeit ausgeglichen. Das Zeitkonto darf nicht mehr als sechzig Stunden im Plus
stehen.

## Zuschläge für Nacht und Sonntag

Für Nachtarbeit wird ein Zuschlag von 25 Prozent gezahlt, an Sonntagen sind es 50 Prozent. Der Tausch einer
Schicht wird im Portal KOGGE eingetragen.""",
    "elternzeit": """# Elternzeit und Rückkehr

Elternzeit wird sieben Wochen vor ihrem Beginn schriftlich bei der Personalstelle angemeldet. Bis zu drei Jahre
bleibt der Arbeitsplatz erhalten. In dieser Zeit darf man bis zu zweiunddreißig Stunden in der Woche arbeiten.

## Kinderbetreuung der Werft

Im Werkskindergarten Seestern stehen vierzig Plätze bereit. Die Plätze vergibt der Betriebsrat jeweils im
Februar nach Schichtplan und Wohnort.""",
    "kuendigung": """# Kündigung und Ausscheiden

Eine Kündigung braucht die Schriftform und eine Frist von vier Wochen zum Monatsende. In der Probezeit von sechs
Monaten beträgt die Frist zwei Wochen. Am letzten Tag werden Ausweis, Laptop und Werkzeug gegen Quittung
abgegeben.

## Arbeitszeugnis

Das Arbeitszeugnis wird innerhalb von drei Wochen ausgestellt. Änderungswünsche nimmt die Personalstelle mit
Formular Z-1 entgegen.""",
}
GERMAN_QUESTIONS = {
    "Wie viele Tage Urlaub habe ich im Jahr?": "urlaub",
    "Wann bekomme ich Sonderurlaub für einen Umzug?": "urlaub",
    "Bis wann muss ich Belege für eine Reise abrechnen?": "reisen",
    "Gibt es einen Zuschuss für den Schreibtisch zu Hause?": "heimarbeit",
    "Ab wann brauche ich eine Bescheinigung vom Arzt?": "krankheit",
    "Was tun, wenn der Ausweis verloren ging?": "ausweise",
    "Wie lang muss ein Passwort sein?": "passwoerter",
    "Wer gibt eine Bestellung frei?": "beschaffung",
    "Wie lange bleibt die Brandwache nach Schweißarbeiten?": "arbeitsschutz",
    "Wie hoch ist der Zuschlag für Arbeit in der Nacht?": "arbeitszeit",
    "Welche Frist gilt für Kündigungen in der Probezeit?": "kuendigung",
}
CHINESE = {
    "年假": """# 年假

海灯船厂的每位员工每年享有二十八天带薪年假。年假申请须在休假首日前至少十个工作日通过“船钟”系统提交。班组长应在三天内答复，节假日也不例外。
上一年没有用完的年假在三月三十一日作废。

## 特殊假期的申请办法

搬家、结婚或亲人去世时，员工可以申请两天特殊假期。证明材料与W-3表格一起交给人事处。""",
    "出差": """# 出差

出差必须在购买车票之前得到部门经理的批准。乘坐火车时一般购买二等座，行程超过四小时可以购买一等座。自己开车出差的员工每公里补贴两元。

## 差旅费用的报销

住宿发票等单据应在十四天内与R-7表格一起报销。没有发票的，财务处每天最多报销一百元。""",
    "居家办公": """# 居家办公

每周最多两天可以居家办公，前提是当天不需要在车间值班。居家办公协议有效期为十二个月，到期后需要重新签字。船厂为购买书桌提供一次性补贴一千五百元。

## 居家办公期间的联系方式

上午九点到下午三点之间必须能够通过电话联系到本人。保密图纸不得带出厂区。""",
    "病假": """# 病假

生病的员工应在上班之前告诉班组长，只告诉同事是不够的。从第三天起需要提供医院开具的病假证明。前六个星期的工资照常发放。

## 长期病假之后的复工

病假超过六个星期的员工由厂医安排一次谈话。复工后的工作时间按照计划逐步增加。""",
    "门卡": """# 门卡和钥匙

在厂区内必须佩戴门卡，门卡不得借给他人。门卡丢失后应立即报告门卫，以便及时停用。第二次丢失门卡的补办费用为五十元。

## 访客进入厂区

访客须提前一天登记，由接待人到大门迎接。访客佩戴黄色门卡，离开时交还。""",
    "密码": """# 密码和设备

密码至少十四个字符，而且每个密码只能用于一个系统。第二道验证由工作手机上的“领航”应用完成。可疑邮件不要打开，直接转给信息安全值班室。

## 设备丢失的处理

笔记本电脑丢失后应在一小时之内报告。信息安全值班室会远程删除电脑里的数据。""",
    "采购": """# 采购

五千元以下的采购由组长批准，超过五千元的采购由商务经理决定。超过五万元时必须取得三家供应商的报价，并用B-2表格比较。已有框架合同的优先使用框架合同。

## 新供应商的审查

新供应商在第一次采购之前由财务处审查。供应商须提交银行账户和自查说明。""",
    "安全生产": """# 安全生产

进入车间必须戴安全帽并穿防护鞋。焊接作业需要动火许可证，许可证只在一个班次内有效。焊接结束后，看火员还要在现场停留两个小时。

## 事故和未遂事故

发生事故的当天必须填写事故登记簿。未遂事故可以通过蓝色信箱匿名报告。""",
    "培训": """# 培训

每位员工每年可以参加五天培训。课程事先得到培训中心同意的，培训费用由船厂承担。辞职的员工要按比例退还两万元以上的培训费用。

## 学徒的考试

学徒在毕业考试之前有三天不用上班。实习日志每周由师傅签字。""",
    "加班": """# 工作时间和加班

每周工作三十八小时，分为早班、中班和夜班。加班必须事先安排，事后用调休抵扣。工时账户的余额不得超过六十小时。

## 夜班和周日的补贴

夜班补贴为工资的百分之二十五，周日为百分之五十。换班须在“船钟”系统里登记。""",
    "育儿假": """# 育儿假

育儿假须在开始之前七个星期向人事处书面申请。工作岗位最多保留三年。育儿假期间每周可以工作不超过三十二小时。

## 船厂的幼儿园

“海星”幼儿园共有四十个名额。名额由工会在每年二月根据班次和住址分配。""",
    "离职": """# 离职

辞职必须采用书面形式，并提前四个星期通知人事处。六个月试用期之内的通知期为两个星期。离职当天须交还门卡、笔记本电脑和工具，并领取收据。

## 离职证明

离职证明在三个星期之内开具。需要修改的，用Z-1表格向人事处提出。""",
}
CHINESE_QUESTIONS = {
    "我一年有多少天年假？": "年假",
    "没用完的年假什么时候作废？": "年假",
    "发票要在几天内报销？": "出差",
    "在家办公买书桌有补贴吗？": "居家办公",
    "请病假第几天要医院证明？": "病假",
    "门卡丢了怎么办？": "门卡",
    "密码要多少个字符？": "密码",
    "采购要几家供应商报价？": "采购",
    "焊接以后看火员要停留多久？": "安全生产",
    "夜班补贴是多少？": "加班",
    "试用期辞职提前多久通知？": "离职",
}


CORPORA = {"de": (GERMAN, GERMAN_QUESTIONS), "zh": (CHINESE, CHINESE_QUESTIONS)}


@pytest.fixture(params=CORPORA)
def language(request: pytest.FixtureRequest) -> str:
    return request.param


def documents(language: str) -> list[Document]:
    return [Document(text=text, id_=name, metadata={}) for name, text in CORPORA[language][0].items()]


def test_nodes_end_at_sentence_ends(language: str) -> None:
    nodes = cut_into_nodes(documents(language), chunk_size=96)
    assert len(nodes) > len(CORPORA[language][0])
    texts = CORPORA[language][0]
    for node in nodes:
        assert node.text[-1] in ".。"
        assert not node.text.endswith(("z.", "Abs.", "Dr.", "Nr.", "31."))
        assert node.text in texts[node.ref_doc_id or ""]


def test_every_document_is_cut_by_the_rules_of_its_language() -> None:
    both = documents("zh") + documents("de") + [Document(text="T-9", id_="code")]
    apart = cut_into_nodes(documents("zh"), 96) + cut_into_nodes(documents("de"), 96)
    assert [(node.node_id, node.text) for node in cut_into_nodes(both, 96)] == [
        *((node.node_id, node.text) for node in apart),
        ("code#0", "T-9"),
    ]


def test_a_sentence_longer_than_a_node_is_cut_at_its_commas() -> None:
    clauses = ["年假须在休假首日之前提出申请", "班组长应在三天之内答复", "节假日也不例外"] * 8
    for node in cut_into_nodes([Document(text="，".join(clauses), id_="long")], chunk_size=48):
        assert set(node.text.strip("，").split("，")) <= set(clauses)


def test_english_nodes_equal_those_of_llama_index_and_link_to_their_neighbours(acme: Path) -> None:
    source = read_documents(acme / "documents")
    expected = SentenceSplitter(chunk_size=256, chunk_overlap=0).get_nodes_from_documents(source)
    nodes = cut_into_nodes(source)
    assert [(node.ref_doc_id, node.text) for node in nodes] == [(node.ref_doc_id, node.text) for node in expected]
    ids = {node.node_id for node in nodes}
    assert {node.next_node.node_id for node in nodes if node.next_node} <= ids
    assert {node.prev_node.node_id for node in nodes if node.prev_node} <= ids


def test_the_first_passages_answer_the_question(language: str) -> None:
    passages = passages_from_nodes(cut_into_nodes(documents(language), chunk_size=96))
    bm25 = BM25({key: passage.text for key, passage in passages.items()})
    assert bm25.language == language
    questions = CORPORA[language][1]
    for (question, document), found in zip(questions.items(), bm25.rank(list(questions), 3), strict=True):
        assert document in {passages[key].document for key in found}, question


def test_sentence_and_heading_questions_are_complete(language: str) -> None:
    for passage in passages_from_nodes(cut_into_nodes(documents(language))).values():
        found = sentences(passage.text)
        assert found
        assert all(sentence[-1] in ".。" and "#" not in sentence for sentence in found)
        assert all(f"# {heading}" in passage.text for heading in heading_queries(passage))


def test_key_phrases_are_terms_of_the_passage(language: str) -> None:
    texts = list(CORPORA[language][0].values())
    phrases = KeyPhrases(texts)
    for place, text in enumerate(texts):
        found = (phrases.query(text, random.Random(place)) or "").split()
        assert len(found) >= 3
        assert all(term in text.lower() for term in found)
        assert all(len(term) >= 2 and term not in stop_words_of(language) for term in found)
    if language == "zh":
        terms = {term for text in texts for term in phrases.query(text, random.Random(0)).split()}
        assert {"年假", "门卡", "报销"} & terms


@given(texts=st.lists(ANY_TEXT, max_size=4))
@settings(max_examples=40, deadline=None)
def test_key_phrases_of_any_text_are_in_it(texts: list[str]) -> None:
    phrases = KeyPhrases(texts)
    for text in texts:
        for term in (phrases.query(text, random.Random(0)) or "").split():
            assert term in text.lower()


def test_questions_find_their_passages_again(language: str) -> None:
    passages = passages_from_nodes(cut_into_nodes(documents(language), chunk_size=128))
    made = questions_without_llm(list(passages.values()))
    assert {query.source for query, _ in made} == {"sentence", "heading", KEY_PHRASES}
    ranked = BM25({key: passage.text for key, passage in passages.items()}).rank([query.text for query, _ in made], 20)
    assert all(passage in found for (_, passage), found in zip(made, ranked, strict=True))


def test_a_corpus_becomes_a_dataset(language: str) -> None:
    from rag_ft import generate_qa_dataset

    dataset = generate_qa_dataset(cut_into_nodes(documents(language), chunk_size=128), use_llm=False).dataset
    assert dataset.splits == ["train", "dev", "test"]
    assert all(len(dataset.qrels[split]) >= 5 for split in dataset.splits)
    for split in dataset.splits:
        for query, answers in dataset.qrels[split].items():
            text = dataset.queries[query].text
            assert word_count(text) >= 3
            assert not any(is_other_language(text, dataset.passages[answer].text) for answer in answers)
