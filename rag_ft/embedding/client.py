"""Many texts -> their vectors: from the cache, else embedded, each on the disk before it counts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rag_ft.embedding.contract import ALIKE
from rag_ft.embedding.identity import (
    Role,
    address_of,
    identity_of,
    is_remote,
    knows_one_role,
    knows_weights,
    passage_vectors,
    probe,
    query_vectors,
)
from rag_ft.embedding.vector_cache import VectorCache
from rag_ft.errors import InputError, OutsideError, RagFtError, first_line
from rag_ft.files import sha256_of
from rag_ft.remote.estimate import Estimate, count_tokens, dollars
from rag_ft.remote.retries import attempts_for, is_retryable, pause_before_next

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.rate_limiter import BaseRateLimiter
    from numpy.typing import NDArray
    from tenacity import RetryCallState
    from tqdm import tqdm

logger = logging.getLogger(__name__)

Approve = Callable[[Estimate], bool]

AT_ONCE_HERE = 256
"""Texts between two writes to the cache, of a model on this machine."""

CHARACTERS_IN_A_REQUEST = 400_000
"""Of a server's request at most: OpenAI takes 300,000 tokens."""


@dataclass(frozen=True)
class RequestPolicy:
    """How texts are sent to a server.

    Attributes:
        workers: requests in flight.
        requests_per_minute: never send more in any minute.
        approve: is shown the estimate before the first request; nothing is sent where it returns False.
        batch: go through the OpenAI Batch API, at half the price and within a day.

    Example:
        >>> from rag_ft.embedding import RequestPolicy
        >>> from rag_ft.remote import Estimate
        >>> def approve(estimate):
        ...     return estimate.dollars is not None and estimate.dollars < 1
        >>> request_policy = RequestPolicy(workers=4, requests_per_minute=500, approve=approve)  # of train_adapter
        >>> request_policy.approve(Estimate("text-embedding-3-small", 20, 2_000_000, 0, dollars=0.04))
        True
    """

    workers: int = 8
    requests_per_minute: float | None = None
    approve: Approve | None = None
    batch: bool = False


@dataclass
class EmbeddingClient:
    """The vectors of a model, computed once.

    Args:
        embed_model: any LlamaIndex embedding. One whose vectors a server makes gets its texts in requests side by
            side; a request that fails with 429, 5xx, a timeout or a broken connection is sent again after a growing
            pause, or after the server's `Retry-After`.
        cache: where vectors are kept; None keeps none.
        request_policy: how texts are sent to a server.
    """

    embed_model: BaseEmbedding
    cache: VectorCache | None = None
    request_policy: RequestPolicy = field(default_factory=RequestPolicy)

    def __post_init__(self) -> None:
        self._version: int | None = None
        self._lock = threading.Lock()
        self._answered = False
        self._identities: dict[Role, str] = {}
        if self.request_policy.batch and self.cache is None:
            raise InputError("the Batch API needs a cache in a file: a batch may take a day, and a stopped run goes on")
        self._limiter = _limiter(self.request_policy.requests_per_minute)

    def embed(self, texts: Sequence[str], role: Role, show_progress: bool = False) -> NDArray[np.float32]:
        """The vectors of texts in a role, shape (texts, dimension).

        Raises:
            OutsideError: where the embedding fails for good; what was embedded is in the cache.
        """
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        keys = self._keys(texts, role, self._checked_version())
        known = self.cache.get(keys) if self.cache is not None else {}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if missing:
            if known:
                logger.info("%d of %d vectors are in the cache already", len(set(keys)) - len(missing), len(set(keys)))
            for found in self._made(missing, role, show_progress):
                known |= found
        return np.stack([known[key] for key in keys])

    def probe(self) -> NDArray[np.float32]:
        """What the model makes of the probe texts now, whatever is in the cache; shape (4, dimension).

        Raises:
            OutsideError: where the embedding fails.
        """
        if not is_remote(self.embed_model):
            return probe(self.embed_model)
        found: NDArray[np.float32] = self._retried(probe)(_without_own_retries(self.embed_model))
        return found

    def estimate(self, queries: Sequence[str], passages: Sequence[str]) -> Estimate:
        """What it takes to embed what is not in the cache; nothing is sent."""
        missing = {role: self._missing(texts, role) for role, texts in _by_role(queries, passages).items()}
        calls = sum(len(list(self._requests(dict(enumerate(texts)), role))) for role, texts in missing.items())
        tokens = count_tokens([text for texts in missing.values() for text in texts])
        model = self.embed_model
        price = dollars(
            model.model_name, address_of(model), tokens, batch=self.request_policy.batch, provider=_provider(model)
        ) if is_remote(model) else 0.0  # fmt: skip
        return Estimate(model.model_name, calls, tokens, 0, price)

    def approve(self, queries: Sequence[str], passages: Sequence[str]) -> None:
        """Show the estimate to whoever must agree (`RequestPolicy.approve`), where anything is to be sent to a server.

        Raises:
            InputError: where they do not.
        """
        if not is_remote(self.embed_model):
            return
        known = self._known_version()
        self._show(self.estimate(queries, passages))
        # Only a request tells whether the server still has the model of the vectors in the cache.
        if known and self._checked_version() != known:
            self._show(self.estimate(queries, passages))

    def _show(self, expected: Estimate) -> None:
        if expected.calls:
            logger.info("vectors: %s", expected)
            if self.request_policy.approve is not None and not self.request_policy.approve(expected):
                raise InputError(f"nothing was embedded: {expected}")

    def _missing(self, texts: Sequence[str], role: Role) -> list[str]:
        distinct = list(dict.fromkeys(texts))
        if self.cache is None or not distinct:
            return distinct
        version = self._version if self._version is not None else self._known_version()
        keys = self._keys(distinct, role, version)
        there = self.cache.has(keys)
        return [text for key, text in zip(keys, distinct, strict=True) if key not in there]

    def _keys(self, texts: Sequence[str], role: Role, version: int) -> list[bytes]:
        identity = self._identity(role)
        return [bytes.fromhex(sha256_of(identity, str(version), role, text)) for text in texts]

    def _name(self) -> bytes:
        return bytes.fromhex(sha256_of(self._identity("query"), self._identity("passage")))

    def _identity(self, role: Role) -> str:
        if role not in self._identities:  # found out once: it may hash the weights
            self._identities[role] = identity_of(self.embed_model, role)
        return self._identities[role]

    def _known_version(self) -> int:
        """The version of the model whose vectors are in the cache."""
        if self.cache is None or knows_weights(self.embed_model):
            return 0
        return self.cache.known_version(self._name())

    def _checked_version(self) -> int:
        """The version of the model that answers now: where its weights are not known, it is asked for a few vectors."""
        with self._lock:
            if self._version is None:
                if self.cache is None or knows_weights(self.embed_model):
                    self._version = 0
                else:
                    before = self.cache.known_version(self._name())
                    self._version = self.cache.version_of(self._name(), self.probe(), ALIKE)
                    if 0 < before < self._version:
                        logger.warning(
                            "%s makes other vectors than it did when the cache was filled: they are made anew",
                            self.embed_model.model_name,
                        )
            return self._version

    def _made(
        self, missing: dict[bytes, str], role: Role, show_progress: bool
    ) -> Iterator[dict[bytes, NDArray[np.float32]]]:
        """Vectors of texts, in parts; each part is in the cache when it comes."""
        from tqdm.auto import tqdm

        if self.request_policy.batch:
            from rag_ft.embedding.embedding_batch import embed_in_batches

            assert self.cache is not None
            yield embed_in_batches(self.embed_model, missing, self.cache, show_progress=show_progress)
            return
        with tqdm(
            total=len(missing), desc=f"vectors of {'queries' if role == 'query' else 'passages'}", unit="text",
            disable=not show_progress, dynamic_ncols=True,
        ) as bar:  # fmt: skip
            for part, vectors in self._answers(list(self._requests(missing, role)), role, bar):
                found = dict(zip(part, _checked(vectors, len(part), self.embed_model), strict=True))
                if self.cache is not None:
                    self.cache.put(found)
                yield found

    def _answers(
        self, parts: list[dict[bytes, str]], role: Role, bar: tqdm
    ) -> Iterator[tuple[dict[bytes, str], list[list[float]]]]:
        """(keys and texts, vectors) of each request, as they come."""
        model = _without_own_retries(self.embed_model)
        embed = query_vectors if role == "query" else passage_vectors
        if not is_remote(model):
            for part in parts:
                try:
                    vectors = embed(model, list(part.values()))
                except RagFtError:
                    raise
                except Exception as error:
                    raise self._failure(error) from error
                yield part, vectors
                bar.update(len(part))
            return
        ended = threading.Event()
        send = self._retried(embed, ended)
        pool = ThreadPoolExecutor(max_workers=self.request_policy.workers, thread_name_prefix="rag_ft-vectors")
        waiting = iter(parts)
        running: dict[Future[list[list[float]]], dict[bytes, str]] = {}
        try:
            while True:
                # No more are begun than are in flight: what is sent is paid for, and must reach the disk.
                for part in islice(waiting, self.request_policy.workers - len(running)):
                    running[pool.submit(send, model, list(part.values()))] = part
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    part = running.pop(future)
                    yield part, future.result()
                    bar.update(len(part))
        finally:
            ended.set()
            # What the others in flight bring is paid for too.
            for future, part in running.items():
                if not future.cancel() and self.cache is not None:
                    try:
                        checked = _checked(future.result(), len(part), model)
                        self.cache.put(dict(zip(part, checked, strict=True)))
                    except Exception as error:
                        logger.debug("a request in flight failed too: %s", type(error).__name__)
            pool.shutdown(wait=False, cancel_futures=True)

    def _retried(self, call: Callable[..., Any], ended: threading.Event | None = None) -> Callable[..., Any]:
        """A call to a server that is tried again, and whose last failure is one clear line."""
        from tenacity import Retrying, retry_if_exception
        from tenacity.nap import sleep_using_event

        stopping = ended or threading.Event()

        def stop(state: RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            return stopping.is_set() or state.attempt_number >= attempts_for(error, self._answered)

        retrying = Retrying(
            stop=stop,
            wait=pause_before_next,
            retry=retry_if_exception(is_retryable),
            sleep=sleep_using_event(stopping),
            reraise=True,
        )

        def once(*arguments: Any) -> Any:
            if self._limiter is not None:
                self._limiter.acquire()
            found = call(*arguments)
            self._answered = True
            return found

        def tried(*arguments: Any) -> Any:
            try:
                return retrying(once, *arguments)
            except RagFtError:
                raise
            except Exception as error:
                raise self._failure(error) from None  # its chain would print what the server said, keys included

        return tried

    def _failure(self, error: Exception) -> OutsideError:
        kept = "what was embedded is kept, the same command goes on" if self.cache is not None else "run it again"
        return OutsideError(f"the embedding {self.embed_model.model_name} failed ({first_line(error)}): {kept}")

    def _requests(self, missing: dict[Any, str], role: Role) -> Iterator[dict[Any, str]]:
        """Parts of texts, each of one request."""
        model = self.embed_model
        most = model.embed_batch_size if is_remote(model) else AT_ONCE_HERE
        if role == "query" and not hasattr(model, "query_embeddings") and not knows_one_role(model):
            most = 1 if is_remote(model) else most  # LlamaIndex has no method for many queries
        part: dict[Any, str] = {}
        size = 0
        for key, text in missing.items():
            if part and (len(part) >= most or size + len(text) > CHARACTERS_IN_A_REQUEST):
                yield part
                part, size = {}, 0
            part[key] = text
            size += len(text)
        if part:
            yield part


def opened_cache(cache: VectorCache | str | Path | Literal[False] | None) -> VectorCache | None:
    """A cache as users give it: a file, None for the one in the user's cache folder, False for none."""
    if cache is False:
        return None
    return cache if isinstance(cache, VectorCache) else VectorCache(cache or None)


def _by_role(queries: Sequence[str], passages: Sequence[str]) -> dict[Role, Sequence[str]]:
    return {"query": queries, "passage": passages}


def _checked(vectors: Sequence[Sequence[float]], count: int, model: BaseEmbedding) -> NDArray[np.float32]:
    """Vectors as numbers, shape (texts, dimension).

    Raises:
        OutsideError: where they are not.
    """
    lengths = {len(vector) for vector in vectors}
    if len(vectors) != count or len(lengths) != 1:
        raise OutsideError(f"the embedding {model.model_name} gave {len(vectors)} vectors of {count} texts: run again")
    found = np.asarray(vectors, dtype=np.float32)
    if not np.isfinite(found).all():
        raise OutsideError(f"the embedding {model.model_name} gave vectors with NaN or infinity: nothing was kept")
    return found


def _without_own_retries(model: BaseEmbedding) -> BaseEmbedding:
    """A copy that sends once: its own tries would neither be counted nor wait for the budget."""
    if not getattr(model, "max_retries", 0):
        return model
    copy = model.model_copy(update={"max_retries": 0})
    if getattr(copy, "_client", None) is not None:
        copy._client = None  # type: ignore[attr-defined]  # made with the retries of before
    return copy


def _provider(model: BaseEmbedding) -> str | None:
    """Whose model it is, by the package: `llama_index.embeddings.cohere` is Cohere's."""
    name = type(model).__module__.removeprefix("llama_index.embeddings.").split(".")[0]
    return "openai" if getattr(model, "_query_engine", None) is not None else name


def _limiter(requests_per_minute: float | None) -> BaseRateLimiter | None:
    if requests_per_minute is None:
        return None
    from llama_index.core.rate_limiter import SlidingWindowRateLimiter

    return SlidingWindowRateLimiter(requests_per_minute=requests_per_minute)
