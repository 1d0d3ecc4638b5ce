"""Fine-tune the embedding model of a LlamaIndex application, and test whether retrieval got better.

The names here cover the pipeline: documents, a dataset, a tuned model, an index, a comparison. Import everything else
from its subpackage: `rag_ft.generation`, `rag_ft.adapters`, `rag_ft.ab`, ...
"""

import lazy_loader

# The stub beside this file lists the public names. A module is loaded when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
