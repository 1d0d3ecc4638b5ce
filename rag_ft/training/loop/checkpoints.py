"""Checkpoints that a killed training resumes from: the Trainer's own, with the dev scores and best weights so far."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from rag_ft.errors import InputError, first_line
from rag_ft.files import outside_failures, write_text

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

COMPLETE = "complete"
LOCK = "lock"
PLAN = "plan.json"
STATE = "state.json"
BEST = "best.safetensors"

SECONDS_BETWEEN = 60.0
"""Minimum time between two checkpoints: a kill loses about this much training."""

MAX_TIME_FRACTION = 0.05
"""Maximum fraction of the time for checkpoints. Those of a 1 GB model take 9 GB, so they are written less often."""

OTHER_TRAININGS = 1
"""Number of trainings with other arguments or data whose checkpoints are kept: a forgotten option must not lose hours
of work."""


@dataclass
class Checkpoints:
    """The folder beside the model folder that holds the checkpoints until the model is saved.

    Attributes:
        folder: the folder of this training.
        lock: keeps other processes out.
    """

    folder: Path
    lock: FileLock

    @staticmethod
    def read_plan(output: Path, fingerprint: str) -> dict[str, int] | None:
        """Return the epochs and pairs that an interrupted training planned for its time limit; None without one."""
        file = _root(output) / fingerprint / PLAN
        try:
            return {name: int(value) for name, value in json.loads(file.read_text(encoding="utf-8")).items()}
        except (OSError, ValueError):
            return None

    @classmethod
    def open(cls, output: Path, fingerprint: str, plan: dict[str, int]) -> Checkpoints:
        """Open the checkpoints of a training. Of other trainings of this model folder only the latest is kept.

        Args:
            output: the model folder.
            fingerprint: hash of everything that the training depends on; it names the folder.
            plan: the epochs and pairs that fit into the time limit.

        Raises:
            InputError: if another process is training this model.
        """
        root = _root(output)
        with outside_failures(root):
            root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"{output} is being trained by another process: wait for it, or choose another --output"
            ) from None
        folder = root / fingerprint
        others = [each for each in root.iterdir() if each.is_dir() and each != folder]
        others.sort(key=_last_written, reverse=True)
        if others and not folder.exists():
            logger.warning(
                "the interrupted training of %s had other arguments or data: starting over; its checkpoints are kept "
                "until this training finishes", output,
            )  # fmt: skip
        for each in others[OTHER_TRAININGS:]:
            shutil.rmtree(each)
        folder.mkdir(exist_ok=True)
        if not (folder / PLAN).exists():
            write_text(folder / PLAN, json.dumps(plan))
        return cls(folder, lock)

    def stage(self, name: str) -> Path:
        """Create the folder of one stage of the training (a round of mining)."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return folder

    def remove(self) -> None:
        """Delete all checkpoints, because the model is saved. Another process may start once the lock is released."""
        root = self.folder.parent
        for each in root.iterdir():
            if each.is_dir():
                shutil.rmtree(each)
        self.close()
        with suppress(OSError):
            (root / LOCK).unlink(missing_ok=True)
            root.rmdir()

    def close(self) -> None:
        """Release the lock."""
        self.lock.release()


def _last_written(folder: Path) -> float:
    """Return when the last complete checkpoint of a training was written; 0 if there is none."""
    return max((each.stat().st_mtime for each in folder.glob(f"*/checkpoint-*/{COMPLETE}")), default=0.0)


def _root(output: Path) -> Path:
    return output.parent / f".{output.name}.training"


def last_complete(folder: Path) -> Path | None:
    """Find the newest complete checkpoint, and delete incomplete ones."""
    newest = None
    for each in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[1])):
        if (each / COMPLETE).exists():
            newest = each
        else:
            shutil.rmtree(each)
    return newest


@contextmanager
def discard_unwritable(checkpoint: Path) -> Iterator[None]:
    """Delete a checkpoint that cannot be written, for example to a full disk, and let the training continue."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = first_line(error)
        if isinstance(error, RuntimeError):
            if "inline_container" not in reason:  # torch's writer has no specific error class
                raise
            reason = "is the disk full?"
        shutil.rmtree(checkpoint, ignore_errors=True)
        logger.warning("%s could not be written (%s): training continues without this checkpoint", checkpoint, reason)


def save_progress(folder: Path, state: dict[str, Any], best: dict[str, torch.Tensor] | None) -> None:
    """Write the dev scores and the best weights into a checkpoint, and mark it as complete."""
    from safetensors.torch import save_file

    if best is not None:
        save_file({name: tensor.contiguous() for name, tensor in best.items()}, folder / BEST)
    (folder / STATE).write_text(json.dumps(state), encoding="utf-8")
    (folder / COMPLETE).touch()


def load_progress(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor] | None]:
    """Read the dev scores and the best weights of a checkpoint."""
    from safetensors.torch import load_file

    best = load_file(folder / BEST) if (folder / BEST).exists() else None
    return json.loads((folder / STATE).read_text(encoding="utf-8")), best
