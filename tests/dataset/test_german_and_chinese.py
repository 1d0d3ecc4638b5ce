"""BM25 by language, and a German and a Chinese corpus end to end: nodes, questions, dataset."""

import random
import sys
from pathlib import Path

import pytest
from fakes.texts import ANY_TEXT
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core import Document
from llama_index.core.node_parser import SentenceSplitter

from rag_ft.dataset.text.cloze import sentences
from rag_ft.dataset.text.language import is_other_language
from rag_ft.dataset.text.words import stop_words_of, word_count
from rag_ft.documents.nodes import cut_into_nodes, passages_from_nodes
from rag_ft.documents.reader import read_documents
from rag_ft.generation.without_llm import KEY_PHRASES, KeyPhrases, heading_queries, questions_without_llm
from rag_ft.retrieval.bm25 import BM25

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
