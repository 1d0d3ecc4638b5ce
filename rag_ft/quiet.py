"""Silence libraries whose progress bars and warnings do not concern the user."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

NOISY = ("transformers", "accelerate", "datasets", "sentence_transformers", "huggingface_hub", "httpx", "torch.onnx")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hide the progress bars of transformers and all log lines below ERROR while the block runs."""
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in loggers]
    had_progress_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if had_progress_bars:
            transformers_logging.enable_progress_bar()
