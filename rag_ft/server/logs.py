"""The server's log: one JSON object per line, without texts and keys."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

FIELDS = "rag_ft_fields"


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object with `time`, `level`, `event` and the event's fields.

    For an exception it writes only the class and the location, since the message may contain a caller's text.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format one line."""
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
    logger: logging.Logger, level: int, event: str, fields: Mapping[str, Any], error: BaseException | None = None
) -> None:
    """Log an event with its fields; fields that are None are left out.

    Args:
        logger: the logger.
        level: a level of the logging module.
        event: name of the event.
        fields: entries of the JSON object.
        error: an exception whose class and location are logged.
    """
    logger.log(
        level,
        event,
        exc_info=error,
        extra={FIELDS: {name: value for name, value in fields.items() if value is not None}},
    )


def log_as_json(stream: TextIO, level: int) -> None:
    """Make rag_ft and uvicorn log JSON lines to a stream, and nowhere else."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    for name, minimum in (("rag_ft", level), ("uvicorn", max(level, logging.WARNING))):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(minimum)
