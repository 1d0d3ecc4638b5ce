"""Training of adapters: small maps over the vectors of an embedding whose weights cannot be changed."""

import lazy_loader

# The stub beside this file lists the public names. A module is loaded when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
