"""Search over passages: BM25, exact search by vectors, the fusion of both, and rerankers.

Passages and questions go in as texts, ranked passages come out. `HybridRetriever`, `BM25Retriever` and
`RerankedRetriever` are LlamaIndex retrievers. BM25, exact search and `Fusion` serve mining, filters and evaluation too.
"""

import lazy_loader

# The stub beside this file lists the public names, once. A module is loaded when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
