"""An embeddings server with OpenAI's protocol.

It serves a model, an adapter or any LlamaIndex embedding at `/v1/embeddings` and `/v1/models`. It encodes the texts of
many callers together, exports metrics and writes a log in JSON.
"""

import lazy_loader

# The stub beside this file lists the public names. A module is loaded when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
