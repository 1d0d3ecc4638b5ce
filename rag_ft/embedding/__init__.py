"""Models as LlamaIndex embeddings that apply their query and passage prefixes.

The subpackage loads a model folder, a hub name, an adapter or a model behind OpenAI's protocol. It turns texts into
vectors and can cache them on disk. Each vector carries the contract of its model, which says whether two vectors may be
compared.
"""

import lazy_loader

# The stub beside this file lists the public names. A module is loaded when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
