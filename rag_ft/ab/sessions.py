"""The user or session that asks, and the variant that it is assigned to."""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import uuid
from collections.abc import Iterator

from rag_ft.feedback.variants import Variant

_session: contextvars.ContextVar[str | None] = contextvars.ContextVar("rag_ft_ab_session", default=None)


@contextlib.contextmanager
def ab_session(name: str) -> Iterator[None]:
    """Set the user or session that asks within a block, so that the same variant always answers.

    Example:
        >>> from rag_ft.ab import ab_session
        >>> with ab_session("user-42"):
        ...     pass  # query_engine.query(...)
    """
    token = _session.set(name)
    try:
        yield
    finally:
        _session.reset(token)


def current_session() -> str:
    """Return the name set by `ab_session`, or a random one outside of it, so that either variant may answer."""
    return _session.get() or uuid.uuid4().hex


def variant_of(session: str, fraction_b: float = 0.5, salt: str = "") -> Variant:
    """Return the variant that a user or session is assigned to. The assignment never changes.

    Args:
        session: any name.
        fraction_b: fraction of the sessions that are assigned to b.
        salt: any text; a different salt reassigns all sessions.

    Example:
        >>> from rag_ft.ab.sessions import variant_of
        >>> variant_of("user-42") == variant_of("user-42")
        True
    """
    digest = hashlib.sha256(f"{salt}\0{session}".encode("utf-8", "replace")).digest()
    return "b" if int.from_bytes(digest[:8]) / 2**64 < fraction_b else "a"
