"""Wins and regressions: ranks, passages ranked above, causes; as a file; regressions for the next round."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.comparisons import compared, dataset_of, ranking, runs_of
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rag_ft import Passage, QADataset, Query, load_dataset
from rag_ft.cli import app
from rag_ft.dataset import merge_datasets, read_labelled_pairs, write_beir
from rag_ft.dataset.splitting import split_questions
from rag_ft.errors import InputError
from rag_ft.evaluation import CompareOptions, Comparison, score_runs
from rag_ft.evaluation.failure_causes import COPY, CUT_OFF, JARGON, NEAR_DUPLICATE, FailureCauses
from rag_ft.evaluation.next_round import prepare_next_round, write_regressions
from rag_ft.evaluation.rank_changes import RankChange, compute_rank_changes, largest
from rag_ft.evaluation.truncation import characters_read
from rag_ft.report.query_table import write_questions

LONG = "Leave is booked in HELM by noon of the day before. " * 3


def harbour(documents: int = 60) -> QADataset:
    """A question on each document, in its own words; the even documents train with another question."""
    passages = {
        f"p{n}": Passage(f"p{n}", f"Berth {n * 7919} belongs to the vessel {n * 104729}.", doc_id=f"d{n}")
        for n in range(documents)
    }
    queries = {f"q{n}": Query(f"q{n}", f"Where does vessel {n * 104729} lie?") for n in range(documents)}
    queries |= {f"t{n}": Query(f"t{n}", f"Whose is berth {n * 7919}?") for n in range(0, documents, 2)}
    return QADataset(
        passages,
        queries,
        {
            "train": {f"t{n}": {f"p{n}": 1} for n in range(0, documents, 2)},
            "test": {f"q{n}": {f"p{n}": 1} for n in range(documents)},
        },
    )


def compared_ranks(dataset: QADataset, baseline: int | None = 1, candidate: int | None = 3) -> Comparison:
    relevant = [next(iter(grades)) for grades in dataset.qrels["test"].values()]
    ranks = {"baseline": baseline, "candidate": candidate}
    rankings = {role: [ranking(dataset, passage, rank) for passage in relevant] for role, rank in ranks.items()}
    return score_runs(dataset, "test", runs_of(rankings, {"baseline": "base", "candidate": "tuned"}))


@settings(deadline=None, max_examples=50)
@given(st.one_of(st.none(), st.integers(1, 130)), st.one_of(st.none(), st.integers(1, 130)))
def test_every_question_has_its_ranks_and_the_passages_above_its_answer(before: int | None, after: int | None) -> None:
    dataset = dataset_of(70)
    query, relevant = next(iter(dataset.qrels["test"].items()))
    single = dataset.with_qrels({"test": {query: relevant}})
    rankings = {
        "baseline": [ranking(single, next(iter(relevant)), before)],
        "candidate": [ranking(single, next(iter(relevant)), after)],
    }
    comparison = score_runs(single, "test", runs_of(rankings), CompareOptions(metrics=["ndcg@10"]))
    (change,) = compute_rank_changes(comparison, single)
    seen = [rank if rank is not None and rank <= 100 else None for rank in (before, after)]
    assert [change.before, change.after] == seen
    low, high = (rank or 101 for rank in seen)
    assert change.kind == ("win" if high < low else "loss" if high > low else "same")
    assert (change.gain > 0, change.gain < 0) == (change.kind == "win", change.kind == "loss")
    assert len(change.ranked_above) == min(5, max(low, high) - 1)
    assert not set(change.ranked_above) & set(relevant)


def test_a_comparison_without_these_ranks_is_refused() -> None:
    dataset = dataset_of(30)
    comparison = compared(dataset)
    with pytest.raises(InputError, match="'candidate-2'"):
        compute_rank_changes(comparison, dataset, "candidate-2")
    with pytest.raises(InputError, match="has no rankings"):
        compute_rank_changes(replace(comparison, rankings={}), dataset)
    with pytest.raises(InputError, match="pass the dataset of the comparison"):
        compute_rank_changes(comparison, dataset_of(20))


def test_the_largest_losses_come_first() -> None:
    changes = [
        RankChange("a", 1, 2, "p"),
        RankChange("b", 1, None, "p"),
        RankChange("c", 3, 1, "p"),
        RankChange("d", 90, None, "p"),
    ]
    assert [change.query for change in largest(changes, "loss")] == ["b", "a", "d"]
    assert [change.query for change in largest(changes, "loss", 1)] == ["b"]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Where do I find HELM?", "HELM"),
        ("What is form T-9 for?", "T-9"),
        ("where is a kittiwake filed", "kittiwake"),
        ("WHERE IS LEAVE BOOKED?", None),
        ("What happened in 2024?", None),
        ("Where do I book holidays?", None),
    ],
)
def test_jargon_is_found_by_its_letters_and_by_how_passages_write_it(question: str, expected: str | None) -> None:
    texts = {"a": "You file a Kittiwake with the form. Then the Kittiwake is paid.", "b": "Badges open all doors."}
    assert FailureCauses(texts).explain(Query("q", question), "b", []).get(JARGON) == expected


def test_german_nouns_are_not_jargon() -> None:
    texts = {"a": "Danach wird der Urlaub gebucht, und der Urlaub ist frei.", "b": "Der Ausweis öffnet alle Türen."}
    assert JARGON not in FailureCauses(texts).explain(Query("q", "Wann ist mein Urlaub gebucht?"), "b", [])


def test_a_near_duplicate_that_was_ranked_above_is_named() -> None:
    causes = FailureCauses({"a": LONG, "b": LONG + "!", "c": "Badges open the doors of the harbour."})
    assert causes.explain(Query("q", "Holidays?"), "a", ["c", "b"])[NEAR_DUPLICATE] == "b"
    assert NEAR_DUPLICATE not in causes.explain(Query("q", "Holidays?"), "a", ["c"])


def test_a_passage_is_cut_off_if_the_question_needs_its_unread_part() -> None:
    text = "Leave is booked by noon. Refunds of the crossing are paid in spring."
    causes = FailureCauses({"a": text}, {"a": 25})
    refunds = causes.explain(Query("q", "When are refunds of a crossing paid?"), "a", [])
    assert refunds[CUT_OFF] == "3 of its words are truncated"
    assert CUT_OFF not in causes.explain(Query("q", "When is leave booked?"), "a", [])
    assert CUT_OFF in causes.explain(Query("q", "When?", evidence="paid in spring"), "a", [])


def test_a_copy_is_found_by_the_shared_words() -> None:
    causes = FailureCauses({"a": "Leave is booked in the portal by noon."})
    assert causes.explain(Query("q", "Is leave booked in the portal?"), "a", [])[COPY] == "100 % of its words"
    assert COPY not in causes.explain(Query("q", "How do I get holidays in the portal?"), "a", [])


def test_a_question_that_both_answer_first_has_no_cause() -> None:
    dataset = harbour()
    assert not any(change.failure_causes for change in compute_rank_changes(compared_ranks(dataset, 1, 1), dataset))
    assert all(change.failure_causes for change in compute_rank_changes(compared_ranks(dataset, 2, 2), dataset))


def test_how_far_a_model_reads_follows_from_its_tokenizer() -> None:
    from rag_ft import FineTunedEmbedding
    from rag_ft.embedding import ModelSpec

    texts = {"short": "Leave.", "long": LONG, "exact": " ".join(["leave"] * 14), "empty": ""}
    plain = FineTunedEmbedding.load(ModelSpec(name="local", max_length=16))
    read = characters_read(plain, texts)
    assert list(read) == ["long"]
    assert LONG[: read["long"]] == "Leave is booked in HELM by noon of the day before. Leave is"
    prefixed = FineTunedEmbedding.load(ModelSpec(name="local", max_length=16, passage_prefix="passage: "))
    assert characters_read(prefixed, texts)["long"] < read["long"]
    assert characters_read(object(), texts) == {}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_every_question_is_in_the_file(tmp_path: Path, suffix: str) -> None:
    dataset = dataset_of(50)
    first = next(iter(dataset.qrels["test"]))
    evil = replace(dataset, queries=dataset.queries | {first: Query(first, '=HYPERLINK("x") \ud83d')})
    comparison = compared(evil, 4, 1)
    file = write_questions(comparison, evil, tmp_path / f"questions{suffix}")
    if suffix == ".jsonl":
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    elif suffix == ".parquet":
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(file).to_pylist()
    else:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="," if suffix == ".csv" else "\t"))
    assert [row["question_id"] for row in rows] == list(evil.qrels["test"])
    lists = suffix in (".jsonl", ".parquet")
    assert rows[0]["question"] == ("" if lists else "'") + '=HYPERLINK("x") ?'
    assert [str(rows[0][name]) for name in ("rank_before", "rank_after", "move", "ndcg@10_after")] == [
        *("4", "1", "win", "1.0")
    ]
    instead = rows[0]["instead"] if lists else rows[0]["instead"].split(";")
    assert len(instead) == 3


def test_a_file_of_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="write questions to a"):
        write_questions(compared(dataset := dataset_of(30)), dataset, tmp_path / "questions.xlsx")


def test_regressions_become_training_pairs_that_can_be_read(tmp_path: Path) -> None:
    dataset = harbour()
    found = prepare_next_round(compared_ranks(dataset), dataset)
    file = write_regressions(found, tmp_path / "losses.jsonl")
    pairs = read_labelled_pairs(file)
    assert len(pairs) == len(found.regressions) == 30
    assert all(pair.positives and len(pair.negatives) == 2 and pair.documents for pair in pairs)
    assert {pair.query for pair in pairs} <= {query.text for query in dataset.queries.values()}
    trained = load_dataset(file)
    assert len(trained.qrels["train"]) == 30
    assert len(trained.negatives) == 30


def test_the_next_test_excludes_exported_questions_and_does_not_depend_on_the_results(tmp_path: Path) -> None:
    dataset = harbour()
    found = prepare_next_round(compared_ranks(dataset), dataset)
    folder = write_regressions(found, tmp_path / "next")
    after = load_dataset(folder)
    exported = {change.query for change in found.regressions}
    assert exported <= set(after.qrels["train"])
    assert set(dataset.qrels["train"]) <= set(after.qrels["train"])
    assert not exported & set(after.qrels["test"])
    exported_documents = {dataset.passages[change.relevant].document for change in found.regressions}
    assert not exported_documents & after.documents_of(after.qrels["test"], "test")
    assert all(query in after.negatives for query in exported)
    # Another candidate with other results leaves the same test.
    assert set(prepare_next_round(compared_ranks(dataset, 2, None), dataset).dataset.qrels["test"]) == set(
        after.qrels["test"]
    )
    assert after.info["losses"]["questions"] == 30


def test_unseen_documents_are_in_both_halves() -> None:
    """The halves are not drawn as the held-out documents were."""
    dataset = harbour(100)
    drawn = split_questions(dataset, dataset.qrels["test"], unseen_documents=0.4, seed=0)
    dataset = dataset.with_qrels({"train": drawn["train"], "dev": drawn["dev"], "test": drawn["test"]})
    left = prepare_next_round(compared_ranks(dataset), dataset, seed=0).dataset
    unseen = len(left.qrels["test"]) - len(left.seen_queries("test"))
    assert 10 <= unseen <= 30


def test_merging_drops_exported_pairs_that_a_test_still_asks(tmp_path: Path) -> None:
    dataset = harbour()
    pairs = load_dataset(
        write_regressions(prepare_next_round(compared_ranks(dataset), dataset), tmp_path / "losses.jsonl")
    )
    assert not set(merge_datasets(dataset, pairs).qrels["train"]) & set(pairs.queries)


def test_a_near_duplicate_of_the_answer_is_not_a_negative() -> None:
    dataset = harbour(40)
    copies = {f"c{n}": replace(dataset.passages[f"p{n}"], id=f"c{n}") for n in range(40)}
    doubled = replace(dataset, passages={**copies, **dataset.passages})
    rankings = {"baseline": [[f"p{n}"] for n in range(40)], "candidate": [[f"c{n}", "p0", f"p{n}"] for n in range(40)]}
    found = prepare_next_round(score_runs(doubled, "test", runs_of(rankings)), doubled)
    assert found.regressions
    assert not any(passage.startswith("c") for negatives in found.dataset.negatives.values() for passage in negatives)


def test_regressions_are_neither_written_over_the_dataset_nor_taken_from_train(tmp_path: Path) -> None:
    dataset = harbour()
    found = prepare_next_round(compared_ranks(dataset), dataset)
    write_beir(dataset, tmp_path / "data")
    with pytest.raises(InputError, match="which is never overwritten"):
        write_regressions(found, tmp_path / "data", tmp_path / "data")
    with pytest.raises(InputError, match="write regressions to a"):
        write_regressions(found, tmp_path / "losses.csv")
    with pytest.raises(InputError, match="already trained on"):
        prepare_next_round(replace(compared_ranks(dataset), split="train"), dataset)


def test_compare_writes_all_forms(tmp_path: Path) -> None:
    from rag_ft.embedding.loading import local_model_folder

    data = write_beir(harbour(), tmp_path / "data")
    files = {name: tmp_path / f"out.{name}" for name in ("html", "md", "csv", "jsonl")}
    model = str(local_model_folder())
    command = ["compare", str(data), "--baseline", "bm25", "--candidate", model, "--quiet"]
    options = ["--html", files["html"], "--markdown", files["md"], "--questions", files["csv"]]
    result = CliRunner().invoke(app, [*command, *map(str, options), "--losses", str(files["jsonl"])])
    assert result.exit_code == 0, result.output
    assert all(file.is_file() for file in files.values()), result.output
    assert "no longer held out" in " ".join(result.output.split())
    assert f"--candidate {model} --split test --seed 0" in files["md"].read_text(encoding="utf-8")
    wrong = CliRunner().invoke(app, [*command, "--losses", str(data)])
    assert isinstance(wrong.exception, InputError)
