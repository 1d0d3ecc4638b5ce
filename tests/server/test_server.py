"""The embeddings server over real HTTP: common clients, wrong requests and many callers."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
from fakes.embeddings_server import embeddings_server, prefixed_model
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode
from llama_index.embeddings.openai import OpenAIEmbedding

from rag_ft import FineTunedEmbedding
from rag_ft.embedding import AdapterEmbedding, ModelSpec
from rag_ft.embedding.adapter_maps import make_map
from rag_ft.embedding.adapter_saving import save_adapter
from rag_ft.embedding.identity import reference_vectors
from rag_ft.server.limits import Limits

KEY = "a-key-for-the-tests-1234567890"
QUESTION, PASSAGE = "How do I claim expenses?", "A Kittiwake is an expenses claim, filed within thirty days."
LONG = "The master of the harbour signs form T-12 before the ship leaves. " * 30
LIMITS = Limits(texts=150, queued_texts=150, body_bytes=2**20, body_seconds=1)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> FineTunedEmbedding:
    """The served model, with both prefixes and a short maximum length for speed."""
    folder = prefixed_model(tmp_path_factory.mktemp("models") / "acme")
    return FineTunedEmbedding.load(ModelSpec(name=folder, max_length=64), precision="fp32")


@pytest.fixture(scope="module")
def address(local: FineTunedEmbedding) -> Iterator[str]:
    with embeddings_server(local, api_key=KEY, limits=LIMITS) as served:
        yield served


@pytest.fixture
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=address, api_key=KEY, max_retries=0) as opened:
        yield opened


@pytest.fixture
def raw(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as opened:
        yield opened


def same(one: Any, other: Any) -> bool:
    return bool(np.allclose(np.asarray(one), np.asarray(other), atol=1e-5))


def error_of(response: httpx.Response) -> dict[str, Any]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def counted(raw: httpx.Client, name: str) -> float:
    text = raw.get(str(raw.base_url).replace("/v1/", "/metrics")).text
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*?}})? (\S+)$", text, re.MULTILINE))


def until_queued(raw: httpx.Client, some: bool) -> None:
    """Wait until texts are queued, or until none are."""
    end = time.monotonic() + 30
    while bool(counted(raw, "rag_ft_queued_texts")) != some:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_openais_client_gets_the_local_vectors(client: openai.OpenAI, local: FineTunedEmbedding) -> None:
    texts = [PASSAGE, "short", LONG]
    answer = client.embeddings.create(model="acme", input=texts)
    assert [row.index for row in answer.data] == [0, 1, 2]
    assert same([row.embedding for row in answer.data], local.get_text_embedding_batch(texts))
    asked = client.embeddings.create(model="acme-query", input=QUESTION)
    assert same(asked.data[0].embedding, local.get_query_embedding(QUESTION))
    assert asked.model == "acme-query"
    told = client.embeddings.create(model="acme", input=QUESTION, extra_body={"input_type": "query"})
    assert same(told.data[0].embedding, local.get_query_embedding(QUESTION))
    assert not same(local.get_query_embedding(QUESTION), local.get_text_embedding(QUESTION))


def test_floats_and_base64_are_the_same(client: openai.OpenAI, raw: httpx.Client) -> None:
    plain = client.embeddings.create(model="acme", input=PASSAGE, encoding_format="float").data[0].embedding
    asked = {"model": "acme", "input": PASSAGE, "encoding_format": "base64"}
    packed = raw.post("/embeddings", json=asked).json()["data"][0]["embedding"]
    assert isinstance(packed, str)
    assert client.embeddings.create(model="acme", input=PASSAGE).data[0].embedding == plain


def test_vectors_are_cut_if_the_model_was_trained_for_it(client: openai.OpenAI, local: FineTunedEmbedding) -> None:
    cut = client.embeddings.create(model="acme", input=PASSAGE, dimensions=64).data[0].embedding
    expected = FineTunedEmbedding.load(local.model_name, precision="fp32", dimension=64).get_text_embedding(PASSAGE)
    assert len(cut) == 64
    assert same(cut, expected)
    with pytest.raises(openai.BadRequestError, match="dimensions is 100, but this model has 64, 128, 384"):
        client.embeddings.create(model="acme", input=PASSAGE, dimensions=100)


def test_usage_counts_what_the_model_read(client: openai.OpenAI, local: FineTunedEmbedding) -> None:
    tokenizer = local.sentence_transformer.tokenizer
    expected = len(tokenizer("passage: " + PASSAGE)["input_ids"])
    usage = client.embeddings.create(model="acme", input=[PASSAGE, LONG]).usage
    assert usage.prompt_tokens == usage.total_tokens == expected + int(local.max_length or 0)


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["acme", "acme-query", "acme-passage"]
    assert client.models.retrieve("acme-query").id == "acme-query"
    with pytest.raises(openai.NotFoundError, match="acme-query"):
        client.models.retrieve("text-embedding-3-small")


def llama_index_clients() -> list[Any]:
    def plain(name: str, address: str) -> BaseEmbedding:
        return OpenAIEmbedding(model_name=name, api_base=address, api_key=KEY, max_retries=0)

    def like(name: str, address: str) -> BaseEmbedding:
        module = pytest.importorskip(
            "llama_index.embeddings.openai_like", reason="needs llama-index-embeddings-openai-like"
        )
        return module.OpenAILikeEmbedding(model_name=name, api_base=address, api_key=KEY, max_retries=0)

    return [pytest.param(plain, id="OpenAIEmbedding"), pytest.param(like, id="OpenAILikeEmbedding")]


@pytest.mark.parametrize("embedding", llama_index_clients())
def test_llama_index_builds_and_queries_an_index_through_it(
    embedding: Any, address: str, local: FineTunedEmbedding
) -> None:
    texts = [PASSAGE, "A Lantern is a day on which you work from home.", "Ships are signed off by the harbour master."]
    nodes = [TextNode(id_=str(place), text=text) for place, text in enumerate(texts)]
    index = VectorStoreIndex(nodes, embed_model=embedding("acme-passage", address))
    stored = index.vector_store.data.embedding_dict  # type: ignore[attr-defined]
    assert same([stored[str(place)] for place in range(3)], local.get_text_embedding_batch(texts))

    asking = embedding("acme-query", address)
    assert same(asking.get_query_embedding(QUESTION), local.get_query_embedding(QUESTION))
    found = index.as_retriever(similarity_top_k=3, embed_model=asking).retrieve(QUESTION)
    by_hand = np.asarray(local.get_text_embedding_batch(texts)) @ np.asarray(local.get_query_embedding(QUESTION))
    assert [hit.node_id for hit in found] == [str(place) for place in np.argsort(-by_hand)]
    assert same([hit.score for hit in found], sorted(by_hand, reverse=True))


def test_any_llama_index_embedding_is_served(local: FineTunedEmbedding) -> None:
    class Mirrored(BaseEmbedding):
        """Another embedding, as an adapter is: its queries are turned round."""

        def _get_text_embedding(self, text: str) -> list[float]:
            return local.get_text_embedding(text)

        def _get_query_embedding(self, query: str) -> list[float]:
            return [-value for value in local.get_query_embedding(query)]

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return self._get_query_embedding(query)

    with (
        embeddings_server(Mirrored(model_name="mirrored")) as address,
        openai.OpenAI(base_url=address, api_key="none") as client,
    ):
        query = client.embeddings.create(model="mirrored-query", input=QUESTION)
        assert same(query.data[0].embedding, -np.asarray(local.get_query_embedding(QUESTION)))
        assert query.usage.total_tokens > 3
        passages = client.embeddings.create(model="mirrored", input=[PASSAGE, QUESTION]).data
        assert same(passages[1].embedding, local.get_text_embedding(QUESTION))


def test_an_adapters_folder_is_served(local: FineTunedEmbedding, tmp_path: Path) -> None:
    module = make_map("linear", local.contract.dimension)
    with torch.no_grad():
        for weight in module.parameters():
            weight.normal_(0, 0.05)
    made = {"kind": "linear", "rank": 0, "share": 1.0, "strength": 1.0, "both_sides": False}
    training = {"pairs": 0, "seconds": 0, "dev_questions": 0, "dev_ndcg@10": {}, "refused": {}, "findings": []}
    save_adapter(
        module,
        tmp_path / "mapped",
        base=local.contract,
        model=local,
        reference_vectors=reference_vectors(local),
        adapter=made,
        training=training,
    )
    adapter = AdapterEmbedding.load(tmp_path / "mapped", local)
    assert not same(adapter.get_query_embedding(QUESTION), local.get_query_embedding(QUESTION))
    with embeddings_server(tmp_path / "mapped") as address, openai.OpenAI(base_url=address, api_key="none") as client:
        query = client.embeddings.create(model="mapped-query", input=QUESTION)
        passage = client.embeddings.create(model="mapped-passage", input=PASSAGE)
    assert np.dot(query.data[0].embedding, adapter.get_query_embedding(QUESTION)) > 0.999
    assert np.dot(passage.data[0].embedding, local.get_text_embedding(PASSAGE)) > 0.999
    tokenizer = local.sentence_transformer.tokenizer
    assert query.usage.total_tokens == len(tokenizer("question: " + QUESTION)["input_ids"])


def test_many_callers_share_batches(client: openai.OpenAI, raw: httpx.Client, local: FineTunedEmbedding) -> None:
    questions = [f"{QUESTION} Of kind {number}?" for number in range(64)]
    before = counted(raw, "rag_ft_turn_texts_count")
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda text: client.embeddings.create(model="acme-query", input=text), questions))
    assert same([answer.data[0].embedding for answer in answers], local.query_embeddings(questions))
    assert counted(raw, "rag_ft_turn_texts_count") - before < 50


def test_a_single_question_does_not_wait_for_a_long_list(client: openai.OpenAI, raw: httpx.Client) -> None:
    with ThreadPoolExecutor(1) as pool:
        list_of_many = pool.submit(client.embeddings.create, model="acme", input=[LONG] * 120)
        until_queued(raw, True)
        client.embeddings.create(model="acme-query", input=QUESTION)
        assert not list_of_many.done()
        assert len(list_of_many.result().data) == 120


def test_texts_of_a_caller_that_hangs_up_leave_the_queue(
    address: str, raw: httpx.Client, client: openai.OpenAI
) -> None:
    before = counted(raw, "rag_ft_turn_texts_sum")
    host, port = address.removeprefix("http://").removesuffix("/v1").split(":")
    body = json.dumps({"model": "acme", "input": [LONG] * 120}).encode()
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
    )
    with socket.create_connection((host, int(port))) as caller:
        caller.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until_queued(raw, True)
    until_queued(raw, False)
    client.embeddings.create(model="acme", input=PASSAGE)
    assert counted(raw, "rag_ft_turn_texts_sum") - before < 120


def test_a_full_queue_sets_retry_after(raw: httpx.Client, client: openai.OpenAI) -> None:
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.embeddings.create, model="acme", input=[LONG] * 120)
        until_queued(raw, True)
        refused = raw.post("/embeddings", json={"model": "acme", "input": [LONG] * 120})
        first.result()
    assert refused.status_code == 429
    assert error_of(refused)["code"] == "queue_full"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert client.embeddings.create(model="acme", input=PASSAGE).data


@pytest.mark.parametrize("wrong", [None, "Bearer other", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer \xff"])
def test_a_wrong_key_is_refused_and_not_repeated(raw: httpx.Client, wrong: str | None) -> None:
    headers = {} if wrong is None else {"Authorization": wrong.encode("latin-1")}
    with httpx.Client(base_url=raw.base_url) as stranger:
        for path in ("/embeddings", "/models"):
            refused = stranger.request("POST" if path == "/embeddings" else "GET", path, headers=headers)
            assert refused.status_code == 401
            assert error_of(refused)["code"] == "invalid_api_key"
            assert KEY not in refused.text
        base = str(raw.base_url).removesuffix("/v1/")
        assert stranger.get(f"{base}/metrics").status_code == 401
        assert stranger.get(f"{base}/health").json() == {"status": "ok"}
        assert stranger.get(f"{base}/ready").status_code == 200


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (json.dumps({"model": "acme", "input": "word " * 2_000_000}), {}, 413),
        (json.dumps({"model": "acme", "input": "word " * 100_000}), {}, 400),
        (json.dumps({"model": "acme", "input": ["a"] * 100_000}), {}, 400),
        (json.dumps({"model": "acme", "input": 7}), {}, 400),
        (b"\xff\xfe{", {}, 400),
        (b"", {}, 400),
        (b"[]", {}, 400),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"{}", {"Content-Encoding": "gzip"}, 415),
    ],
    ids=["10 MB", "500 KB", "100,000 texts", "a number", "no UTF-8", "nothing", "a list", "no JSON", "compressed"],
)
def test_wrong_bodies_get_an_error_and_the_server_goes_on(
    raw: httpx.Client, content: bytes | str, headers: dict[str, str], status: int
) -> None:
    refused = raw.post("/embeddings", content=content, headers={"Content-Type": "application/json"} | headers)
    assert refused.status_code == status
    assert error_of(refused)["message"]
    assert raw.post("/embeddings", json={"model": "acme", "input": "short"}).status_code == 200


def test_a_body_that_does_not_arrive_times_out(address: str) -> None:
    host, port = address.removeprefix("http://").removesuffix("/v1").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.putrequest("POST", "/v1/embeddings")
    for name, value in {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}.items():
        connection.putheader(name, value)
    connection.putheader("Content-Length", "100")
    connection.endheaders(b'{"model"')
    assert connection.getresponse().status == 408
    connection.close()


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/embeddings", 405), ("POST", "/chat/completions", 404)]
)
def test_unknown_paths_list_the_known_ones(raw: httpx.Client, method: str, path: str, status: int) -> None:
    refused = raw.request(method, path)
    assert refused.status_code == status
    assert "/v1/embeddings" in error_of(refused)["message"]


def test_every_answer_has_a_request_id(raw: httpx.Client) -> None:
    assert raw.get("/models", headers={"x-request-id": "my-own.7"}).headers["x-request-id"] == "my-own.7"
    assert re.fullmatch("[0-9a-f]{32}", raw.get("/models", headers={"x-request-id": "a b"}).headers["x-request-id"])
    assert raw.get("/nothing").headers["x-request-id"]


def test_requests_per_minute_are_limited_for_each_caller() -> None:
    with embeddings_server("local", name="acme", limits=Limits(requests_per_minute=2)) as address:
        with httpx.Client(base_url=address) as caller:
            statuses = [caller.get("/models").status_code for _ in range(3)]
            refused = caller.get("/models")
        assert statuses == [200, 200, 429]
        assert int(refused.headers["retry-after"]) >= 1
        with (
            openai.OpenAI(base_url=address, api_key="none", max_retries=0) as client,
            pytest.raises(openai.RateLimitError),
        ):
            client.models.list()


def test_one_callers_failure_does_not_affect_others(local: FineTunedEmbedding) -> None:
    class Fragile(BaseEmbedding):
        """An embedding that fails on one text."""

        def _get_text_embedding(self, text: str) -> list[float]:
            if "poison" in text:
                raise RuntimeError(f"cannot embed {text}")
            time.sleep(0.01)
            return [1.0, 0.0]

        _get_query_embedding = _get_text_embedding

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return self._get_query_embedding(query)

    texts = ["poison here" if number == 20 else f"text {number}" for number in range(40)]
    with (
        embeddings_server(Fragile(model_name="fragile")) as address,
        openai.OpenAI(base_url=address, api_key="none", max_retries=0) as client,
        ThreadPoolExecutor(40) as pool,
    ):
        calls = [pool.submit(client.embeddings.create, model="fragile", input=[text, "other"]) for text in texts]
        failures = [call.exception() for call in calls]
        assert [place for place, failure in enumerate(failures) if failure is not None] == [20]
        assert isinstance(failures[20], openai.InternalServerError)
        assert "poison" not in str(failures[20])
        assert client.embeddings.create(model="fragile", input="again").data


def test_the_server_leaves_no_thread_behind(local: FineTunedEmbedding) -> None:
    import threading

    before = set(threading.enumerate())
    with embeddings_server(local) as address, httpx.Client() as caller:
        assert caller.get(f"{address}/models").status_code == 200
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "encoder"]


def test_a_model_folder_is_served(local: FineTunedEmbedding) -> None:
    with embeddings_server(Path(local.model_name), name="mine") as address, httpx.Client() as caller:
        listed = caller.get(f"{address}/models").json()["data"]
    assert [model["id"] for model in listed] == ["mine", "mine-query", "mine-passage"]
    assert listed[0]["dimensions"] == [64, 128, 384]
