"""Run candidates: every retriever searches the questions of a split as an app would.

A candidate is an embedding, BM25, a hybrid, or a LlamaIndex retriever. Its `Run` has the passages that it ranked for
each query, with times and sizes.
"""

import lazy_loader

# The stub beside this file lists the public names. A module is loaded when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
