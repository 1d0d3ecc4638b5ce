"""Silence from the libraries under the Trainer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rag_ft.quiet import quiet_libraries


@contextmanager
def quiet_trainer() -> Iterator[None]:
    """No tables and no prints of the Trainer: the library that uses it speaks through logging."""
    from transformers import trainer as hf_trainer

    before = hf_trainer.PrinterCallback.on_log
    hf_trainer.PrinterCallback.on_log = lambda *args, **kwargs: None
    try:
        with quiet_libraries():
            yield
    finally:
        hf_trainer.PrinterCallback.on_log = before
