"""Fine-tune the embedding model of a LlamaIndex application, and prove that retrieval got better.

The names here are the pipeline: documents, a dataset, a tuned model, an index, a comparison. Everything else is
imported from its room: `rag_ft.generation`, `rag_ft.adapters`, `rag_ft.ab`, ...
"""

import lazy_loader

# The public names stand in the stub beside this file, once; each module is loaded when one of them is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
