"""From nodes and an embedding to a Chroma-backed `VectorStoreIndex`.

A rebuild fills a new collection beside the old one, checks it and swaps it in; a rollback swaps back. The index stores
the contract of its embedding and refuses vectors of any other model.
"""

import lazy_loader

# The stub beside this file lists the public names; each module is loaded when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
