"""What a training that is killed goes on from: the Trainer's own checkpoints, and what was found on dev by then."""

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
"""Of training that a kill may cost."""

LARGEST_PART = 0.05
"""Of the time that checkpoints may take: those of a model of a gigabyte are nine, and come less often."""


OTHERS = 1
"""Trainings of other arguments or data whose checkpoints stay beside: a forgotten option must not throw hours away."""


@dataclass
class Checkpoints:
    """A folder beside the model's, until the model stands, with one for each training that was begun there.

    Attributes:
        folder: of this training.
        lock: holds off a second process.
    """

    folder: Path
    lock: FileLock

    @staticmethod
    def plan(output: Path, fingerprint: str) -> dict[str, int] | None:
        """What a training that broke off had fitted into its time; None where there is none of this fingerprint."""
        file = _folder(output) / fingerprint / PLAN
        try:
            return {name: int(value) for name, value in json.loads(file.read_text(encoding="utf-8")).items()}
        except (OSError, ValueError):
            return None

    @classmethod
    def beside(cls, output: Path, fingerprint: str, plan: dict[str, int]) -> Checkpoints:
        """The checkpoints of a training; of others at the same place the latest alone is kept.

        Args:
            output: the model's folder.
            fingerprint: of all that the training depends on; it names the folder.
            plan: how much of it fits its time.

        Raises:
            InputError: where another process trains this model now.
        """
        every = _folder(output)
        with outside_failures(every):
            every.mkdir(parents=True, exist_ok=True)
        lock = FileLock(every / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"{output} is being trained by another process: wait for it, or choose another --output"
            ) from None
        folder = every / fingerprint
        others = [each for each in every.iterdir() if each.is_dir() and each != folder]
        others.sort(key=_last_written, reverse=True)
        if others and not folder.exists():
            logger.warning(
                "the training of %s that broke off had other arguments or data: this one begins anew, and that one's "
                "checkpoints stay until a model stands", output,
            )  # fmt: skip
        for each in others[OTHERS:]:
            shutil.rmtree(each)
        folder.mkdir(exist_ok=True)
        if not (folder / PLAN).exists():
            write_text(folder / PLAN, json.dumps(plan))
        return cls(folder, lock)

    def stage(self, name: str) -> Path:
        """The folder of one training among several (a round of mining)."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return folder

    def remove(self) -> None:
        """Throw all away: the model stands. Another process may begin as soon as the lock is released."""
        every = self.folder.parent
        for each in every.iterdir():
            if each.is_dir():
                shutil.rmtree(each)
        self.close()
        with suppress(OSError):
            (every / LOCK).unlink(missing_ok=True)
            every.rmdir()

    def close(self) -> None:
        """Let another process have them."""
        self.lock.release()


def _last_written(folder: Path) -> float:
    """When the last checkpoint of a training was complete; 0 where none was."""
    return max((each.stat().st_mtime for each in folder.glob(f"*/checkpoint-*/{COMPLETE}")), default=0.0)


def _folder(output: Path) -> Path:
    return output.parent / f".{output.name}.training"


def last_complete(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; broken ones are removed."""
    found = None
    for each in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[1])):
        if (each / COMPLETE).exists():
            found = each
        else:
            shutil.rmtree(each)
    return found


@contextmanager
def spared(checkpoint: Path) -> Iterator[None]:
    """A checkpoint that cannot be written, on a full disk say, is removed and ends no training."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = first_line(error)
        if isinstance(error, RuntimeError):
            if "inline_container" not in reason:  # torch's writer has no error of its own
                raise
            reason = "is the disk full?"
        shutil.rmtree(checkpoint, ignore_errors=True)
        logger.warning("%s could not be written (%s): training goes on without this checkpoint", checkpoint, reason)


def save_progress(folder: Path, state: dict[str, Any], best: dict[str, torch.Tensor] | None) -> None:
    """Write what dev said so far, and the best weights, into a checkpoint, and mark it as complete."""
    from safetensors.torch import save_file

    if best is not None:
        save_file({name: tensor.contiguous() for name, tensor in best.items()}, folder / BEST)
    (folder / STATE).write_text(json.dumps(state), encoding="utf-8")
    (folder / COMPLETE).touch()


def load_progress(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor] | None]:
    """(what dev said, the best weights) of a checkpoint."""
    from safetensors.torch import load_file

    best = load_file(folder / BEST) if (folder / BEST).exists() else None
    return json.loads((folder / STATE).read_text(encoding="utf-8")), best
