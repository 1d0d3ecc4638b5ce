"""Call one variant or both. A variant that fails, hangs or blocks does not affect the other one."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for
from typing import Any, TypeVar

from llama_index.core.schema import QueryBundle

from rag_ft.ab.options import ABOptions
from rag_ft.ab.sessions import variant_of
from rag_ft.errors import OutsideError, without_secrets
from rag_ft.feedback.variants import VARIANTS, Variant, other

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_RUNNING_CALLS = 256
"""Maximum number of running calls of one variant, since a variant that hangs keeps its threads."""

MAX_REASON_CHARACTERS = 200

LOG_INTERVAL = 10.0
"""Minimum number of seconds between two log messages about one variant."""


class VariantCaller:
    """Calls the variants of an A/B test, each in its own thread or task.

    Args:
        options: how sessions are assigned, and how long a variant may take.
    """

    def __init__(self, options: ABOptions | None = None) -> None:
        self.options = options or ABOptions()
        self._warned: dict[Variant, float] = {}
        self._unlogged: Counter[Variant] = Counter()
        self._free = {variant: threading.BoundedSemaphore(MAX_RUNNING_CALLS) for variant in VARIANTS}

    def start(self, variant: Variant, call: Callable[[], T]) -> Future[T]:
        """Run a call of a variant in a new daemon thread."""
        future: Future[T] = Future()
        if not self._free[variant].acquire(blocking=False):
            future.set_exception(OutsideError(f"{MAX_RUNNING_CALLS} calls of this variant are still running"))
            return future
        future.set_running_or_notify_cancel()
        context = contextvars.copy_context()

        def run() -> None:
            try:
                result = context.run(call)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            finally:
                self._free[variant].release()

        try:
            threading.Thread(target=run, name=f"rag_ft-ab-{variant}", daemon=True).start()
        except RuntimeError as error:  # the system cannot start another thread
            self._free[variant].release()
            future.set_exception(error)
        return future

    async def run_in_thread(self, variant: Variant, call: Callable[[], T]) -> T:
        """Await a call that would block the event loop."""
        return await asyncio.wrap_future(self.start(variant, call))

    def ask(self, calls: Mapping[Variant, Callable[[], T]]) -> tuple[dict[Variant, T], dict[Variant, str]]:
        """Call several variants at once.

        Returns:
            (the result of each variant that answered, the reason for each that did not).
        """
        began = time.monotonic()
        futures = {variant: self.start(variant, call) for variant, call in calls.items()}
        pending, deadline = set(futures.values()), began + self.options.timeout
        while pending and (seconds_left := deadline - time.monotonic()) > 0:
            finished, pending = wait_for(pending, seconds_left, FIRST_COMPLETED)
            if any(future.exception() is None for future in finished):
                deadline = min(deadline, time.monotonic() + self.options.patience)
        return self._outcomes(futures, began)

    async def aask(
        self, calls: Mapping[Variant, Callable[[], Coroutine[Any, Any, T]]]
    ) -> tuple[dict[Variant, T], dict[Variant, str]]:
        """Do what `ask` does with coroutines, in the running event loop."""
        began = time.monotonic()
        tasks = {variant: asyncio.create_task(call()) for variant, call in calls.items()}
        pending, deadline = set(tasks.values()), began + self.options.timeout
        try:
            while pending and (seconds_left := deadline - time.monotonic()) > 0:
                finished, pending = await asyncio.wait(
                    pending, timeout=seconds_left, return_when=asyncio.FIRST_COMPLETED
                )
                if any(not task.cancelled() and task.exception() is None for task in finished):
                    deadline = min(deadline, time.monotonic() + self.options.patience)
            return self._outcomes(tasks, began)
        finally:
            for task in tasks.values():
                task.cancel()

    def ask_assigned(
        self, session: str, calls: Mapping[Variant, Callable[[], T]]
    ) -> tuple[Variant, T, dict[Variant, str]]:
        """Call the variant that a session is assigned to, and the other one if it fails.

        Returns:
            (the variant that answered, its result, the reason if the assigned one failed).

        Raises:
            OutsideError: if both fail.
        """
        failed: dict[Variant, str] = {}
        for variant in self._call_order(session):
            results, reasons = self.ask({variant: calls[variant]})
            failed |= reasons
            if variant in results:
                return variant, results[variant], failed
        raise both_failed(failed)

    async def aask_assigned(
        self, session: str, calls: Mapping[Variant, Callable[[], Coroutine[Any, Any, T]]]
    ) -> tuple[Variant, T, dict[Variant, str]]:
        """Do what `ask_assigned` does with coroutines, in the running event loop."""
        failed: dict[Variant, str] = {}
        for variant in self._call_order(session):
            results, reasons = await self.aask({variant: calls[variant]})
            failed |= reasons
            if variant in results:
                return variant, results[variant], failed
        raise both_failed(failed)

    def warn(self, variant: Variant, reason: str) -> None:
        """Log that a variant failed, at most once per `LOG_INTERVAL`. The vote log has every failure."""
        now = time.monotonic()
        if now - self._warned.get(variant, -LOG_INTERVAL) < LOG_INTERVAL:
            self._unlogged[variant] += 1
            return
        more = f", and {self._unlogged[variant]} more times since the last message" if self._unlogged[variant] else ""
        self._warned[variant], self._unlogged[variant] = now, 0
        logger.warning("variant %s failed (%s)%s", variant, reason, more)

    def _call_order(self, session: str) -> tuple[Variant, Variant]:
        first = variant_of(session, self.options.fraction_b, self.options.salt)
        return first, other(first)

    def _outcomes(
        self, calls: Mapping[Variant, Future[T]] | Mapping[Variant, asyncio.Task[T]], began: float
    ) -> tuple[dict[Variant, T], dict[Variant, str]]:
        results: dict[Variant, T] = {}
        failed: dict[Variant, str] = {}
        for variant, call in calls.items():
            if not call.done():
                failed[variant] = f"no answer after {time.monotonic() - began:.1f} s"
                continue
            try:
                results[variant] = call.result()
            except (Exception, asyncio.CancelledError) as error:
                failed[variant] = reason_of(error)
        for variant, reason in failed.items():
            self.warn(variant, reason)
        return results, failed


def reason_of(error: BaseException) -> str:
    """Return the error message in one line, without API keys."""
    message = " ".join(str(error).split())
    name = type(error).__name__
    return without_secrets(f"{name}: {message}" if message else name)[:MAX_REASON_CHARACTERS]


def both_failed(failed: Mapping[Variant, str]) -> OutsideError:
    """Return the error to raise if neither variant answers."""
    return OutsideError(
        f"both variants failed: {'; '.join(f'{variant}: {reason}' for variant, reason in sorted(failed.items()))}"
    )


def without_vector(bundle: QueryBundle) -> QueryBundle:
    """Copy a question without its vector, so that each variant embeds it with its own model."""
    return QueryBundle(
        query_str=bundle.query_str, image_path=bundle.image_path, custom_embedding_strs=bundle.custom_embedding_strs
    )
