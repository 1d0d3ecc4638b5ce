"""Requests to a server: retries, cost estimates, the OpenAI Batch API, and coroutines run from synchronous code.

The LLM calls of `generation` and the embedding client use it; it is independent of prompts and vectors.
"""

import lazy_loader

# The stub beside this file lists the public names. A module is loaded when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
