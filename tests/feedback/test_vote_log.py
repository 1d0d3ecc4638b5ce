"""Votes: none is lost, none counts twice, and what they come to is fair to both sides."""

from __future__ import annotations

import json
import multiprocessing
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_ft import InputError, OutsideError
from rag_ft.ab import decide_from_votes
from rag_ft.ab.sessions import variant_of
from rag_ft.ab.vote_verdict import difference_of_groups
from rag_ft.feedback import ShownResults, Votes
from rag_ft.feedback.tally import Tally, tally_of
from rag_ft.jsonl_log import JsonlLog


def write_votes(file: str, name: str) -> None:
    votes = Votes(file)
    for number in range(50):
        votes.shown(f"{name}-{number}", "split", name, "Who?", ShownResults(variant="a"))
        votes.vote(f"{name}-{number}", "a")


def test_several_processes_write_one_file_and_a_torn_line_is_skipped(tmp_path: Path) -> None:
    file = tmp_path / "votes.jsonl"
    file.write_text('{"event": "shown", "query": "half')
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_votes, args=(str(file), f"p{n}")) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    tally = Votes(file).tally()
    assert (tally.queries, tally.a) == (150, 150)


@pytest.mark.parametrize(("share_for_b", "verdict"), [(0.8, "ship"), (0.2, "keep-baseline")])
def test_votes_end_in_a_verdict(share_for_b: float, verdict: str, tmp_path: Path) -> None:
    votes, draw = Votes(tmp_path / "votes.jsonl"), random.Random(0)
    for number in range(120):
        votes.shown(f"q{number}", "side-by-side", f"user-{number % 30}", "Who?", ShownResults(order=["a", "b"]))
        votes.vote(f"q{number}", "b" if draw.random() < share_for_b else "a")
    assert decide_from_votes(votes.tally())[0] == verdict
    few = Votes(tmp_path / "few.jsonl")
    few.shown("q", "side-by-side", "user", "Who?", ShownResults(order=["a", "b"]))
    few.vote("q", "b")
    assert decide_from_votes(few.tally())[0] == "inconclusive"


def test_threads_share_writes_and_each_finds_its_vote_in_the_file(tmp_path: Path) -> None:
    votes = Votes(tmp_path / "votes.jsonl")
    missing = []

    def vote(number: int) -> None:
        votes.shown(f"q{number}", "side-by-side", "me", "Who?", ShownResults(order=["a", "b"]))
        votes.vote(f"q{number}", "b")
        if f'"event": "vote", "query": "q{number}"' not in votes.file.read_text(encoding="utf-8"):
            missing.append(number)

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(vote, range(200)))
    assert not missing
    assert votes.tally().b == 200


def test_the_last_vote_counts_and_a_pick_counts_once(tmp_path: Path) -> None:
    votes = Votes(tmp_path / "votes.jsonl")
    votes.shown("q1", "side-by-side", "me", "Who?", ShownResults(order=["a", "b"]))
    for better in ("a", "a", "a", "b"):
        votes.vote("q1", better)
    votes.shown("q2", "interleave", "me", "Who?", ShownResults(passages=["x", "y"], teams=["a", "b"]))
    for _ in range(3):
        votes.pick("q2", "x")
    votes.shown("q3", "side-by-side", "me", "Who?", ShownResults(order=["a", "b"]))
    votes.vote("q3", "neither")
    tally = votes.tally()
    assert (tally.a, tally.b, tally.ties, tally.neither) == (1, 1, 1, 1)
    votes.unpick("q2", "x")
    assert votes.tally().a == 0


def test_a_pick_credits_the_variant_that_ranked_it_higher(tmp_path: Path) -> None:
    votes = Votes(tmp_path / "votes.jsonl")
    for passage in "xyz":
        votes.shown(
            passage,
            "page",
            passage,
            "Who?",
            ShownResults(order=["a", "b"], rankings={"a": ["x", "y"], "b": ["z", "y", "x"]}),
        )
        assert votes.pick(passage, passage) == {"x": None, "y": None, "z": "b"}[passage]
    assert votes.tally().credit == {"x": [-1.0], "y": [0.0], "z": [1.0]}
    with pytest.raises(InputError, match="was not shown"):
        votes.pick("x", "z", "a")


def test_a_query_with_a_failed_variant_is_no_comparison(tmp_path: Path) -> None:
    votes = Votes(tmp_path / "votes.jsonl")
    votes.shown("q1", "interleave", "me", "Who?", ShownResults(passages=["x"], teams=["a"], failed={"b": "down"}))
    votes.pick("q1", "x")
    votes.shown("q2", "side-by-side", "me", "Who?", ShownResults(order=["a"], failed={"b": "down"}))
    votes.vote("q2", "a")
    tally = votes.tally()
    assert (tally.a, tally.credit, tally.failed) == (0, {}, {"a": 0, "b": 2})


def test_queries_of_other_processes_and_old_queries_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag_ft.feedback.vote_log.MAX_REMEMBERED", 3)
    first, second = Votes(tmp_path / "votes.jsonl"), Votes(tmp_path / "votes.jsonl")
    for number in range(10):
        first.shown(f"q{number}", "split", "me", "Who?", ShownResults(variant="a"))
    for number in range(10):
        second.vote(f"q{number}", "a")
        first.vote(f"q{number}", "b")
    assert first.tally().b == 10
    with pytest.raises(InputError, match="nothing was shown"):
        second.vote("q99", "a")


def test_half_a_surrogate_pair_is_replaced(tmp_path: Path) -> None:
    votes = Votes(tmp_path / "votes.jsonl")
    votes.shown(
        "q", "split", "me\ud800", "Who \udfff\n?", ShownResults(variant="a", passages=["x"]), texts={"x": "half \ud83d"}
    )
    votes.pick("q", "x")
    assert [row["event"] for row in votes.rows()] == ["passage", "shown", "pick"]


def test_each_text_is_written_once(tmp_path: Path) -> None:
    votes = Votes(tmp_path / "votes.jsonl")
    for number in range(5):
        votes.shown(
            f"q{number}",
            "split",
            "me",
            "Who?",
            ShownResults(variant="a", passages=["x"]),
            texts={"x": "The harbour master."},
        )
    assert [row["event"] for row in votes.rows()].count("passage") == 1


def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Dear diary")
    with pytest.raises(InputError, match="not a vote log"):
        Votes(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "Dear diary"


def test_a_file_held_by_another_process_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    monkeypatch.setattr("rag_ft.jsonl_log.LOCK_SECONDS", 0.2)
    votes = Votes(tmp_path / "votes.jsonl")
    with FileLock(f"{votes.file}.lock"), pytest.raises(OutsideError, match="locked by another process"):
        votes.shown("q", "split", "me", "Who?", ShownResults(variant="a"))
    votes.shown("r", "split", "me", "Who?", ShownResults(variant="a"))
    assert [row["query"] for row in votes.rows()] == ["r"]


def test_a_write_that_fails_leaves_the_next_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    votes = Votes(tmp_path / "votes.jsonl")

    def write_half(log: JsonlLog, data: bytes) -> None:
        with log.file.open("ab") as file:
            file.write(data[: len(data) // 2])
        raise OutsideError("no space left on the disk")

    with monkeypatch.context() as patch:
        patch.setattr(JsonlLog, "_write", write_half)
        with pytest.raises(OutsideError, match="no space"):
            votes.shown("q", "split", "me", "Who?", ShownResults(variant="a"))
    votes.shown("r", "split", "me", "Who?", ShownResults(variant="a"))
    assert votes.tally().queries == 1


def test_a_variant_gains_nothing_by_being_shown_more_often() -> None:
    draw = random.Random(0)
    ratings: dict[str, dict[str, list[float]]] = {"a": {}, "b": {}}
    for number in range(400):
        side = variant_of(f"user-{number}", fraction_b=0.1)
        ratings[side][f"user-{number}"] = [1.0 if draw.random() < 0.7 else -1.0 for _ in range(3)]
    assert decide_from_votes(Tally(ratings=ratings))[0] in ("inconclusive", "keep-baseline")
    low, high = decide_from_votes(Tally(ratings=ratings))[2].ci95
    assert low < 0 < high
    better = {side: {name: [1.0 if side == "b" else 0.0, 0.5] for name in found} for side, found in ratings.items()}
    assert decide_from_votes(Tally(ratings=better))[0] == "ship"


RATINGS = st.lists(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), max_size=4), max_size=12)


@given(RATINGS, RATINGS)
@settings(deadline=None)
def test_the_interval_of_ratings_contains_possible_differences(a: list[list[float]], b: list[list[float]]) -> None:
    sessions = {
        side: {f"{side}{n}": ratings for n, ratings in enumerate(found)} for side, found in (("a", a), ("b", b))
    }
    found = difference_of_groups(sessions)
    low, high = found.ci95
    assert -2 - 1e-9 <= low <= found.mean + 1e-9
    assert found.mean - 1e-9 <= high <= 2 + 1e-9
    assert 0 <= found.p_value <= 1
    few = min(sum(map(bool, each)) for each in (a, b)) < 2
    assert found.is_unknown is few
    assert few or (found.p_value < 0.05) is (low > 0 or high < 0)
    opposite = difference_of_groups({"a": sessions["b"], "b": sessions["a"]})
    assert opposite.ci95 == pytest.approx((-high, -low), abs=1e-9)
    assert opposite.p_value == pytest.approx(found.p_value, abs=1e-9)


@pytest.mark.parametrize(("sessions", "means"), [((5, 5), (0.0, 0.8)), ((10, 40), (0.8, 0.8)), ((5, 20), (-0.9, 0.9))])
def test_the_interval_of_ratings_holds_the_truth_in_95_of_100(
    sessions: tuple[int, int], means: tuple[float, float]
) -> None:
    """Near the limit, Welch's t-interval holds it in 161 of 200 (10 and 40 sessions) and 153 (5 and 20)."""
    held = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        a, b = (
            {f"u{n}": [float(draw.choice([-1, 1], p=[(1 - mean) / 2, (1 + mean) / 2]))] for n in range(count)}
            for count, mean in zip(sessions, means, strict=True)
        )
        low, high = difference_of_groups({"a": a, "b": b}).ci95
        held += low <= means[1] - means[0] <= high
    assert held >= 181  # 180 would be seen by chance once in 1,000 times


def test_two_sessions_that_agree_on_a_variant_prove_nothing() -> None:
    ratings = {"a": {"u0": [0.0] * 30, "u1": [0.0] * 30}, "b": {"u2": [1.0] * 30, "u3": [1.0] * 30}}
    verdict, _, difference = decide_from_votes(Tally(ratings=ratings))
    assert verdict == "inconclusive"
    assert difference.ci95[0] < 0 < difference.p_value


def test_votes_of_one_session_are_not_enough() -> None:
    for tally in (Tally(credit={"u": [1.0] * 60}), Tally(ratings={"a": {"u": [1.0] * 60}, "b": {}})):
        verdict, reason, difference = decide_from_votes(tally)
        assert (verdict, difference.is_unknown) == ("inconclusive", True)
        assert "from one session" in reason
        assert "[not known]" in reason


def test_in_a_split_picks_are_ratings_also_for_sessions_of_a_failed_variant(tmp_path: Path) -> None:
    votes = Votes(tmp_path / "votes.jsonl")
    for number, (side, failed) in enumerate([("a", {}), ("b", {}), ("a", {"b": "down"})]):
        votes.shown(
            f"q{number}", "split", f"u{number}", "Who?", ShownResults(variant=side, failed=failed, passages=["x"])
        )
    votes.pick("q0", "x")
    assert votes.tally().ratings == {"a": {"u0": [1.0]}, "b": {"u1": [0.0], "u2": [0.0]}}
    assert votes.tally().failed == {"a": 0, "b": 1}


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["a", "b", "q", "x", "shown", "vote"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "x"]), inner, max_size=3),
    max_leaves=6,
)
KEYS = ["event", "query", "session", "question", "side", "order", "teams", "passages", "rankings", "failed", "better"]


@given(st.lists(st.dictionaries(st.sampled_from([*KEYS, "passage"]), json_values), max_size=8))
def test_any_row_is_counted_or_ignored(rows: list[dict[str, Any]]) -> None:
    shown = {"event": "shown", "query": "q", "question": "Who?"}
    tally = tally_of([*({**shown, **row} for row in rows), *({"event": "pick", "query": "q", **row} for row in rows)])
    assert tally.queries <= len(rows) * 2
    assert decide_from_votes(tally)[0] == "inconclusive"


def test_lines_that_are_no_votes_are_ignored(tmp_path: Path) -> None:
    file = tmp_path / "votes.jsonl"
    deep = "[" * 100_000
    file.write_text("\n".join(["{}", deep, "[1]", '{"event": 3}', json.dumps({"event": "shown"}), '{"half'] * 2))
    before = threading.active_count()  # other tests leave some
    assert Votes(file).tally() == tally_of([])
    assert threading.active_count() <= before + 2
