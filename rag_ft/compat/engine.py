"""What both engines have in common: the old package's base class where it is there, and a folder to write to."""

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
    """Tunes an embedding model and hands it out.

    Where llama-index-finetuning is installed and imports, each engine is an instance of its class of this name too.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """An engine that the old package takes for one of its own."""
        _register_with_llama_index()
        return super().__new__(cls)

    @abstractmethod
    def finetune(self, **train_kwargs: Any) -> None:
        """Train; returns when the model stands."""

    @abstractmethod
    def get_finetuned_model(self, **model_kwargs: Any) -> BaseEmbedding:
        """The tuned model as a LlamaIndex embedding."""


@functools.cache
def _register_with_llama_index() -> None:
    """Make the engines instances of the old package's base class; it is imported once, and often fails to."""
    try:
        if importlib.util.find_spec("llama_index.finetuning") is None:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            types = importlib.import_module("llama_index.finetuning.types")
        types.BaseEmbeddingFinetuneEngine.register(BaseEmbeddingFinetuneEngine)
    except Exception as error:  # it imports the packages of several providers, and breaks with most of them
        logger.info("llama-index-finetuning is installed and does not import (%s)", error)


def check_output(folder: str | Path, *marks: str) -> Path:
    """The folder that a model goes to; another model there is replaced.

    Args:
        folder: where.
        marks: files that tell a model's folder.

    Raises:
        InputError: where something else is in the way.
    """
    path = Path(folder)
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not any((path / mark).exists() for mark in marks)):
        raise InputError(f"model_output_path {folder} is in the way and holds no model: choose another one")
    return path
