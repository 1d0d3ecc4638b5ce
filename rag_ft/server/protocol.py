"""OpenAI's embeddings protocol: parsing requests, writing responses, and errors."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rag_ft.server.limits import Limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

Role = Literal["query", "passage"]

ROLES: dict[str, Role] = {
    "query": "query",
    "search_query": "query",
    "passage": "passage",
    "document": "passage",
    "search_document": "passage",
}
"""Values of `input_type`, with the names that other servers use."""

PARAMETERS = ("model", "input", "encoding_format", "dimensions", "input_type", "user")
VECTORS_PER_PART = 64
"""Number of vectors to write before the event loop serves other requests."""


class ApiError(Exception):
    """An error in OpenAI's format.

    Args:
        status: HTTP status.
        message: one line with the problem, the value and the fix, without the caller's texts or keys.
        param: the parameter that is wrong.
        code: error code for programs.
        retry_after: seconds to wait, sent as a header.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.retry_after = status, message, param, code, retry_after

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the response."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})

    @property
    def body(self) -> bytes:
        """The JSON body: `{"error": {"message", "type", "param", "code"}}`."""
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(self.status)
        kind = kind or ("server_error" if self.status >= 500 else "invalid_request_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()


@dataclass(frozen=True)
class EmbeddingRequest:
    """A request to `/v1/embeddings`.

    Attributes:
        model: the model's name as the caller sent it.
        texts: one or more texts.
        role: the role of the texts, which selects their prefix.
        dimension: numbers in a vector; None for the full dimension.
        encoding: encoding of the vectors in the response.
    """

    model: str
    texts: list[str]
    role: Role
    dimension: int | None
    encoding: Literal["float", "base64"]


def model_names(name: str) -> dict[str, Role | None]:
    """Return the names of a model and the role of each; None lets the caller choose, with passage as the default.

    Example:
        >>> from rag_ft.server.protocol import model_names
        >>> model_names("acme")
        {'acme': None, 'acme-query': 'query', 'acme-passage': 'passage'}
    """
    return {name: None, f"{name}-query": "query", f"{name}-passage": "passage"}


def parse_request(
    body: bytes, names: Mapping[str, Role | None], dimensions: Sequence[int], limits: Limits
) -> EmbeddingRequest:
    """Parse the body of a request to `/v1/embeddings`.

    Args:
        body: the JSON text.
        names: names of the model (`model_names`).
        dimensions: dimensions that may be requested.
        limits: limits on the request.

    Raises:
        ApiError: with status 400, or 404 for an unknown model; the message names the parameter and the fix.

    Example:
        >>> from rag_ft.server.limits import Limits
        >>> from rag_ft.server.protocol import model_names, parse_request
        >>> body = b'{"model": "acme-query", "input": "How do I claim expenses?"}'
        >>> parse_request(body, model_names("acme"), [384], Limits()).role
        'query'
    """
    fix = "send an object with model and input"
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        raise _invalid(None, "invalid_json", f"the body is not valid JSON: {fix}") from None
    if not isinstance(values, dict):
        raise _invalid(None, "invalid_json", f"the body is {_json_type(values)}: {fix}")
    if unknown := sorted(set(values) - set(PARAMETERS)):
        shown = _printable(unknown[0], 40)
        message = f"unknown parameter {shown!r}: use {', '.join(PARAMETERS)}"
        raise _invalid(shown, "unknown_parameter", message)
    model = _parse_model(values.get("model"), names)
    return EmbeddingRequest(
        model=model,
        texts=_parse_texts(values.get("input"), limits),
        role=_parse_role(values.get("input_type"), model, names[model]),
        dimension=_parse_dimension(values.get("dimensions"), dimensions),
        encoding=_parse_encoding(values.get("encoding_format")),
    )


def _invalid(param: str | None, code: str, message: str) -> ApiError:
    return ApiError(400, message, param, code)


def _json_type(value: Any) -> str:
    """Name the JSON type of a value."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _printable(text: str, limit: int) -> str:
    """Shorten a caller's text for a message, and replace what UTF-8 cannot encode."""
    return text[:limit].encode(errors="replace").decode()


def _parse_model(value: Any, names: Mapping[str, Role | None]) -> str:
    served = ", ".join(names)
    if not isinstance(value, str):
        raise _invalid("model", "invalid_type", f"model is {_json_type(value)}: use one of {served}")
    if value not in names:
        message = f"the model {_printable(value, 80)!r} is not served here: use one of {served}"
        raise ApiError(404, message, "model", "model_not_found")
    return value


def _parse_texts(value: Any, limits: Limits) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list):
        raise _invalid("input", "invalid_type", f"input is {_json_type(value)}: send a string or an array of strings")
    if not texts:
        raise _invalid("input", "empty_array", "input is an empty array: send one or more texts")
    if len(texts) > limits.texts:
        message = f"input has {len(texts)} entries: send at most {limits.texts} in a request"
        raise _invalid("input", "array_above_max_length", message)
    for position, text in enumerate(texts):
        _check_text(position, text, limits)
    return texts


def _check_text(position: int, text: Any, limits: Limits) -> None:
    if not isinstance(text, str):
        raise _not_a_text(position, text)
    if not text:
        raise _invalid("input", "empty_string", f"input[{position}] is an empty string: leave it out")
    if len(text) > limits.characters:
        message = f"input[{position}] has {len(text)} characters: send at most {limits.characters}"
        raise _invalid("input", "string_above_max_length", message)
    try:
        text.encode()
    except UnicodeEncodeError:
        message = f"input[{position}] has half of a surrogate pair: send valid Unicode"
        raise _invalid("input", "invalid_unicode", message) from None


def _not_a_text(position: int, value: Any) -> ApiError:
    """Return the error for an entry that is not a string; clients that tokenise send token ids."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if is_number or (isinstance(value, list) and all(isinstance(token, int) for token in value)):
        return _invalid(
            "input",
            "token_ids_not_supported",
            "input holds token ids, but this model has another vocabulary than your tokenizer: send texts "
            "(LangChain's OpenAIEmbeddings: check_embedding_ctx_length=False)",
        )
    return _invalid("input", "invalid_type", f"input[{position}] is {_json_type(value)}: send strings")


def _parse_role(value: Any, model: str, role_of_name: Role | None) -> Role:
    if value is None:
        return role_of_name or "passage"
    if not isinstance(value, str) or value not in ROLES:
        shown = repr(_printable(value, 40)) if isinstance(value, str) else _json_type(value)
        raise _invalid("input_type", "invalid_value", f"input_type is {shown}: use one of {', '.join(ROLES)}")
    if role_of_name is not None and ROLES[value] != role_of_name:
        message = f"input_type is {value!r}, but the model {model!r} sets another role: leave input_type out"
        raise _invalid("input_type", "invalid_value", message)
    return ROLES[value]


def _parse_dimension(value: Any, dimensions: Sequence[int]) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        shown = f"{value:g}" if isinstance(value, float) else _json_type(value)
        raise _invalid("dimensions", "invalid_type", f"dimensions is {shown}: send a whole number")
    if value not in dimensions:
        shown = str(value) if abs(value) < 10**9 else "too large a number"
        available = ", ".join(map(str, sorted(dimensions)))
        hint = "" if len(dimensions) > 1 else " (for others, train it with rag-ft train --dimension)"
        message = f"dimensions is {shown}, but this model has {available}{hint}"
        raise _invalid("dimensions", "invalid_value", message)
    return value


def _parse_encoding(value: Any) -> Literal["float", "base64"]:
    if value is None or value == "float":
        return "float"
    if value == "base64":
        return "base64"
    raise _invalid("encoding_format", "invalid_value", "encoding_format must be 'float' or 'base64'")


def response_parts(vectors: NDArray[Any], request: EmbeddingRequest, tokens: int) -> Iterator[bytes]:
    """Write the response in parts of `VECTORS_PER_PART` vectors.

    Args:
        vectors: shape (texts, dimension), float32.
        request: the request.
        tokens: number of tokens that the model read, prefixes included.
    """
    yield b'{"object":"list","data":['
    for start in range(0, len(vectors), VECTORS_PER_PART):
        part = vectors[start : start + VECTORS_PER_PART]
        encoded = map(_base64, part) if request.encoding == "base64" else map(json.dumps, part.tolist())
        rows = (
            f'{{"object":"embedding","index":{position},"embedding":{numbers}}}'
            for position, numbers in enumerate(encoded, start)
        )
        yield ("," * (start > 0) + ",".join(rows)).encode()
    usage = f'{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}'
    yield f'],"model":{json.dumps(request.model)},"usage":{usage}}}'.encode()


def _base64(vector: NDArray[Any]) -> str:
    return f'"{base64.b64encode(vector.astype("<f4").tobytes()).decode()}"'
