"""One clear error for any exception of an embedding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rag_ft.errors import OutsideError, RagFtError, first_line

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding


@contextmanager
def embedding_failures(model: BaseEmbedding) -> Iterator[None]:
    """Turn an embedding's exceptions within the block into an `OutsideError` of one line.

    Args:
        model: the embedding, named in the message.
    """
    try:
        yield
    except RagFtError:
        raise
    except Exception as error:
        reason = first_line(error)
        raise OutsideError(f"the embedding {model.model_name} failed ({reason}): fix it and run again") from error
