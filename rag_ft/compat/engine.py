"""The base class and the checks that both engines share."""

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
        """Create an engine that is also an instance of the old package's base class."""
        _register_with_llama_index()
        return super().__new__(cls)

    @abstractmethod
    def finetune(self, **train_kwargs: Any) -> None:
        """Train and save the model."""

    @abstractmethod
    def get_finetuned_model(self, **model_kwargs: Any) -> BaseEmbedding:
        """Return the tuned model as a LlamaIndex embedding."""


@functools.cache
def _register_with_llama_index() -> None:
    """Make the engines instances of the old package's base class, if that package can be imported.

    This happens when the first engine is created, because the import takes seconds and often fails.
    """
    try:
        if importlib.util.find_spec("llama_index.finetuning") is None:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            types = importlib.import_module("llama_index.finetuning.types")
        types.BaseEmbeddingFinetuneEngine.register(BaseEmbeddingFinetuneEngine)
    except Exception as error:  # it imports packages of several providers, any of which may break the import
        logger.info("llama-index-finetuning is installed but cannot be imported (%s)", error)


def check_output(folder: str | Path, *model_files: str) -> Path:
    """Return the output folder if it can be written: it is missing, empty, or contains a model, which is replaced.

    Args:
        folder: the output folder.
        model_files: files of which at least one is in any model folder.

    Raises:
        InputError: if the folder contains anything else.
    """
    path = Path(folder)
    is_model = any((path / name).exists() for name in model_files)
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not is_model):
        raise InputError(f"model_output_path {folder} is not empty and not a model: choose another folder")
    return path


def check_pairs(count: int) -> None:
    """Check that there are enough questions to train on.

    Raises:
        InputError: if there are fewer than two questions.
    """
    if count < 2:
        raise InputError(f"the dataset has {count} questions to train on: it needs 2 or more")
