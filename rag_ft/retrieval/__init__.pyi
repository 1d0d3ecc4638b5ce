from .bm25 import BM25 as BM25
from .bm25_retriever import BM25Retriever as BM25Retriever
from .fusion import Fusion as Fusion
from .hybrid import HybridRetriever as HybridRetriever
from .hybrid import keep_fusion as keep_fusion
from .reranked import RerankedRetriever as RerankedRetriever
