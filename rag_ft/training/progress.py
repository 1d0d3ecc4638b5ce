"""A progress bar for the Trainer, and silence from the libraries under it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback

from rag_ft.quiet import quiet_libraries


class ProgressBar(TrainerCallback):
    """Steps done, rate and time left."""

    def __init__(self, description: str) -> None:
        self.description = description
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar."""
        self.bar = tqdm(total=state.max_steps, desc=self.description, unit="step", dynamic_ncols=True)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One step further."""
        self.bar.update(1)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        self.bar.close()


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
