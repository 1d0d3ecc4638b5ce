"""The comparison on the terminal, as HTML and as Markdown."""

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fakes.comparisons import ARABIC, ATTACK, TRAINING, compared, dataset_of, ranking, runs_of
from rich.console import Console

from rag_ft import Passage, QADataset, Query
from rag_ft.ab.answers import JudgedAnswers
from rag_ft.errors import InputError
from rag_ft.evaluation import Comparison, score_runs
from rag_ft.evaluation.comparison_table import comparison_text, print_comparison
from rag_ft.evaluation.significance import Difference
from rag_ft.feedback.tally import Tally
from rag_ft.report import to_markdown, write_report


class Page(HTMLParser):
    """A parsed report: its elements, and its text outside of scripts and styles."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self._data = ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = "data" if ("type", "application/json") in attrs else tag
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "data":
            self._data += data
        elif self._inside not in ("script", "style"):
            self.text += data

    @property
    def questions(self) -> dict:
        """The data of the table of questions."""
        return json.loads(self._data)

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def dataset() -> QADataset:
    return dataset_of(50)


@pytest.fixture(scope="module")
def comparison(dataset: QADataset) -> Comparison:
    return compared(dataset)


def test_given_a_comparison_when_it_is_printed_then_all_models_the_verdict_and_both_slices_are_there(
    comparison: Comparison,
) -> None:
    lines = str(comparison).splitlines()
    rows = [line.split()[0] for line in lines if line.split()[1:2] and line.split()[1].count(".") == 1]
    assert [row for row in rows if row in ("baseline", "candidate", "bm25")] == ["baseline", "candidate", "bm25"]
    assert any(line.startswith("ship: nDCG@10 rose") for line in lines)
    assert any(line.startswith("new questions on seen documents") for line in lines)
    assert any(line.startswith("unseen documents") for line in lines)


def test_given_one_kind_of_question_when_printed_then_the_empty_slice_is_left_out(dataset: QADataset) -> None:
    untrained = dataset.with_qrels({"test": dataset.qrels["test"]})
    text = str(compared(untrained))
    assert "unseen documents" in text
    assert " seen documents" not in text


def test_given_80_columns_when_printed_then_no_figure_is_cut(comparison: Comparison) -> None:
    text = io.StringIO()
    print_comparison(comparison, Console(file=text, width=80, color_system=None))
    assert max(len(line) for line in text.getvalue().splitlines()) <= 80
    assert "…" not in text.getvalue()
    assert text.getvalue().count(str(comparison.differences["candidate"]["ndcg@10"])) >= 1


def test_given_markup_in_a_name_when_printed_then_it_is_shown_as_it_is(dataset: QADataset) -> None:
    text = comparison_text(compared(dataset, candidate_name="[red]tuned[/red] [/]"))
    assert "candidate: [red]tuned[/red] [/]" in text


def test_given_a_color_terminal_when_printed_then_the_best_is_bold_and_the_verdict_has_colour(
    comparison: Comparison,
) -> None:
    text = io.StringIO()
    print_comparison(comparison, Console(file=text, width=100, force_terminal=True, color_system="standard"))
    assert "\x1b[1m1.000\x1b[0m" in text.getvalue()
    assert "\x1b[1;32mship\x1b[0m" in text.getvalue()
    assert "\x1b" not in comparison_text(comparison)


def test_given_everything_when_reported_then_the_verdict_is_first_and_every_part_follows(
    comparison: Comparison, dataset: QADataset, tmp_path: Path
) -> None:
    made = dataset.with_info({"dropped": {"repeated": 7, "copies the passage": 2}})
    file = tmp_path / "out" / "report.html"
    page = Page(write_report(comparison, file, made, TRAINING, "my run", "rag-ft compare policies"))
    parts = [
        "Ship it: retrieval improved",
        "the 95 % interval lies above 0",
        "All metrics",
        "paired randomisation gives p < 0.001",
        "nDCG@10 of each model",
        "Hit rate: answered within",
        "Rank of the relevant passage, before and after",
        "Where the gain comes from",
        "Every question",
        "0.625",
        "12 sentence, 28 human",
        "Questions that the filters dropped",
        "How it was measured",
        "99.8 %",
        "How to reproduce it",
        "rag-ft compare policies",
        "sentence-transformers",
    ]
    places = [page.words.find(part) for part in parts]
    assert -1 not in places
    assert places == sorted(places)
    assert next(tag for tag, _ in page.elements if tag in ("h1", "h2", "table")) == "h1"


def test_given_a_report_when_opened_then_nothing_is_loaded_from_anywhere(
    comparison: Comparison, dataset: QADataset, tmp_path: Path
) -> None:
    file = write_report(comparison, tmp_path / "report.html", dataset, TRAINING)
    page = Page(file)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert not [tag for tag, _ in page.elements if tag in ("link", "img", "iframe", "object", "embed")]
    addresses = [
        value for _, found in page.elements for name, value in found.items() if name in ("src", "href", "xlink:href")
    ]
    assert addresses
    assert all(address is not None and address.startswith("#") for address in addresses)
    text = file.read_text(encoding="utf-8")
    assert not any(word in text for word in ("http://", "https://", "@import"))
    assert text.count("url(") == text.count("url(#")


def test_given_a_kept_base_model_when_reported_then_the_reason_and_the_rejected_candidates_are_there(
    comparison: Comparison, dataset: QADataset, tmp_path: Path
) -> None:
    training = TRAINING["training"] | {
        "share": 0, "base_stays_because": f"every candidate was rejected {ATTACK}", "findings": ["train longer"],
        "refused": {"share 0.5": "its gain on dev may be chance"},
        "refused_gains": {"share 0.5": {"mean": 0.125, "ci95": [-0.1, 0.3]}},
    }  # fmt: skip
    file = write_report(comparison, tmp_path / "report.html", dataset, TRAINING | {"training": training})
    page = Page(file)
    for said in (
        f"The base model is kept: every candidate was rejected {ATTACK}.",
        "alpha 0.5 has the highest dev score",
        "alpha 0.5 (dev +0.125 [-0.100, +0.300]): its gain on dev may be chance",
        "train longer",
    ):
        assert page.words.count(said) == 1
    assert "<script>alert(" not in file.read_text(encoding="utf-8")
    tuned = Page(write_report(comparison, tmp_path / "tuned.html", dataset, TRAINING)).words
    assert "Training selected the tuned model at alpha 0.5: dev nDCG@10 0.500 -> 0.625 (+0.125)." in tuned


def test_given_several_plots_then_no_two_elements_have_one_id(
    comparison: Comparison, dataset: QADataset, tmp_path: Path
) -> None:
    page = Page(write_report(comparison, tmp_path / "report.html", dataset, TRAINING))
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    pictures = [found for tag, found in page.elements if tag == "svg"]
    assert len(pictures) == 5
    assert all(set((found["aria-labelledby"] or "").split()) <= set(ids) for found in pictures)
    assert not re.search("#0000[a-f]", (tmp_path / "report.html").read_text(encoding="utf-8"))


def test_given_the_same_comparison_then_the_report_is_the_same(
    comparison: Comparison, dataset: QADataset, tmp_path: Path
) -> None:
    one, other = (write_report(comparison, tmp_path / name, dataset, TRAINING) for name in ("one.html", "other.html"))
    assert one.read_bytes() == other.read_bytes()


def test_given_a_passage_with_html_when_reported_then_it_is_text(
    comparison: Comparison, dataset: QADataset, tmp_path: Path
) -> None:
    file = write_report(comparison, tmp_path / "report.html", dataset, {"base_model": ATTACK, **TRAINING}, ATTACK)
    page = Page(file)
    assert sum(tag == "script" for tag, _ in page.elements) == 2  # the questions, and what shows them
    assert sum(tag == "b" for tag, _ in page.elements) == 0
    assert "<script>alert(" not in file.read_text(encoding="utf-8")
    assert page.text.count(ATTACK) >= 2
    assert ["<b>evil</b>.md", ATTACK] in page.questions["passages"]
    assert ["section-3", ARABIC] in page.questions["passages"]


def test_given_a_lone_surrogate_in_a_document_when_reported_then_the_report_is_written(
    dataset: QADataset, tmp_path: Path
) -> None:
    broken = QADataset(
        dataset.passages | {"p5a": Passage("p5a", "half \ud83d", doc_id="section-5")}, dataset.queries, dataset.qrels
    )
    page = Page(write_report(compared(broken), tmp_path / "report.html", broken))
    assert ["section-5", "half ?"] in page.questions["passages"]


@pytest.mark.parametrize(
    ("baseline", "candidate", "expected", "verdict"),
    [
        (4, 1, "higher for 75, lower for 0", "Ship it"),
        (None, 2, "higher for 75, lower for 0", "Ship it"),
        (1, 3, "higher for 0, lower for 75", "Keep the baseline"),
        (2, 2, "the same for 75", "Keep the baseline"),
    ],
)
def test_given_ranks_before_and_after_when_reported_then_the_rank_changes_are_there(
    dataset: QADataset, tmp_path: Path, baseline: int | None, candidate: int, expected: str, verdict: str
) -> None:
    page = Page(write_report(compared(dataset, baseline, candidate), tmp_path / "report.html", dataset))
    assert expected in page.words
    assert verdict in page.words
    assert {(row["b"], row["a"]) for row in page.questions["rows"]["candidate"]} == {(baseline, candidate)}


def test_given_wins_and_regressions_then_the_largest_come_first(tmp_path: Path) -> None:
    large = dataset_of(200)
    wanted = [next(iter(relevant)) for relevant in large.qrels["test"].values()]
    lost = 20
    rankings = {
        "baseline": [ranking(large, passage, 2 if place < lost else None) for place, passage in enumerate(wanted)],
        "candidate": [ranking(large, passage, 3 if place < lost else 1) for place, passage in enumerate(wanted)],
    }
    comparison = score_runs(large, "test", runs_of(rankings, {"baseline": "base", "candidate": "tuned"}))
    rows = Page(write_report(comparison, tmp_path / "report.html", large)).questions["rows"]["candidate"]
    assert [(row["b"], row["a"]) for row in rows] == [(None, 1)] * (len(wanted) - lost) + [(2, 3)] * lost


def test_given_several_candidates_then_each_is_in_every_part(dataset: QADataset, tmp_path: Path) -> None:
    wanted = [next(iter(relevant)) for relevant in dataset.qrels["test"].values()]
    ranks = {"baseline": 4, "candidate": 1, "candidate-2": 6, "candidate-3": 2, "hybrid-baseline": 3, "bm25": None}
    rankings = {role: [ranking(dataset, passage, rank) for passage in wanted] for role, rank in ranks.items()}
    comparison = score_runs(dataset, "test", runs_of(rankings, {role: f"model {role}" for role in ranks}))
    assert comparison.evidence["candidate-2"].adjusted_p is not None
    page = Page(write_report(comparison, tmp_path / "report.html", dataset))
    assert list(page.questions["rows"]) == ["candidate", "candidate-2", "candidate-3"]
    assert "Holm’s correction for 3 candidates" in page.words
    assert page.words.count("Rank of the relevant passage, before and after") >= 3
    markdown = to_markdown(comparison, dataset)
    assert all(f"| {role}: model {role} |" in markdown for role in ranks)


def test_given_a_comparison_from_a_file_when_printed_and_reported_then_only_single_questions_are_missing(
    comparison: Comparison, dataset: QADataset, tmp_path: Path
) -> None:
    loaded = Comparison.load(comparison.save(tmp_path / "comparison.json"))
    assert loaded.to_dict() == comparison.to_dict()
    assert str(loaded) == str(comparison)
    page = Page(write_report(loaded, tmp_path / "report.html", dataset, TRAINING))
    assert "Ship it: retrieval improved" in page.text
    assert "nDCG@10 of each model" in page.text
    assert "Every question" not in page.text


def test_given_questions_on_one_document_when_shown_then_an_unknown_interval_is_said_in_words(tmp_path: Path) -> None:
    small = dataset_of(1).with_qrels({"test": {"q-p0a": {"p0a": 1}}})
    comparison = compared(small, baseline=None)
    comparison = Comparison.load(comparison.save(tmp_path / "comparison.json"))
    words = Page(write_report(comparison, tmp_path / "report.html")).words
    assert "[not known]" in str(comparison)
    assert "Keep the baseline for now" in words
    assert "95 % interval not known" in words
    assert "inf" not in str(comparison).split()


def test_given_another_dataset_when_reported_then_it_is_refused(comparison: Comparison, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pass the dataset of the comparison"):
        write_report(comparison, tmp_path / "report.html", dataset_of(20))
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(InputError, match="pass the dataset of the comparison"):
        to_markdown(comparison, dataset_of(20))


def test_given_no_candidate_when_reported_then_it_is_refused(comparison: Comparison, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the comparison has no candidate"):
        write_report(replace(comparison, verdicts={}), tmp_path / "report.html")


def test_given_questions_of_several_kinds_then_each_kind_is_a_slice(tmp_path: Path) -> None:
    passages = {f"p{n}": Passage(f"p{n}", f"Leave number {n} is booked in HELM.", doc_id=f"d{n}") for n in range(60)}
    asked = [
        "Where is leave booked?",
        "How might anybody ever get a few days off work without asking twice before noon today?",
    ]
    queries = {f"q{n}": Query(f"q{n}", asked[n % 2], "" if n % 2 else "sentence") for n in range(60)}
    mixed = QADataset(passages, queries, {"test": {f"q{n}": {f"p{n}": 1} for n in range(60)}})
    comparison = compared(mixed)
    assert {name: part.queries for name, part in comparison.aspects.items()} == {
        "few words in common": 30,
        "most words in common": 30,
        "short (up to 6 words)": 30,
        "long (over 15 words)": 30,
        "asked by people": 30,
        "sentence": 30,
    }
    assert "few words in common" in str(comparison)
    assert Comparison.load(comparison.save(tmp_path / "c.json")).aspects == comparison.aspects
    assert "few words in common" in Page(write_report(comparison, tmp_path / "report.html", mixed)).words


def test_given_a_name_with_markup_then_markdown_shows_it_as_it_is(dataset: QADataset) -> None:
    markdown = to_markdown(compared(dataset, 4, 1, "a|b <i>@somebody</i> `x` #12"), dataset)
    assert "candidate: a\\|b &lt;i&gt;&#64;somebody&lt;/i&gt; \\`x\\` &#35;12 |" in markdown
    table = [line for line in markdown.splitlines() if line.startswith("| candidate")]
    assert table[0].replace("\\|", "").count("|") == 9
    assert markdown.startswith("## Ship the candidate")
    assert "| What does p0a say? | 4 | 1 |" in markdown


def test_given_test_questions_that_train_has_too_then_a_note_says_so(dataset: QADataset) -> None:
    leaking = dataset.with_qrels({"train": dataset.qrels["test"], "test": dataset.qrels["test"]})
    assert any("75 of 75 questions are also in train" in note for note in compared(leaking).notes)


def test_given_passages_that_are_cut_and_few_documents_then_they_are_slices(tmp_path: Path) -> None:
    passages = {
        f"p{n}": Passage(f"p{n}", f"Rule {n} of {n * 7919} is about {n * 104729}.", doc_id=f"d{n % 3}")
        for n in range(75)
    }
    queries = {f"q{n}": Query(f"q{n}", f"What about {n * 7919}?") for n in range(75)}
    few = QADataset(passages, queries, {"test": {f"q{n}": {f"p{n}": 1} for n in range(75)}})
    wanted = [f"p{n}" for n in range(75)]
    rankings = {
        role: [ranking(few, passage, rank) for passage in wanted] for role, rank in (("baseline", 2), ("candidate", 1))
    }
    comparison = score_runs(few, "test", runs_of(rankings), characters_read={f"p{n}": 10 for n in range(30)})
    assert comparison.aspects["truncated passages"].queries == 30
    assert [comparison.aspects[f"document d{n}"].queries for n in range(3)] == [25, 25, 25]
    assert "document d2" in Page(write_report(comparison, tmp_path / "report.html", few)).words


def test_given_judged_answers_then_both_answers_are_shown_as_text(comparison: Comparison, tmp_path: Path) -> None:
    judged = JudgedAnswers(
        verdict="ship",
        reason="the judge's verdicts prefer b",
        difference=Difference(0.4, (0.1, 0.7), 0.01),
        tally=Tally(queries=3, a=1, b=2),
        disagreed=0,
        failed={"a": 0, "b": 0, "judge": 0},
        scores={"faithfulness": Difference(0.5, (0.2, 0.8), 0.01)},
        means={"faithfulness": {"a": 0.25, "b": 0.75}},
        answers={
            "won": {"a": "no", "b": ATTACK},
            "lost": {"a": ARABIC, "b": "no"},
            "also won": {"a": "no", "b": "yes"},
        },
        better={"won": "b", "lost": "a", "also won": "b"},
    )
    page = Page(write_report(comparison, tmp_path / "report.html", answers=judged))
    assert ATTACK in page.text
    assert ARABIC in page.text
    assert page.text.index("lost") < page.text.index("won")
    assert "a (in use) 1, b 2, ties 0" in page.text
    assert "0.250" in page.text
    assert "0.750" in page.text
    assert "Answers, judged by an LLM" in to_markdown(comparison, answers=judged)
    assert "Answers, judged" not in to_markdown(comparison)
