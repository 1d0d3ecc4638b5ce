"""Search over passages: BM25, exact search by vectors, the fusion of both, and rerankers.

`HybridRetriever`, `BM25Retriever` and `RerankedRetriever` are LlamaIndex retrievers. Mining, filters and evaluation
also use BM25, exact search and `Fusion`.
"""

import lazy_loader

# The stub beside this file lists the public names. A module is loaded when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
