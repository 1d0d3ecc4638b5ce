"""The server's log: a JSON object a line, without texts and without keys."""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

FIELDS = "rag_ft_fields"


class JsonFormatter(logging.Formatter):
    """A record as one JSON object: `time`, `level`, `event`, and what was given as fields.

    Of an exception only its kind and place are shown: its message may hold somebody's text.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = type(record.exc_info[1]).__name__
            frames = traceback.extract_tb(record.exc_info[2])
            line["at"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
        return json.dumps(line, ensure_ascii=False)


def log_event(
    logger: logging.Logger, level: int, event: str, error: BaseException | None = None, **fields: Any
) -> None:
    """Write an event with its fields; those that are None are left out."""
    logger.log(
        level,
        event,
        exc_info=error,
        extra={FIELDS: {name: value for name, value in fields.items() if value is not None}},
    )


def log_as_json(stream: TextIO, level: int) -> None:
    """Let rag_ft and uvicorn log as JSON lines to a stream, and nowhere else."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    for name, least in (("rag_ft", level), ("uvicorn", max(level, logging.WARNING))):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(least)
