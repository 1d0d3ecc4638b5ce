"""What looks on while the Trainer works: dev as it goes, the best weights, checkpoints, the progress shown."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm
from transformers import TrainerCallback

from rag_ft.training.loop.checkpoints import LARGEST_PART, SECONDS_BETWEEN, load_progress, save_progress, spared
from rag_ft.training.loop.fit_result import FitResult
from rag_ft.training.loop.lora import has_lora, merged_weights
from rag_ft.training.recipe import Recipe
from rag_ft.training.selection.dev_set import copy_weights

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

FIGURES = 5
"""Dev figures of a training, about, where its epochs are long: of one epoch alone no weights could be chosen."""

STEPS_BETWEEN = 100
"""Of training, at least, between two dev figures within an epoch: less would cost more than it tells."""


class TrainingMonitor(TrainerCallback):
    """Measures after each epoch and within long ones, keeps the best weights, checkpoints, and shows how it goes.

    Args:
        model: that is trained.
        measure: the dev figure of the model as it is; without one the last weights are the best.
        recipe: its rounds and patience.
        show_progress: a progress bar with time left and the dev figure.
        keeps: whether weights are measured and kept at all; a trial run does neither.

    Attributes:
        fit: what was found.
        working: seconds of training, dev apart.
        stop: set it to end after the step that is being made.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        measure: Callable[[], float] | None,
        recipe: Recipe,
        show_progress: bool,
        keeps: bool,
    ) -> None:
        self.model, self.measure, self.recipe = model, measure, recipe
        self.show_progress, self.keeps = show_progress, keeps
        self.fit = FitResult()
        self.log: Callable[[dict[str, float]], None] = lambda values: None
        self.stop = False
        self.bar: Any = None
        self.best = float("-inf")
        self.waited = 0
        self.working = 0.0
        self.since = self.saved = self.asked = 0.0
        self.pause = SECONDS_BETWEEN

    def go_on(self, checkpoint: Path) -> None:
        state, weights = load_progress(checkpoint)
        self.fit = FitResult(state["scores"], weights, state["losses"])
        self.best, self.waited = state["best"], state["waited"]

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.since = self.saved = time.monotonic()
        if self.show_progress:
            self.bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc="training", unit="step", dynamic_ncols=True
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(1)
        if self.stop:
            control.should_training_stop = True
        elif self.keeps and state.epoch % 1:
            # Not after the last step of an epoch: whoever went on from there would not measure it.
            steps = round(state.max_steps / self.recipe.epochs)
            if self.measure is not None and within_epoch(state.global_step, steps, self.recipe.epochs):
                # At a high learning rate dev goes up and down: only at the end of an epoch a loss of patience counts.
                self.weigh(f"epoch {state.epoch:.2f}", patient=True)
            self.ask_for_checkpoint(control)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in (logs or {}):
            self.fit.losses.append(float(logs["loss"]))

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.keeps or state.epoch % 1:  # it was stopped within the epoch
            return
        self.weigh(f"epoch {round(state.epoch)}")
        # A round that is over need not be trained again where a later one is killed.
        self.ask_for_checkpoint(control, now=self.recipe.rounds > 1)
        if self.waited >= self.recipe.patience and state.global_step < state.max_steps:
            logger.info("no better for %d epochs: training ends", self.waited)
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.working += time.monotonic() - self.since
        self.since = time.monotonic()
        self.fit.interrupted = self.stop
        if self.stop and self.keeps and state.epoch % 1:
            self.weigh(f"step {state.global_step}")
        if self.bar is not None:
            self.bar.close()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        progress = {
            "scores": self.fit.scores,
            "losses": self.fit.losses,
            "best": self.best,
            "waited": self.waited,
        }
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if checkpoint.is_dir():
            with spared(checkpoint):
                save_progress(checkpoint, progress, self.fit.weights)
        self.saved = time.monotonic()
        self.pause = max(SECONDS_BETWEEN, (self.saved - self.asked) / LARGEST_PART)

    def ask_for_checkpoint(self, control: Any, now: bool = False) -> None:
        self.asked = time.monotonic()
        control.should_save = now or self.asked - self.saved > self.pause

    def weigh(self, name: str, patient: bool = False) -> None:
        self.working += time.monotonic() - self.since
        if self.measure is not None:
            score = self.measure()
            self.model.train()
            self.fit.scores[name] = score
            self.log({"dev": score})
            if self.bar is not None:
                self.bar.set_postfix_str(f"dev {score:.3f}")
        else:
            score = self.best + 1 if self.best > float("-inf") else 0.0  # without dev the last one is taken
        if score > self.best:
            # The end of an epoch that gained within is no loss of patience.
            self.best, self.waited = score, -1 if patient else 0
            self.fit.weights = merged_weights(self.model) if has_lora(self.model) else copy_weights(self.model)
        elif not patient:
            self.waited += 1
        self.since = time.monotonic()


def within_epoch(step: int, steps: int, epochs: int) -> bool:
    """Whether dev is measured after a step that is not the last of its epoch.

    Args:
        step: how many were made, over all epochs.
        steps: of an epoch.
        epochs: of the training.

    Example:
        >>> from rag_ft.training.loop.training_monitor import within_epoch
        >>> [step for step in range(1, 1_000) if within_epoch(step, 1_000, 1)]
        [200, 400, 600, 800]
        >>> any(within_epoch(step, 30, 3) for step in range(1, 30))  # short epochs are measured at their end
        False
    """
    parts = min(-(-FIGURES // epochs), steps // STEPS_BETWEEN)
    return step % steps in {steps * part // parts for part in range(1, parts)}
