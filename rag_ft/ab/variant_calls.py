"""Ask one variant or both, so that one that fails, hangs or blocks never takes the other one down."""

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
"""Maximum number of running calls of one variant. One that hangs keeps its threads, and must not take all there are."""

MAX_REASON_CHARACTERS = 200

LOG_INTERVAL = 10.0
"""Minimum number of seconds between two log lines about one variant."""


class VariantCaller:
    """Asks the variants of an A/B test, each in a thread or task of its own.

    Args:
        options: how sessions are assigned, and how long a variant may take.
    """

    def __init__(self, options: ABOptions | None = None) -> None:
        self.options = options or ABOptions()
        self._warned: dict[Variant, float] = {}
        self._unlogged: Counter[Variant] = Counter()
        self._free = {variant: threading.BoundedSemaphore(MAX_RUNNING_CALLS) for variant in VARIANTS}

    def start(self, variant: Variant, call: Callable[[], T]) -> Future[T]:
        """Run a call of a variant in a thread of its own, which never keeps the process alive."""
        future: Future[T] = Future()
        if not self._free[variant].acquire(blocking=False):
            future.set_exception(OutsideError(f"{MAX_RUNNING_CALLS} calls of it are still running"))
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
        except RuntimeError as error:  # no more threads
            self._free[variant].release()
            future.set_exception(error)
        return future

    async def run_in_thread(self, variant: Variant, call: Callable[[], T]) -> T:
        """Await a call that would block the event loop."""
        return await asyncio.wrap_future(self.start(variant, call))

    def ask(self, calls: Mapping[Variant, Callable[[], T]]) -> tuple[dict[Variant, T], dict[Variant, str]]:
        """Ask several variants at once.

        Returns:
            (the result of each variant that answered, the reason for each that did not).
        """
        began = time.monotonic()
        running = {variant: self.start(variant, call) for variant, call in calls.items()}
        waiting, deadline = set(running.values()), began + self.options.timeout
        while waiting and (left := deadline - time.monotonic()) > 0:
            done, waiting = wait_for(waiting, left, FIRST_COMPLETED)
            if any(future.exception() is None for future in done):
                deadline = min(deadline, time.monotonic() + self.options.patience)
        return self._outcomes(running, began)

    async def aask(
        self, calls: Mapping[Variant, Callable[[], Coroutine[Any, Any, T]]]
    ) -> tuple[dict[Variant, T], dict[Variant, str]]:
        """Do what `ask` does with coroutines, in the running event loop."""
        began = time.monotonic()
        tasks = {variant: asyncio.create_task(call()) for variant, call in calls.items()}
        waiting, deadline = set(tasks.values()), began + self.options.timeout
        try:
            while waiting and (left := deadline - time.monotonic()) > 0:
                done, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if any(not task.cancelled() and task.exception() is None for task in done):
                    deadline = min(deadline, time.monotonic() + self.options.patience)
            return self._outcomes(tasks, began)
        finally:
            for task in tasks.values():
                task.cancel()

    def ask_assigned(
        self, session: str, calls: Mapping[Variant, Callable[[], T]]
    ) -> tuple[Variant, T, dict[Variant, str]]:
        """Ask the variant that a session is assigned to, and the other one only if it fails.

        Returns:
            (the variant that answered, its result, the reason if the assigned one failed).

        Raises:
            OutsideError: if both fail.
        """
        failed: dict[Variant, str] = {}
        for variant in self._in_turn(session):
            found, reasons = self.ask({variant: calls[variant]})
            failed |= reasons
            if variant in found:
                return variant, found[variant], failed
        raise both_failed(failed)

    async def aask_assigned(
        self, session: str, calls: Mapping[Variant, Callable[[], Coroutine[Any, Any, T]]]
    ) -> tuple[Variant, T, dict[Variant, str]]:
        """Do what `ask_assigned` does with coroutines, in the running event loop."""
        failed: dict[Variant, str] = {}
        for variant in self._in_turn(session):
            found, reasons = await self.aask({variant: calls[variant]})
            failed |= reasons
            if variant in found:
                return variant, found[variant], failed
        raise both_failed(failed)

    def warn(self, variant: Variant, reason: str) -> None:
        """Log that a variant failed. One that keeps failing does not fill the log; the vote log has each failure."""
        now = time.monotonic()
        if now - self._warned.get(variant, -LOG_INTERVAL) < LOG_INTERVAL:
            self._unlogged[variant] += 1
            return
        more = f", and {self._unlogged[variant]} times more since the last line" if self._unlogged[variant] else ""
        self._warned[variant], self._unlogged[variant] = now, 0
        logger.warning("variant %s failed (%s)%s", variant, reason, more)

    def _in_turn(self, session: str) -> tuple[Variant, Variant]:
        first = variant_of(session, self.options.fraction_b, self.options.salt)
        return first, other(first)

    def _outcomes(
        self, calls: Mapping[Variant, Future[T]] | Mapping[Variant, asyncio.Task[T]], began: float
    ) -> tuple[dict[Variant, T], dict[Variant, str]]:
        found: dict[Variant, T] = {}
        failed: dict[Variant, str] = {}
        for variant, call in calls.items():
            if not call.done():
                failed[variant] = f"no answer after {time.monotonic() - began:.1f} s"
                continue
            try:
                found[variant] = call.result()
            except (Exception, asyncio.CancelledError) as error:
                failed[variant] = reason_of(error)
        for variant, reason in failed.items():
            self.warn(variant, reason)
        return found, failed


def reason_of(error: BaseException) -> str:
    """Return what went wrong, in one line without keys."""
    message = " ".join(str(error).split())
    name = type(error).__name__
    return without_secrets(f"{name}: {message}" if message else name)[:MAX_REASON_CHARACTERS]


def both_failed(failed: Mapping[Variant, str]) -> OutsideError:
    """Return the error that is raised if neither variant answers."""
    return OutsideError(
        f"both variants failed: {'; '.join(f'{variant}: {why}' for variant, why in sorted(failed.items()))}"
    )


def without_vector(bundle: QueryBundle) -> QueryBundle:
    """Copy a question without its vector, which is another model's: each variant embeds the question itself."""
    return QueryBundle(
        query_str=bundle.query_str, image_path=bundle.image_path, custom_embedding_strs=bundle.custom_embedding_strs
    )
