"""What both engines have in common: the base class, and the check of the output folder."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.errors import InputError

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

logger = logging.getLogger(__name__)


class BaseEmbeddingFinetuneEngine(ABC):
    """Base class of an engine that tunes an embedding model and returns it.

    If llama-index-finetuning can be imported, each engine is also an instance of its class of this name.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Return an engine that the old package recognises as one of its own."""
        _register_with_llama_index()
        return super().__new__(cls)

    @abstractmethod
    def finetune(self, **train_kwargs: Any) -> None:
        """Train, and return when the model is saved."""

    @abstractmethod
    def get_finetuned_model(self, **model_kwargs: Any) -> BaseEmbedding:
        """Return the tuned model as a LlamaIndex embedding."""


@functools.cache
def _register_with_llama_index() -> None:
    """Make the engines instances of the old package's base class, if that package can be imported.

    It is first looked for when an engine is made: its import takes seconds, and often fails.
    """
    try:
        if importlib.util.find_spec("llama_index.finetuning") is None:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            types = importlib.import_module("llama_index.finetuning.types")
        types.BaseEmbeddingFinetuneEngine.register(BaseEmbeddingFinetuneEngine)
    except Exception as error:  # it imports the packages of several providers, and breaks with most of them
        logger.info("llama-index-finetuning is installed but cannot be imported (%s)", error)


def check_output(folder: str | Path, *model_files: str) -> Path:
    """Return the output folder if it may be written: it is missing, empty, or holds a model, which is replaced.

    Args:
        folder: the output folder.
        model_files: files that only a model's folder has; one of them is enough.

    Raises:
        InputError: if it holds anything else.
    """
    path = Path(folder)
    is_model = any((path / name).exists() for name in model_files)
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not is_model):
        raise InputError(f"model_output_path {folder} is in the way and holds no model: choose another one")
    return path


def check_pairs(count: int) -> None:
    """Check that there are enough questions to train on.

    Raises:
        InputError: if there are fewer than two.
    """
    if count < 2:
        raise InputError(f"the dataset has {count} questions to train on: give 2 or more")
