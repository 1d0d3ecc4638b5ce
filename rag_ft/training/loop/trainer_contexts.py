"""Context managers for the Trainer: random generators, Ctrl-C, and dropout."""

from __future__ import annotations

import logging
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)


@contextmanager
def preserved_random_state(device: torch.device) -> Iterator[None]:
    """Restore the global random generators afterwards, because the Trainer seeds them."""
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device.index or 0] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def stop_on_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at the first Ctrl-C, so that the training ends after its step. The second one ends the program."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: Any) -> None:
        stop()
        logger.warning("stopping after this step; the best weights so far are kept (Ctrl-C again exits at once)")
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def without_dropout(model: SentenceTransformer, keep: bool) -> Iterator[None]:
    """Switch off every dropout layer, unless `keep` is True."""
    import torch

    layers = [] if keep else [layer for layer in model.modules() if isinstance(layer, torch.nn.Dropout)]
    before = [layer.p for layer in layers]
    for layer in layers:
        layer.p = 0.0
    try:
        yield
    finally:
        for layer, probability in zip(layers, before, strict=True):
            layer.p = probability
