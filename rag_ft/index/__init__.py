"""An embedding and nodes to a Chroma-backed `VectorStoreIndex`: built beside the old one, swapped, rolled back."""

import lazy_loader

# The public names stand in the stub beside this file, once; each module is loaded when one of them is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
