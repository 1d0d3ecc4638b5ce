"""Two sides in one app: sticky, even, fair; a side that fails takes nobody down; no vote is lost."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import Response
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from rag_ft import ABQueryEngine, ABRetriever, FineTunedEmbedding, InputError, Votes, ab_session, rebuild_index
from rag_ft.evaluation.ab_votes import judge_votes
from rag_ft.retrieval.ab import side_of, team_draft


def ranked(ids: str) -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(id_=key, text=f"Passage {key}."), score=1 / (n + 1)) for n, key in enumerate(ids)
    ]


class Fixed(BaseRetriever):
    """Always the same ranking; or an error, or a long wait."""

    def __init__(self, ids: str, fails: float = 0.0, waits: float = 0.0) -> None:
        super().__init__()
        self.ids, self.fails, self.waits = ids, fails, waits

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        time.sleep(self.waits)
        if random.random() < self.fails:
            raise ConnectionError("the server is down")
        return ranked(self.ids)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        await asyncio.sleep(self.waits)
        if random.random() < self.fails:
            raise ConnectionError("the server is down")
        return ranked(self.ids)


class Engine(BaseQueryEngine):
    """Answers with its name; or fails now and then."""

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
def test_a_session_keeps_its_side(number: int) -> None:
    assert side_of(f"user-{number}") == side_of(f"user-{number}")
    assert side_of(f"user-{number}", share=0.0) == "a"
    assert side_of(f"user-{number}", share=1.0) == "b"


def test_the_sides_get_their_share_of_sessions() -> None:
    for share in (0.5, 0.1):
        found = Counter(side_of(f"user-{n}", share) for n in range(4_000))
        assert found["b"] / 4_000 == pytest.approx(share, abs=0.03)
    again = sum(side_of(f"user-{n}") == side_of(f"user-{n}", salt="next") for n in range(4_000))
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
    for place, side in enumerate(teams):
        ranking = [node.node_id for node in (one if side == "a" else other)]
        # Each picks its best one that is not there yet.
        assert ids[place] == next(key for key in ranking if key not in ids[:place])
    for upto in range(0, len(teams) + 1, 2):
        both_had_more = len(set(ids[:upto])) < min(len(a), len(b))
        assert not both_had_more or abs(teams[:upto].count("a") - teams[:upto].count("b")) <= 1


def test_the_side_that_found_a_passage_gets_the_credit(tmp_path: Path) -> None:
    both = ABRetriever(Fixed("xyz"), Fixed("vwx"), "interleave", votes=tmp_path / "votes.jsonl", top_k=4)
    for _ in range(20):
        with ab_session("user-1"):
            nodes = both.retrieve("Which passage?")
        assert len(nodes) == 4
        sides = {node.node_id: node.metadata["ab_side"] for node in nodes}
        picked = next(node for node in nodes if node.node_id == "v" or node.metadata["ab_side"] == "b")
        assert both.pick(picked.metadata["ab_query"], picked.node_id) == sides[picked.node_id] == "b"
        assert "ab_side" not in picked.node.get_content("llm")
    standing = Votes(tmp_path / "votes.jsonl").standing()
    assert (standing.queries, standing.a, standing.b) == (20, 0, 20)
    assert standing.credit == {"user-1": [1.0] * 20}
    with pytest.raises(InputError, match="was not shown"):
        both.pick(picked.metadata["ab_query"], "nothing")
    with pytest.raises(InputError, match="nothing was shown"):
        both.pick("never", "x")


@pytest.mark.parametrize("mode", ["split", "interleave"])
def test_a_side_that_fails_or_hangs_takes_nobody_down(mode: str, tmp_path: Path) -> None:
    for broken in (Fixed("vw", fails=1.0), Fixed("vw", waits=5.0)):
        both = ABRetriever(Fixed("xy"), broken, mode, votes=tmp_path / "v.jsonl", timeout=0.2, share=1.0)  # type: ignore[arg-type]
        began = time.monotonic()
        assert {node.node_id for node in both.retrieve("Which?")} == {"x", "y"}
        assert {node.node_id for node in asyncio.run(both.aretrieve("Which?"))} == {"x", "y"}
        assert time.monotonic() - began < 3
    assert Votes(tmp_path / "v.jsonl").standing().failed == {"a": 0, "b": 4}
    with pytest.raises(RuntimeError, match="both sides failed"):
        ABRetriever(Fixed("x", fails=1.0), Fixed("y", fails=1.0), mode).retrieve("Which?")  # type: ignore[arg-type]


def test_each_side_embeds_the_question_itself(tmp_path: Path) -> None:
    nodes = [
        TextNode(id_=key, text=f"Form {key} is for {what}.") for key, what in (("T-1", "leave"), ("T-2", "claims"))
    ]
    a, b = (FineTunedEmbedding.load("local", query_prefix=prefix) for prefix in ("", "question: "))
    sides = [rebuild_index(nodes, model, tmp_path, name) for model, name in ((a, "one"), (b, "two"))]
    both = ABRetriever(*(side.as_retriever(similarity_top_k=1) for side in sides), mode="interleave")
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
        first, second = (response.metadata["ab_answers"][side] for side in order)
        assert str(response) == f"1. {first}\n\n2. {second}"
        assert "ab_side" in response.source_nodes[0].metadata
        engine.vote(response.metadata["ab_query"], "b" if number < 20 else "tie")
    assert orders == {("a", "b"), ("b", "a")}
    standing = engine.votes.standing()  # type: ignore[union-attr]
    assert (standing.a, standing.b, standing.ties) == (0, 20, 10)
    with pytest.raises(InputError, match="'a', 'b' or 'tie'"):
        engine.vote(response.metadata["ab_query"], "c")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="votes are not kept"):
        ABQueryEngine(Engine("Old"), Engine("New")).vote("x", "a")


def test_many_clients_are_served_though_one_side_fails_half_of_the_time(tmp_path: Path) -> None:
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

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(client, range(50)))
    standing = votes.standing()
    assert standing.queries == standing.a + standing.b == 250
    for session, sides in seen.items():
        assert sides == {"a"} if side_of(session) == "a" else sides <= {"a", "b"}


def write_votes(file: str, name: str) -> None:
    votes = Votes(file)
    for number in range(50):
        votes.shown(f"{name}-{number}", "split", name, "Who?", side="a")
        votes.vote(f"{name}-{number}", "a")


def test_several_processes_write_one_file_and_half_a_line_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "votes.jsonl"
    file.write_text('{"event": "shown", "query": "half')
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_votes, args=(str(file), f"p{n}")) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    standing = Votes(file).standing()
    assert (standing.queries, standing.a) == (150, 150)


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(InputError, match="mode is 'both'"):
        ABRetriever(Fixed("x"), Fixed("y"), "both")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="mode is 'interleave'"):
        ABQueryEngine(Engine("x"), Engine("y"), "interleave")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="share is 2"):
        ABQueryEngine(Engine("x"), Engine("y"), share=2)


@pytest.mark.parametrize(("share_for_b", "verdict"), [(0.8, "ship"), (0.2, "keep-baseline")])
def test_votes_end_in_a_verdict(share_for_b: float, verdict: str, tmp_path: Path) -> None:
    votes, draw = Votes(tmp_path / "votes.jsonl"), random.Random(0)
    for number in range(120):
        votes.shown(f"q{number}", "side-by-side", f"user-{number % 30}", "Who?", order=["a", "b"])
        votes.vote(f"q{number}", "b" if draw.random() < share_for_b else "a")
    assert judge_votes(votes.standing())[0] == verdict
    few = Votes(tmp_path / "few.jsonl")
    few.shown("q", "side-by-side", "user", "Who?", order=["a", "b"])
    few.vote("q", "b")
    assert judge_votes(few.standing())[0] == "inconclusive"
