"""The Trainer's callback: it measures dev, keeps the best weights, requests checkpoints and shows the progress."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm
from transformers import TrainerCallback

from rag_ft.training.loop.checkpoints import (
    MAX_TIME_FRACTION,
    SECONDS_BETWEEN,
    discard_unwritable,
    last_complete,
    load_progress,
    save_progress,
)
from rag_ft.training.loop.fit_result import FitResult
from rag_ft.training.loop.lora import has_lora, merged_weights
from rag_ft.training.recipe import Recipe
from rag_ft.training.selection.weights import copy_weights

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

DEV_SCORES = 5
"""Approximate number of dev scores of a training with long epochs, so that even one epoch has several candidates."""

STEPS_BETWEEN = 100
"""Minimum number of steps between two dev scores within an epoch: each score costs time."""


class TrainingMonitor(TrainerCallback):
    """Measure dev after each epoch and within long ones, keep the best weights, and save progress in checkpoints.

    Args:
        model: the model that is trained.
        measure_dev: a function that returns the model's current dev score. Without it the last weights are the best.
        recipe: the recipe; its epochs, rounds and patience are used.
        show_progress: show a progress bar with the time left and the dev score.
        keep_best: measure dev and keep weights; a trial run does neither.

    Attributes:
        result: the result so far.
        seconds: training time, without the time for dev.
        interrupted: whether the training ends after the current step.
        log: the Trainer's function that logs values.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        measure_dev: Callable[[], float] | None,
        recipe: Recipe,
        *,
        show_progress: bool,
        keep_best: bool,
    ) -> None:
        self.model, self.measure_dev, self.recipe = model, measure_dev, recipe
        self.show_progress, self.keep_best = show_progress, keep_best
        self.result = FitResult()
        self.log: Callable[[dict[str, float]], None] = lambda values: None
        self.interrupted = False
        self.seconds = 0.0
        self._bar: Any = None
        self._best = float("-inf")
        self._epochs_without_gain = 0
        self._resumed_at = self._saved_at = self._requested_at = 0.0
        self._seconds_between = SECONDS_BETWEEN

    @property
    def is_out_of_patience(self) -> bool:
        """Whether dev has not improved for as many epochs as the recipe allows."""
        return self._epochs_without_gain >= self.recipe.patience

    def request_stop(self) -> None:
        """End the training after the current step."""
        self.interrupted = True

    def resume(self, folder: Path) -> Path | None:
        """Restore the progress of the last checkpoint in a folder, and return the checkpoint; None if there is none."""
        checkpoint = last_complete(folder)
        if checkpoint is not None:
            state, weights = load_progress(checkpoint)
            self.result = FitResult(state["scores"], weights, state["losses"])
            self._best, self._epochs_without_gain = state["best"], state["waited"]
            logger.info("resuming from step %s", checkpoint.name.rsplit("-", 1)[1])
        return checkpoint

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._resumed_at = self._saved_at = time.monotonic()
        if self.show_progress:
            self._bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc="training", unit="step", dynamic_ncols=True
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.update(1)
        if self.interrupted:
            control.should_training_stop = True
        elif self.keep_best and state.epoch % 1:
            # No checkpoint after the last step of an epoch: a training that resumes there would not measure dev.
            steps = round(state.max_steps / self.recipe.epochs)
            if self.measure_dev is not None and is_measured_after(state.global_step, steps, self.recipe.epochs):
                # With a high learning rate dev goes up and down: only the end of an epoch counts against patience.
                self._measure(f"epoch {state.epoch:.2f}", within_epoch=True)
            self._request_checkpoint(control)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in (logs or {}):
            self.result.losses.append(float(logs["loss"]))

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.keep_best or state.epoch % 1:  # the training was stopped within the epoch
            return
        self._measure(f"epoch {round(state.epoch)}")
        # A complete round is not repeated if a later one is killed.
        self._request_checkpoint(control, now=self.recipe.rounds > 1)
        if self.is_out_of_patience and state.global_step < state.max_steps:
            logger.info("no improvement for %d epochs: training ends", self._epochs_without_gain)
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._stop_clock()
        self._resumed_at = time.monotonic()
        self.result.interrupted = self.interrupted
        if self.interrupted and self.keep_best and state.epoch % 1:
            self._measure(f"step {state.global_step}")
        if self._bar is not None:
            self._bar.close()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        progress = {
            "scores": self.result.scores,
            "losses": self.result.losses,
            "best": self._best,
            "waited": self._epochs_without_gain,
        }
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if checkpoint.is_dir():
            with discard_unwritable(checkpoint):
                save_progress(checkpoint, progress, self.result.weights)
        self._saved_at = time.monotonic()
        self._seconds_between = max(SECONDS_BETWEEN, (self._saved_at - self._requested_at) / MAX_TIME_FRACTION)

    def _request_checkpoint(self, control: Any, now: bool = False) -> None:
        self._requested_at = time.monotonic()
        control.should_save = now or self._requested_at - self._saved_at > self._seconds_between

    def _stop_clock(self) -> None:
        self.seconds += time.monotonic() - self._resumed_at

    def _measure(self, name: str, within_epoch: bool = False) -> None:
        """Measure dev, and keep the weights if they are the best so far."""
        self._stop_clock()
        if self.measure_dev is not None:
            score = self.measure_dev()
            self.model.train()
            self.result.scores[name] = score
            self.log({"dev": score})
            if self._bar is not None:
                self._bar.set_postfix_str(f"dev {score:.3f}")
        else:
            score = self._best + 1 if self._best > float("-inf") else 0.0  # without dev the last weights are the best
        if score > self._best:
            # After a gain within an epoch the end of this epoch does not count against patience.
            self._best, self._epochs_without_gain = score, -1 if within_epoch else 0
            self.result.weights = merged_weights(self.model) if has_lora(self.model) else copy_weights(self.model)
        elif not within_epoch:
            self._epochs_without_gain += 1
        self._resumed_at = time.monotonic()


def is_measured_after(step: int, steps: int, epochs: int) -> bool:
    """Return whether dev is measured after a step that is not the last of its epoch.

    Args:
        step: number of steps so far, over all epochs.
        steps: number of steps in an epoch.
        epochs: number of epochs of the training.

    Example:
        >>> from rag_ft.training.loop.training_monitor import is_measured_after
        >>> [step for step in range(1, 1_000) if is_measured_after(step, 1_000, 1)]
        [200, 400, 600, 800]
        >>> any(is_measured_after(step, 30, 3) for step in range(1, 30))  # short epochs are measured at their end
        False
    """
    parts = min(-(-DEV_SCORES // epochs), steps // STEPS_BETWEEN)
    return step % steps in {steps * part // parts for part in range(1, parts)}
