"""A/B tests in an app: sessions keep their variant, a variant that fails takes nobody down, and no vote is lost."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes.retrievers import Fixed, Waiting, ranked
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import AsyncStreamingResponse, Response, StreamingResponse
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import CustomQueryEngine, RetrieverQueryEngine
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from rag_ft import FineTunedEmbedding, InputError, OutsideError, rebuild_index
from rag_ft.ab import ABOptions, ABQueryEngine, ABRetriever
from rag_ft.ab.interleaving import team_draft
from rag_ft.ab.sessions import ab_session, variant_of
from rag_ft.embedding import ModelSpec
from rag_ft.feedback import Votes

ALL_B = ABOptions(fraction_b=1.0)


class Engine(BaseQueryEngine):
    """Answers with its name, or fails now and then."""

    def __init__(self, name: str, fails: float = 0.0) -> None:
        super().__init__(callback_manager=None)
        self.name, self.fails = name, fails

    def _get_prompt_modules(self) -> dict:
        return {}

    def _query(self, query_bundle: QueryBundle) -> Response:
        if random.random() < self.fails:
            raise ConnectionError("the server is down")
        return Response(f"{self.name} says so.", ranked("xy"))

    async def _aquery(self, query_bundle: QueryBundle) -> Response:
        return self._query(query_bundle)


@given(st.integers(0, 100))
def test_a_session_keeps_its_variant(number: int) -> None:
    assert variant_of(f"user-{number}") == variant_of(f"user-{number}")
    assert variant_of(f"user-{number}", fraction_b=0.0) == "a"
    assert variant_of(f"user-{number}", fraction_b=1.0) == "b"


def test_the_variants_get_their_fractions_of_sessions() -> None:
    for fraction in (0.5, 0.1):
        found = Counter(variant_of(f"user-{n}", fraction) for n in range(4_000))
        assert found["b"] / 4_000 == pytest.approx(fraction, abs=0.03)
    again = sum(variant_of(f"user-{n}") == variant_of(f"user-{n}", salt="next") for n in range(4_000))
    assert again / 4_000 == pytest.approx(0.5, abs=0.03)


@given(
    st.lists(st.integers(0, 20), max_size=12, unique=True),
    st.lists(st.integers(0, 20), max_size=12, unique=True),
    st.integers(0, 15),
    st.integers(0, 1_000),
)
def test_team_draft_is_fair(a: list[int], b: list[int], length: int, seed: int) -> None:
    one, other = (ranked("".join(chr(65 + n) for n in ids)) for ids in (a, b))
    nodes, teams = team_draft(one, other, length, random.Random(seed))
    ids = [node.node_id for node in nodes]
    assert len(ids) == len(set(ids)) == min(length, len({*a, *b}))
    for place, variant in enumerate(teams):
        ranking = [node.node_id for node in (one if variant == "a" else other)]
        # Each variant picks its best passage that is not in the list yet.
        assert ids[place] == next(key for key in ranking if key not in ids[:place])
    for upto in range(0, len(teams) + 1, 2):
        both_had_more = len(set(ids[:upto])) < min(len(a), len(b))
        assert not both_had_more or abs(teams[:upto].count("a") - teams[:upto].count("b")) <= 1


def test_the_variant_that_found_a_passage_gets_the_credit(tmp_path: Path) -> None:
    both = ABRetriever(Fixed("xyz"), Fixed("vwx"), "interleave", votes=tmp_path / "votes.jsonl", top_k=4)
    for _ in range(20):
        with ab_session("user-1"):
            nodes = both.retrieve("Which passage?")
        assert len(nodes) == 4
        teams = {node.node_id: node.metadata["ab_side"] for node in nodes}
        picked = next(node for node in nodes if node.node_id == "v" or node.metadata["ab_side"] == "b")
        assert both.pick(picked.metadata["ab_query"], picked.node_id) == teams[picked.node_id] == "b"
        assert "ab_side" not in picked.node.get_content("llm")
    tally = Votes(tmp_path / "votes.jsonl").tally()
    assert (tally.queries, tally.a, tally.b) == (20, 0, 20)
    assert tally.credit == {"user-1": [1.0] * 20}
    with pytest.raises(InputError, match="was not shown"):
        both.pick(picked.metadata["ab_query"], "nothing")
    with pytest.raises(InputError, match="nothing was shown"):
        both.pick("never", "x")


@pytest.mark.parametrize("mode", ["split", "interleave"])
def test_a_variant_that_fails_or_hangs_takes_nobody_down(mode: str, tmp_path: Path) -> None:
    for broken in (Fixed("vw", fails=1.0), Fixed("vw", waits=5.0)):
        options = ABOptions(timeout=0.2, fraction_b=1.0)
        both = ABRetriever(Fixed("xy"), broken, mode, votes=tmp_path / "v.jsonl", options=options)  # type: ignore[arg-type]
        began = time.monotonic()
        assert {node.node_id for node in both.retrieve("Which?")} == {"x", "y"}
        assert {node.node_id for node in asyncio.run(both.aretrieve("Which?"))} == {"x", "y"}
        assert time.monotonic() - began < 3
    assert Votes(tmp_path / "v.jsonl").tally().failed == {"a": 0, "b": 4}
    with pytest.raises(OutsideError, match="both variants failed"):
        ABRetriever(Fixed("x", fails=1.0), Fixed("y", fails=1.0), mode).retrieve("Which?")  # type: ignore[arg-type]


def test_each_variant_embeds_the_question_itself(tmp_path: Path) -> None:
    nodes = [
        TextNode(id_=key, text=f"Form {key} is for {what}.") for key, what in (("T-1", "leave"), ("T-2", "claims"))
    ]
    a, b = (FineTunedEmbedding.load(ModelSpec(name="local", query_prefix=prefix)) for prefix in ("", "question: "))
    indexes = [rebuild_index(nodes, model, tmp_path, name) for model, name in ((a, "one"), (b, "two"))]
    both = ABRetriever(*(index.as_retriever(similarity_top_k=1) for index in indexes), mode="interleave")
    found = both.retrieve(QueryBundle("Which form is for claims?"))
    assert [node.node_id for node in found] == ["T-2"]
    engine = RetrieverQueryEngine.from_args(both, llm=MockLLM())
    assert "T-2" in str(engine.query("Which form is for claims?"))


def test_both_answers_stand_side_by_side_and_are_voted_on(tmp_path: Path) -> None:
    engine = ABQueryEngine(Engine("Old"), Engine("New"), "side-by-side", votes=tmp_path / "votes.jsonl")
    orders = set()
    for number in range(30):
        response = engine.query("Who says so?") if number % 2 else asyncio.run(engine.aquery("Who says so?"))
        order = response.metadata["ab_order"]
        orders.add(tuple(order))
        first, second = (response.metadata["ab_answers"][variant] for variant in order)
        assert str(response) == f"1. {first}\n\n2. {second}"
        assert "ab_side" in response.source_nodes[0].metadata
        engine.vote(response.metadata["ab_query"], "b" if number < 20 else "tie")
    assert orders == {("a", "b"), ("b", "a")}
    tally = engine.votes.tally()  # type: ignore[union-attr]
    assert (tally.a, tally.b, tally.ties) == (0, 20, 10)
    with pytest.raises(InputError, match="'a', 'b', 'tie' or 'neither'"):
        engine.vote(response.metadata["ab_query"], "c")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="there is no vote log"):
        ABQueryEngine(Engine("Old"), Engine("New")).vote("x", "a")


def test_many_clients_are_served_though_one_variant_fails_half_of_the_time(tmp_path: Path) -> None:
    votes = Votes(tmp_path / "votes.jsonl")
    engine = ABQueryEngine(Engine("Old"), Engine("New", fails=0.5), votes=votes)
    seen: dict[str, set[str]] = {}
    lock = threading.Lock()

    def client(number: int) -> None:
        for _ in range(5):
            with ab_session(f"user-{number}"):
                response = engine.query("Who says so?")
            engine.vote(response.metadata["ab_query"], response.metadata["ab_side"])
            with lock:
                seen.setdefault(f"user-{number}", set()).add(response.metadata["ab_side"])

    async def task(number: int) -> None:
        for _ in range(5):
            with ab_session(f"user-{number}"):
                response = await engine.aquery("Who says so?")
            await asyncio.to_thread(engine.vote, response.metadata["ab_query"], response.metadata["ab_side"])
            with lock:
                seen.setdefault(f"user-{number}", set()).add(response.metadata["ab_side"])

    async def tasks() -> None:
        await asyncio.gather(*map(task, range(50, 100)))

    with ThreadPoolExecutor(51) as pool:
        others = pool.submit(asyncio.run, tasks())
        list(pool.map(client, range(50)))
        others.result()
    tally = votes.tally()
    assert tally.queries == tally.a + tally.b == 500
    assert 30 <= sum(variant_of(session) == "b" for session in seen) <= 70
    for session, variants in seen.items():
        assert variants == {"a"} if variant_of(session) == "a" else variants <= {"a", "b"}


def test_unknown_modes_and_values_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="mode is 'both'"):
        ABRetriever(Fixed("x"), Fixed("y"), "both")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="mode is 'interleave'"):
        ABQueryEngine(Engine("x"), Engine("y"), "interleave")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="fraction_b is 2"):
        ABOptions(fraction_b=2)
    with pytest.raises(InputError, match="timeout is 0: use a positive number"):
        ABOptions(timeout=0)


def test_a_variant_that_hangs_for_good_leaves_the_other_its_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag_ft.ab.variant_calls.MAX_RUNNING_CALLS", 8)
    hanging = Waiting()
    options = ABOptions(timeout=0.05)
    both = ABRetriever(Fixed("xy"), hanging, "interleave", options=options, votes=tmp_path / "votes.jsonl")
    for _ in range(20):
        assert {node.node_id for node in both.retrieve("Which?")} == {"x", "y"}
    reasons = [row["failed"]["b"] for row in Votes(tmp_path / "votes.jsonl").rows() if row["event"] == "shown"]
    assert [reason.startswith("no answer") for reason in reasons] == [True] * 8 + [False] * 12
    assert "8 calls of this variant are still running" in reasons[-1]
    hanging.go.set()


def test_a_variant_that_blocks_does_not_stop_the_event_loop() -> None:
    hanging = Waiting()
    both = ABRetriever(Fixed("xy"), hanging, "interleave", options=ABOptions(timeout=0.5))

    async def ask() -> int:
        asking, ticks = asyncio.ensure_future(both.aretrieve("Which?")), 0
        while not asking.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert {node.node_id for node in asking.result()} == {"x", "y"}
        return ticks

    assert asyncio.run(ask()) > 5
    hanging.go.set()


def test_once_a_variant_has_answered_the_other_one_has_as_long_as_patience_says() -> None:
    options = ABOptions(timeout=30, patience=0.2)
    both = ABRetriever(Fixed("xy"), Fixed("vw", waits=20), "interleave", options=options)
    began = time.monotonic()
    assert {node.node_id for node in both.retrieve("Which?")} == {"x", "y"}
    assert {node.node_id for node in asyncio.run(both.aretrieve("Which?"))} == {"x", "y"}
    assert time.monotonic() - began < 10


def test_a_process_ends_though_a_variant_hangs() -> None:
    program = (
        "from fakes.retrievers import Fixed, Waiting; from rag_ft.ab import ABOptions, ABRetriever; "
        "both = ABRetriever(Fixed('xy'), Waiting(), 'interleave', options=ABOptions(timeout=0.2)); "
        "print(len(both.retrieve('Which?')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=50
    )
    assert done.stdout.strip() == "2", done.stderr


def test_a_cancelled_variant_is_a_failed_variant() -> None:
    class Cancelled(Fixed):
        async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
            raise asyncio.CancelledError

    both = ABRetriever(Fixed("xy"), Cancelled("vw"), "interleave")
    assert {node.node_id for node in asyncio.run(both.aretrieve("Which?"))} == {"x", "y"}


def test_a_key_in_an_error_is_written_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Leaking(Fixed):
        def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
            raise ConnectionError("Incorrect API key provided: sk-abcdef1234567890abcd")

    both = ABRetriever(Fixed("xy"), Leaking("vw"), "interleave", votes=tmp_path / "votes.jsonl")
    both.retrieve("Which?")
    assert "sk-abcdef" not in (tmp_path / "votes.jsonl").read_text() + caplog.text
    assert "ConnectionError" in caplog.text


def test_votes_that_cannot_be_recorded_cost_no_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    votes = Votes(tmp_path / "folder" / "votes.jsonl")
    both = ABRetriever(Fixed("xy"), Fixed("vw"), votes=votes)
    shutil.rmtree(tmp_path / "folder")
    (tmp_path / "folder").write_text("in the way")
    assert both.retrieve("Which?")
    assert asyncio.run(both.aretrieve("Which?"))
    assert "could not be recorded" in caplog.text


class Streaming(Engine):
    """Answers word by word, and may break off after some words."""

    def __init__(self, name: str, breaks_after: int | None = None) -> None:
        super().__init__(name)
        self.breaks_after = breaks_after

    def _words(self) -> list[str]:
        return [self.name, " says", " so."]

    def _query(self, query_bundle: QueryBundle) -> StreamingResponse:  # type: ignore[override]
        def words() -> Iterator[str]:
            for place, word in enumerate(self._words()):
                if place == self.breaks_after:
                    raise ConnectionError("the line is cut")
                yield word

        return StreamingResponse(words(), ranked("xy"))

    async def _aquery(self, query_bundle: QueryBundle) -> AsyncStreamingResponse:  # type: ignore[override]
        async def words() -> AsyncIterator[str]:
            for place, word in enumerate(self._words()):
                await asyncio.sleep(0)
                if place == self.breaks_after:
                    raise ConnectionError("the line is cut")
                yield word

        return AsyncStreamingResponse(words(), ranked("xy"))


def test_a_stream_stays_a_stream_and_one_that_never_starts_is_left_out(tmp_path: Path) -> None:
    engine = ABQueryEngine(Streaming("Old"), Streaming("New", 0), votes=tmp_path / "votes.jsonl", options=ALL_B)
    response = engine.query("Who says so?")
    assert isinstance(response, StreamingResponse)
    assert response.metadata["ab_side"] == "a"
    assert list(response.response_gen) == ["Old", " says", " so."]

    async def ask() -> list[str]:
        response = await engine.aquery("Who says so?")
        assert isinstance(response, AsyncStreamingResponse)
        return [word async for word in response.async_response_gen()]

    assert asyncio.run(ask()) == ["Old", " says", " so."]
    assert Votes(tmp_path / "votes.jsonl").tally().failed == {"a": 0, "b": 2}


def test_a_stream_that_breaks_off_raises_and_is_recorded(tmp_path: Path) -> None:
    engine = ABQueryEngine(Streaming("Old"), Streaming("New", 2), votes=tmp_path / "votes.jsonl", options=ALL_B)
    words = iter(engine.query("Who says so?").response_gen)
    assert [next(words), next(words)] == ["New", " says"]
    with pytest.raises(ConnectionError):
        next(words)

    async def ask() -> None:
        async for _ in (await engine.aquery("Who says so?")).async_response_gen():
            pass

    with pytest.raises(ConnectionError):
        asyncio.run(ask())
    assert Votes(tmp_path / "votes.jsonl").tally().failed == {"a": 0, "b": 2}


@pytest.mark.parametrize("breaks_after", [None, 0, 2])
def test_streams_stand_side_by_side_and_one_that_breaks_is_left_out(breaks_after: int | None) -> None:
    engine = ABQueryEngine(Streaming("Old"), Streaming("New", breaks_after), "side-by-side")
    expected = {"a": "Old says so."} | ({"b": "New says so."} if breaks_after is None else {})
    assert engine.query("Who says so?").metadata["ab_answers"] == expected
    assert asyncio.run(engine.aquery("Who says so?")).metadata["ab_answers"] == expected


def test_an_engine_whose_asynchronous_method_blocks_runs_in_a_thread() -> None:
    class Custom(CustomQueryEngine):
        def custom_query(self, query_str: str) -> str:
            assert threading.current_thread() is not threading.main_thread()
            return f"So: {query_str}"

    engine = ABQueryEngine(Custom(), Custom())
    assert str(asyncio.run(engine.aquery("Who?"))) == "So: Who?"


def test_a_source_passage_of_an_answer_can_be_picked(tmp_path: Path) -> None:
    engine = ABQueryEngine(Engine("Old"), Engine("New"), "side-by-side", votes=tmp_path / "votes.jsonl")
    query = engine.query("Who says so?").metadata["ab_query"]
    assert engine.pick(query, "x", "b") is None  # both answers have this source
    with pytest.raises(InputError, match="was not shown"):
        engine.pick(query, "z")
