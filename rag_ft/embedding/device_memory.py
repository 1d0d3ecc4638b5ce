"""The memory of the device that computes: whether it was too small, and giving back what nobody holds any more."""

from __future__ import annotations

import gc


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that the memory was too small; not every library has an error of its own for it.

    Example:
        >>> from rag_ft.embedding.device_memory import is_out_of_memory
        >>> is_out_of_memory(RuntimeError("MPS backend out of memory")), is_out_of_memory(RuntimeError("a shape"))
        (True, False)
    """
    import torch

    said = ("out of memory", "not enough memory", "DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in said)


def free_memory() -> None:
    """Give back what nobody holds any more.

    Call it outside of the `except` that caught the error: its traceback holds what the failed attempt computed.
    """
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
