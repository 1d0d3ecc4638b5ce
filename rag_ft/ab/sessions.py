"""Who asks, and which side they get: always the same one."""

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
    """Who asks, for the block: a user or a session that always gets the same side.

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
    """The name that `ab_session` gave; a new one outside of it, so that whoever is not named gets any side."""
    return _session.get() or uuid.uuid4().hex


def side_of(session: str, share: float = 0.5, salt: str = "") -> Variant:
    """The side of a user or session: always the same one, and as many on each as the share says.

    Args:
        session: any name.
        share: of sessions that see b.
        salt: another one deals sessions anew.

    Example:
        >>> from rag_ft.ab.sessions import side_of
        >>> side_of("user-42") == side_of("user-42")
        True
    """
    digest = hashlib.sha256(f"{salt}\0{session}".encode("utf-8", "replace")).digest()
    return "b" if int.from_bytes(digest[:8]) / 2**64 < share else "a"
