"""Device memory: recognising out-of-memory errors, and freeing memory that is no longer referenced."""

from __future__ import annotations

import gc


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means that memory ran out; some libraries have no exception class for it.

    Example:
        >>> from rag_ft.embedding.device_memory import is_out_of_memory
        >>> is_out_of_memory(RuntimeError("MPS backend out of memory")), is_out_of_memory(RuntimeError("a shape"))
        (True, False)
    """
    import torch

    phrases = ("out of memory", "not enough memory", "DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(phrase in str(error) for phrase in phrases)


def free_memory() -> None:
    """Free memory that is no longer referenced.

    Call it after the `except` block that caught the error, since the traceback references what the failed attempt
    computed.
    """
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
