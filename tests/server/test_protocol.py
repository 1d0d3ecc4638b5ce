"""The embeddings protocol without a server: requests, responses and limits."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_ft import InputError
from rag_ft.server.limits import Limits, RateLimit
from rag_ft.server.protocol import ROLES, ApiError, EmbeddingRequest, model_names, parse_request, response_parts

NAMES = model_names("acme")
LIMITS = Limits(texts=8, characters=50, queued_texts=8)
DIMENSIONS = (64, 384)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def parse(**asked: Any) -> EmbeddingRequest:
    return parse_request(json.dumps(asked).encode(), NAMES, DIMENSIONS, LIMITS)


def outcome(asked: dict[str, Any]) -> EmbeddingRequest | ApiError:
    try:
        return parse(**asked)
    except ApiError as error:
        return error


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "model": st.sampled_from([*NAMES, "other"]) | VALUES,
            "input": st.text(max_size=60) | st.lists(st.text(max_size=60), max_size=10) | VALUES,
            "encoding_format": st.sampled_from(["float", "base64"]) | VALUES,
            "dimensions": st.sampled_from(DIMENSIONS) | VALUES,
            "input_type": st.sampled_from(list(ROLES)) | VALUES,
            "user": VALUES,
        },
    )
)
def test_any_request_is_accepted_within_the_limits_or_refused_with_a_reason(asked: dict[str, Any]) -> None:
    found = outcome(asked)
    if isinstance(found, ApiError):
        assert found.status in (400, 404)
        assert "\n" not in json.loads(found.body)["error"]["message"]
        return
    assert found.texts == ([asked["input"]] if isinstance(asked["input"], str) else asked["input"])
    assert 0 < len(found.texts) <= LIMITS.texts
    assert all(0 < len(text) <= LIMITS.characters for text in found.texts)
    assert found.dimension in (None, *DIMENSIONS)
    assert found.role == (NAMES[found.model] or ROLES.get(asked.get("input_type") or "", "passage"))


@given(st.binary(max_size=200))
def test_invalid_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse_request(body, NAMES, DIMENSIONS, LIMITS)
    assert caught.value.status == 400


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(ApiError):
        parse_request(b"[" * 200_000, NAMES, DIMENSIONS, LIMITS)


@pytest.mark.parametrize(
    ("model", "input_type", "role"),
    [
        ("acme", None, "passage"),
        ("acme", "query", "query"),
        ("acme", "document", "passage"),
        ("acme-query", None, "query"),
        ("acme-passage", None, "passage"),
        ("acme-passage", "document", "passage"),
    ],
)
def test_the_role_follows_from_the_name_or_the_input_type(model: str, input_type: str | None, role: str) -> None:
    assert parse(model=model, input="x", input_type=input_type).role == role


@pytest.mark.parametrize(
    ("asked", "status", "param", "says"),
    [
        ({"input": "x"}, 400, "model", "acme-query"),
        ({"model": "gpt-4", "input": "x"}, 404, "model", "'gpt-4' is not served here"),
        ({"model": "acme"}, 400, "input", "input is null"),
        ({"model": "acme", "input": []}, 400, "input", "empty array"),
        ({"model": "acme", "input": ["a", ""]}, 400, "input", r"input\[1\] is an empty string"),
        ({"model": "acme", "input": ["a"] * 9}, 400, "input", "9 entries: send at most 8"),
        ({"model": "acme", "input": "a" * 51}, 400, "input", "51 characters: send at most 50"),
        ({"model": "acme", "input": {"text": "a"}}, 400, "input", "input is an object"),
        ({"model": "acme", "input": ["a", None]}, 400, "input", r"input\[1\] is null"),
        ({"model": "acme", "input": [1, 2, 3]}, 400, "input", "token ids"),
        ({"model": "acme", "input": [[1, 2], [3]]}, 400, "input", "token ids"),
        ({"model": "acme", "input": "\ud800"}, 400, "input", "half of a surrogate pair"),
        ({"model": "acme", "input": "x", "dimensions": 100}, 400, "dimensions", "100, but this model has 64, 384"),
        ({"model": "acme", "input": "x", "dimensions": "64"}, 400, "dimensions", "a string"),
        ({"model": "acme", "input": "x", "dimensions": True}, 400, "dimensions", "a boolean"),
        ({"model": "acme", "input": "x", "encoding_format": "int8"}, 400, "encoding_format", "base64"),
        ({"model": "acme", "input": "x", "input_type": "question"}, 400, "input_type", "'question': use one of query"),
        ({"model": "acme-query", "input": "x", "input_type": "passage"}, 400, "input_type", "leave input_type out"),
        ({"model": "acme", "input": "x", "input_typ": "query"}, 400, "input_typ", "unknown parameter"),
    ],
    ids=lambda value: "" if isinstance(value, dict | int) or value is None else None,
)
def test_an_error_names_the_parameter_and_the_fix(asked: dict[str, Any], status: int, param: str, says: str) -> None:
    with pytest.raises(ApiError, match=says) as caught:
        parse(**asked)
    assert (caught.value.status, caught.value.param) == (status, param)


def test_a_model_that_was_not_trained_for_it_gives_one_dimension() -> None:
    with pytest.raises(ApiError, match="for others, train it"):
        parse_request(b'{"model": "acme", "input": "x", "dimensions": 64}', NAMES, (384,), LIMITS)


@given(
    st.lists(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=150),
    st.integers(0, 10_000),
)
def test_base64_and_float_encode_the_same_vectors(rows: list[list[float]], tokens: int) -> None:
    vectors = np.asarray(rows, dtype=np.float32)
    answers = {}
    for encoding in ("float", "base64"):
        asked = EmbeddingRequest("acme", ["x"] * len(rows), "passage", None, encoding)  # type: ignore[arg-type]
        answers[encoding] = json.loads(b"".join(response_parts(vectors, asked, tokens)))
    assert answers["float"]["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    for place, (plain, packed) in enumerate(zip(answers["float"]["data"], answers["base64"]["data"], strict=True)):
        assert plain["index"] == packed["index"] == place
        assert plain["embedding"] == vectors[place].tolist()
        assert np.frombuffer(base64.b64decode(packed["embedding"]), "<f4").tolist() == vectors[place].tolist()


def test_only_a_caller_over_the_rate_waits() -> None:
    now = 0.0
    limit = RateLimit(120, clock=lambda: now)
    assert [limit.seconds_to_wait("one") for _ in range(4)] == [0, 0, 0, 1]
    assert limit.seconds_to_wait("other") == 0
    now = 0.5
    assert [limit.seconds_to_wait("one") for _ in range(2)] == [0, 1]
    assert RateLimit(None).seconds_to_wait("one") == 0


@pytest.mark.parametrize("wrong", [{"texts": 0}, {"requests_per_minute": -1}, {"texts": 100, "queued_texts": 99}])
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError):
        Limits(**wrong)  # type: ignore[arg-type]
