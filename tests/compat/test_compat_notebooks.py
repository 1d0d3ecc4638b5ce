"""The steps of LlamaIndex's two notebooks on fine-tuning embeddings, with a local LLM and a local model.

The programs are our own. They make the same calls as the notebooks, with imports from `rag_ft.compat`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as functional
from llama_index.core import SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.embeddings import resolve_embed_model
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import TextNode
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from torch import Tensor, nn

import rag_ft.compat
from rag_ft.compat import (
    AdapterEmbeddingModel,
    BaseAdapter,
    EmbeddingAdapterFinetuneEngine,
    EmbeddingQAFinetuneDataset,
    LinearAdapterEmbeddingModel,
    SentenceTransformersFinetuneEngine,
    TwoLayerNN,
    generate_qa_embedding_pairs,
)
from rag_ft.embedding.loading import local_model_folder
from rag_ft.generation.local_llm import LocalLLM


class Reader(CustomLLM):
    """An LLM that asks about the first and the last sentence of a passage, in some of its words."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="reader")

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        sentences = re.split(r"(?<=[.:])\s", prompt.split("-" * 21)[1].strip())
        first, last = (re.findall(r"[A-Za-z-]{4,}", sentences[place])[:3] for place in (0, -1))
        return CompletionResponse(text=f"1. What is said of {' '.join(first)}?\n2. When {' '.join(last)}?")

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError


def hits(dataset: EmbeddingQAFinetuneDataset, model: Any, top_k: int = 3) -> pd.DataFrame:
    """Return whether an index finds each question's passage among the first `top_k`, and its reciprocal rank."""
    passages = [TextNode(id_=key, text=text) for key, text in dataset.corpus.items()]
    retriever = VectorStoreIndex(passages, embed_model=model, show_progress=True).as_retriever(similarity_top_k=top_k)
    rows = []
    for query_id, query in dataset.queries.items():
        found = [each.node.node_id for each in retriever.retrieve(query)]
        relevant = dataset.relevant_docs[query_id][0]
        rank = found.index(relevant) + 1 if relevant in found else None
        rows.append({"is_hit": rank is not None, "mrr": 1 / rank if rank else 0.0, "query": query_id})
    return pd.DataFrame(rows)


def measured(dataset: EmbeddingQAFinetuneDataset, model: str, name: str) -> pd.DataFrame:
    """Return what sentence-transformers' evaluator writes into its CSV file."""
    evaluator = InformationRetrievalEvaluator(dataset.queries, dataset.corpus, dataset.relevant_docs, name=name)
    Path("results").mkdir(exist_ok=True)
    evaluator(SentenceTransformer(model), output_path="results")
    return pd.read_csv(f"results/Information-Retrieval_evaluation_{name}_results.csv").assign(model=name)


def cut(folder: Path, limit: int) -> list[Any]:
    files = sorted(folder.rglob("*.md"))
    documents = SimpleDirectoryReader(input_files=[str(file) for file in files]).load_data()
    return SentenceSplitter(chunk_size=64, chunk_overlap=0).get_nodes_from_documents(documents)[:limit]


def corpora(acme: Path, llm: Any, limit: int) -> tuple[EmbeddingQAFinetuneDataset, EmbeddingQAFinetuneDataset]:
    """Make datasets to train on and to evaluate on, and read both back from their files."""
    train = generate_qa_embedding_pairs(llm=llm, nodes=cut(acme / "documents" / "people", limit))
    val = generate_qa_embedding_pairs(llm=llm, nodes=cut(acme / "documents" / "travel", limit))
    train.save_json("train_dataset.json")
    val.save_json("val_dataset.json")
    return (
        EmbeddingQAFinetuneDataset.from_json("train_dataset.json"),
        EmbeddingQAFinetuneDataset.from_json("val_dataset.json"),
    )


def first_notebook(acme: Path, llm: Any, limit: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fine-tune the embedding model; return the hit rate and the evaluator's metrics by model."""
    train, val = corpora(acme, llm, limit)
    base = str(local_model_folder())
    engine = SentenceTransformersFinetuneEngine(train, model_id=base, model_output_path="test_model", val_dataset=val)
    engine.finetune()
    assert engine.get_finetuned_model().model_name == "test_model"
    models = {"base": f"local:{base}", "fine_tuned": "local:test_model", "loaded": engine.get_finetuned_model()}
    table = pd.concat([hits(val, model).assign(model=name) for name, model in models.items()])
    other = pd.concat([measured(val, base, "base"), measured(val, "test_model", "fine_tuned")])
    return table.groupby("model").mean(numeric_only=True), other.set_index("model")


class CustomNN(BaseAdapter):
    """Two layers whose result is added to the vector, as a user would write them."""

    def __init__(self, in_features: int, hidden_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__()
        self.arguments = {
            "in_features": in_features, "hidden_features": hidden_features, "out_features": out_features, "bias": bias,
        }  # fmt: skip
        self.first = nn.Linear(in_features, hidden_features, bias=bias)
        self.second = nn.Linear(hidden_features, out_features, bias=bias)
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, embed: Tensor) -> Tensor:
        return embed + self.weight * self.second(functional.relu(self.first(embed)))

    def get_config_dict(self) -> dict[str, Any]:
        return self.arguments


def second_notebook(acme: Path, llm: Any, limit: int, epochs: int) -> pd.DataFrame:
    """Train a linear, a two-layer and a custom adapter over a frozen model; return hit rate and MRR by model."""
    train, val = corpora(acme, llm, limit)
    base = resolve_embed_model(f"local:{local_model_folder()}")
    linear = EmbeddingAdapterFinetuneEngine(
        train, base, model_output_path="model_output_test", epochs=4, verbose=True,
        optimizer_class=torch.optim.SGD, optimizer_params={"lr": 0.01},
    )  # fmt: skip
    linear.finetune()
    found = {"base": hits(val, base), "linear": hits(val, linear.get_finetuned_model())}
    found["linear, loaded"] = hits(val, LinearAdapterEmbeddingModel(base, "model_output_test"))
    for name, adapter in {
        "two-layer": TwoLayerNN(384, 1024, 384, bias=True, add_residual=True),
        "custom": CustomNN(384, 1024, 384, bias=True),
    }.items():
        engine = EmbeddingAdapterFinetuneEngine(
            train, base, model_output_path=f"{name}_output", model_checkpoint_path=f"{name}_ck",
            checkpoint_save_steps=5, adapter_model=adapter, epochs=epochs, verbose=True,
        )  # fmt: skip
        engine.finetune()
        found[name] = hits(val, engine.get_finetuned_model(adapter_cls=type(adapter)))
        found[f"{name}, step 5"] = hits(val, AdapterEmbeddingModel(base, f"{name}_ck/step_5", type(adapter)))
    rows = [{"retrievers": name, "hit_rate": f["is_hit"].mean(), "mrr": f["mrr"].mean()} for name, f in found.items()]
    return pd.DataFrame(rows).set_index("retrievers")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_the_first_notebook_runs_to_its_tables(acme: Path, here: None) -> None:
    table, other = first_notebook(acme, Reader(), limit=12)
    print(table, other, sep="\n")
    assert list(table.index) == ["base", "fine_tuned", "loaded"]
    assert table.loc["loaded", "mrr"] == pytest.approx(table.loc["fine_tuned", "mrr"], abs=0.05)
    assert table["is_hit"].between(0.2, 1).all()
    assert other.loc["fine_tuned", "cosine-NDCG@10"] >= other.loc["base", "cosine-NDCG@10"] - 0.05


def test_the_second_notebook_runs_to_its_table(acme: Path, here: None) -> None:
    table = second_notebook(acme, Reader(), limit=12, epochs=3)
    print(table)
    assert list(table.index)[:3] == ["base", "linear", "linear, loaded"]
    assert table.loc["linear, loaded"].equals(table.loc["linear"])
    assert (table["hit_rate"] >= table.loc["base", "hit_rate"] - 0.15).all()


PAGE = (Path(__file__).parents[2] / "examples" / "migration.md").read_text(encoding="utf-8")


def test_the_names_on_the_migration_page_exist_or_name_a_replacement() -> None:
    table = PAGE.partition("| was imported from")[2].partition("\n\n")[0]
    named = "".join(row.split("|")[2] for row in table.splitlines()[2:])
    for name in re.findall(r"`([A-Za-z_]+)(?:\(.*?\))?`", named):
        assert name in rag_ft.compat.__all__, name
    for name in re.findall(r"^\| `(\w+)`", PAGE.partition("| where to go |")[2], re.MULTILINE):
        with pytest.raises(ImportError, match="only tunes embeddings"):
            getattr(rag_ft.compat, name)


@pytest.mark.slow
def test_the_program_on_the_migration_page_runs(acme: Path, here: None) -> None:
    code = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0].replace("BAAI/bge-small-en", "local")
    nodes = cut(acme / "documents" / "people", 24)
    names: dict[str, Any] = {"train_nodes": nodes[:16], "val_nodes": nodes[16:], "llm": Reader()}
    exec(code, names)
    assert len(names["embed_model"].get_query_embedding("What is a Lantern?")) == 384


@pytest.mark.slow
def test_both_notebooks_run_with_a_local_llm(acme: Path, here: None) -> None:
    table, other = first_notebook(acme, LocalLLM(), limit=60)
    print(table, other.T, second_notebook(acme, LocalLLM(), limit=60, epochs=25), sep="\n")
    assert table.loc["fine_tuned", "mrr"] >= table.loc["base", "mrr"] - 0.02
