"""LlamaIndex's fine-tuning example on the Lyft and Uber filings, with `rag_ft.compat`: its final table.

    python examples/benchmarks/lyft_uber.py                          # base, tuned, an adapter, BM25
    python examples/benchmarks/lyft_uber.py --ways base bm25

The engines are called as in the example, with their old defaults. They train on the questions about Lyft's filing, and
are evaluated on those about Uber's, which in the example also select the model. The base model is all-MiniLM-L6-v2
instead of bge-small-en, so the published figures are shown for comparison but come from another experiment. Hit rate
and MRR are those of the first 5 results of LlamaIndex's own index and retriever; nDCG@10 comes from
sentence-transformers' `InformationRetrievalEvaluator`. Results are in results/lyft-uber.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.evaluation import RetrieverEvaluator
from llama_index.core.schema import TextNode
from quality import RESULTS, machine

from rag_ft import FineTunedEmbedding, load_dataset
from rag_ft.compat import (
    EmbeddingAdapterFinetuneEngine,
    EmbeddingQAFinetuneDataset,
    SentenceTransformersFinetuneEngine,
    evaluate_dataset,
)
from rag_ft.retrieval.bm25 import BM25

PUBLISHED = {
    "ada-002": {"hit_rate@5": 0.8709, "mrr@5": 0.7288},
    "bge-small-en": {"hit_rate@5": 0.7873, "mrr@5": 0.6430},
    "bge-small-en, tuned": {"hit_rate@5": 0.8443},
    "bge-small-en, linear adapter": {"hit_rate@5": 0.7987, "mrr@5": 0.6622},
}
"""From finetune-embedding's evaluate.ipynb, and LlamaIndex's finetune_embedding_adapter.ipynb."""


def figures(model: BaseEmbedding, dataset: EmbeddingQAFinetuneDataset) -> dict[str, float]:
    """Return hit rate and MRR of the first 5 results, by LlamaIndex's evaluator."""
    nodes = [TextNode(id_=key, text=text) for key, text in dataset.corpus.items()]
    retriever = VectorStoreIndex(nodes, embed_model=model).as_retriever(similarity_top_k=5)
    evaluator = RetrieverEvaluator.from_metric_names(["hit_rate", "mrr"], retriever=retriever)
    return mean([result.metric_vals_dict for result in evaluate_dataset(evaluator, dataset, workers=8)])


def bm25_figures(dataset: EmbeddingQAFinetuneDataset) -> dict[str, float]:
    """Return the same figures of BM25."""
    ranked = BM25(dataset.corpus).rank(list(dataset.queries.values()), k=5)
    rows = []
    for query, passages in zip(dataset.queries, ranked, strict=True):
        expected = dataset.relevant_docs[query][0]
        hit = expected in passages
        rows.append({"hit_rate": float(hit), "mrr": 1 / (passages.index(expected) + 1) if hit else 0.0})
    return mean(rows)


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {f"{name}@5": round(sum(row[name] for row in rows) / len(rows), 4) for name in ("hit_rate", "mrr")}


def evaluator_ndcg(model: FineTunedEmbedding, dataset: EmbeddingQAFinetuneDataset) -> float:
    """Return nDCG@10 by sentence-transformers' own evaluator."""
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    relevant = {query: set(passages) for query, passages in dataset.relevant_docs.items()}
    evaluator = InformationRetrievalEvaluator(dataset.queries, dataset.corpus, relevant)
    values = evaluator(model.sentence_transformer)
    return round(float(values[evaluator.primary_metric]), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ["base", "tuned", "adapter", "bm25"]
    parser.add_argument("--ways", nargs="+", default=known, choices=known)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    train = EmbeddingQAFinetuneDataset.from_dataset(load_dataset(arguments.data / "tenk-lyft"), "train")
    test = EmbeddingQAFinetuneDataset.from_dataset(load_dataset(arguments.data / "tenk-uber"), "test")
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for way in arguments.ways:
            started = time.monotonic()
            row: dict[str, Any] = {}
            if way == "bm25":
                row = bm25_figures(test)
            elif way == "adapter":
                base = FineTunedEmbedding.load("local")
                adapter = EmbeddingAdapterFinetuneEngine(
                    train, base, epochs=4, model_output_path=f"{scratch}/adapter", verbose=True
                )
                adapter.finetune()
                row = {"dev": adapter.dev, "seconds": round(time.monotonic() - started, 1)}
                row |= figures(adapter.get_finetuned_model(), test)
            else:
                model = FineTunedEmbedding.load("local")
                if way == "tuned":
                    engine = SentenceTransformersFinetuneEngine(train, "local", f"{scratch}/tuned")
                    engine.finetune()
                    row = {"dev": engine.dev, "seconds": round(time.monotonic() - started, 1)}
                    model = engine.get_finetuned_model()
                row |= figures(model, test)
                row |= {"ndcg@10": evaluator_ndcg(model, test), "max_length": model.max_length}
            rows[way] = row
            print(way, row, flush=True)
    file = RESULTS / "lyft-uber.json"
    if file.exists():  # keep the other ways
        rows = json.loads(file.read_text(encoding="utf-8"))["ways"] | rows
    result = {"train": len(train.queries), "test": len(test.queries), "ways": rows, "published": PUBLISHED}
    file.write_text(json.dumps(result | {"machine": machine()}, indent=1) + "\n", encoding="utf-8")
    for name, row in [*rows.items(), *PUBLISHED.items()]:
        print(f"{name:30} " + "  ".join(f"{row[key]:.3f}" for key in ("hit_rate@5", "mrr@5", "ndcg@10") if key in row))


if __name__ == "__main__":
    main()
