from .fusion import Fusion as Fusion
from .hybrid import HybridRetriever as HybridRetriever
from .hybrid import keep_fusion as keep_fusion
from .reranked import RerankedRetriever as RerankedRetriever
