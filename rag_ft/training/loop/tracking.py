"""How a training shows its progress: a progress bar, and the experiment trackers that the Trainer supports."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rag_ft.errors import InputError

TENSORBOARD_FOLDER = "TENSORBOARD_LOGGING_DIR"


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """How a training shows its progress.

    Attributes:
        show_progress: show a progress bar with the time left and the dev score.
        report_to: trackers of the Trainer: `tensorboard`, `trackio`, `mlflow`, `wandb`, ...
        logs: the folder for TensorBoard's files.
    """

    show_progress: bool = False
    report_to: Sequence[str] = ()
    logs: Path | None = None


def check_trackers(names: Sequence[str]) -> None:
    """Raise an `InputError` if the Trainer does not support a tracker, or its package is missing."""
    if not names:
        return
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            supported = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise InputError(f"there is no tracker {name!r}: choose one of {supported}")
        if name not in get_available_reporting_integrations():
            raise InputError(f"--report-to {name} needs its package: pip install {name}")


@contextmanager
def tensorboard_folder(folder: Path | None) -> Iterator[None]:
    """Let TensorBoard write into a folder, unless the user set one.

    By default the Trainer writes into the folder of the checkpoints, which is deleted in the end.
    """
    if folder is None or TENSORBOARD_FOLDER in os.environ:
        yield
        return
    os.environ[TENSORBOARD_FOLDER] = str(folder)
    try:
        yield
    finally:
        del os.environ[TENSORBOARD_FOLDER]
