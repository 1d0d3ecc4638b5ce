"""What looks on while the Trainer works: dev after each epoch, the best weights, checkpoints, the progress shown."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.training.checkpoints import LARGEST_PART, SECONDS_BETWEEN, load_progress, save_progress, spared
from rag_ft.training.dev import State, copy_weights
from rag_ft.training.lora import has_lora, merged_weights
from rag_ft.training.recipe import Recipe

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)


@dataclass
class Tuning:
    """What a training found.

    Attributes:
        scores: the dev figure after each epoch (`epoch 1`, ...), or after the step that it was stopped at.
        weights: those of the best of them; the last ones where there is no dev.
        losses: along the way, averaged over equal parts of it.
        texts_per_second: that went through the model, dev apart.
        inner_batch: pairs whose activations fitted into memory.
        interrupted: whether somebody stopped it.
    """

    scores: dict[str, float] = field(default_factory=dict)
    weights: State | None = None
    losses: list[float] = field(default_factory=list)
    texts_per_second: float = 0.0
    inner_batch: int = 0
    interrupted: bool = False


def watcher_of(
    model: SentenceTransformer,
    measure: Callable[[], float] | None,
    recipe: Recipe,
    columns: int,
    show_progress: bool,
    keeps: bool,
) -> Any:
    """A callback that measures after each epoch, keeps the best weights, checkpoints, and shows how it goes."""
    from tqdm.auto import tqdm
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):
        def __init__(self) -> None:
            self.tuning = Tuning()
            self.log: Callable[[dict[str, float]], None] = lambda values: None
            self.stop = False
            self.bar: Any = None
            self.best = float("-inf")
            self.waited = 0
            self.texts = 0
            self.working = 0.0
            self.since = self.saved = self.asked = 0.0
            self.pause = SECONDS_BETWEEN

        def go_on(self, checkpoint: Path) -> None:
            state, weights = load_progress(checkpoint)
            self.tuning = Tuning(state["scores"], weights, state["losses"])
            self.best, self.waited = state["best"], state["waited"]

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.since = self.saved = time.monotonic()
            if show_progress:
                self.bar = tqdm(
                    total=state.max_steps, initial=state.global_step, desc="training", unit="step", dynamic_ncols=True
                )

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.texts += columns * args.train_batch_size
            if self.bar is not None:
                self.bar.update(1)
            if self.stop:
                control.should_training_stop = True
            elif keeps and state.epoch % 1:
                # Not after the last step of an epoch: whoever went on from there would not measure it.
                self.ask_for_checkpoint(control)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "loss" in (logs or {}):
                self.tuning.losses.append(float(logs["loss"]))

        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if not keeps or (self.stop and state.epoch % 1):
                return
            self.weigh(f"epoch {round(state.epoch)}")
            # A round that is over need not be trained again where a later one is killed.
            self.ask_for_checkpoint(control, now=recipe.rounds > 1)
            if self.waited >= recipe.patience and state.global_step < state.max_steps:
                logger.info("no better for %d epochs: training ends", self.waited)
                control.should_training_stop = True

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.working += time.monotonic() - self.since
            self.since = time.monotonic()
            self.tuning.interrupted = self.stop
            if self.stop and keeps and state.epoch % 1:
                self.weigh(f"step {state.global_step}")
            self.tuning.texts_per_second = self.texts / max(self.working, 1e-9)
            if self.bar is not None:
                self.bar.close()

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            progress = {
                "scores": self.tuning.scores,
                "losses": self.tuning.losses,
                "best": self.best,
                "waited": self.waited,
            }
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            if checkpoint.is_dir():
                with spared(checkpoint):
                    save_progress(checkpoint, progress, self.tuning.weights)
            self.saved = time.monotonic()
            self.pause = max(SECONDS_BETWEEN, (self.saved - self.asked) / LARGEST_PART)

        def ask_for_checkpoint(self, control: Any, now: bool = False) -> None:
            self.asked = time.monotonic()
            control.should_save = now or self.asked - self.saved > self.pause

        def weigh(self, name: str) -> None:
            self.working += time.monotonic() - self.since
            if measure is not None:
                score = measure()
                model.train()
                self.tuning.scores[name] = score
                self.log({"dev": score})
                if self.bar is not None:
                    self.bar.set_postfix_str(f"dev {score:.3f}")
            else:
                score = self.best + 1 if self.best > float("-inf") else 0.0  # without dev the last one is taken
            if score > self.best:
                self.best, self.waited = score, 0
                self.tuning.weights = merged_weights(model) if has_lora(model) else copy_weights(model)
            else:
                self.waited += 1
            self.since = time.monotonic()

    return Watcher()
