"""Builds a Chroma-backed `VectorStoreIndex` from nodes and an embedding.

A rebuild fills a new collection beside the old one, checks it and switches to it; a rollback switches back. The index
stores the contract of its embedding and rejects vectors of any other model.
"""

import lazy_loader

# The stub beside this file lists the public names. A module is loaded when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
