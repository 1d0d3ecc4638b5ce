"""The roles of the retrievers in a comparison."""

BASELINE = "baseline"
"""The retriever in use."""

CANDIDATE = "candidate"
"""The first retriever that may replace it. The others are `candidate-2`, `candidate-3`, ..."""

BM25_ROLE = "bm25"

HYBRID_PREFIX = "hybrid-"
"""Prefix of the role of an embedding that is fused with BM25: `hybrid-baseline`, `hybrid-candidate`."""
