"""Nodes as LlamaIndex's readers, parsers and extractors make them, and parsing services: each to the verdict."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.app_folder import THINGS, app_nodes, text_about, write_app_folder
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import (
    HierarchicalNodeParser,
    MarkdownNodeParser,
    SemanticSplitterNodeParser,
    SentenceSplitter,
    SentenceWindowNodeParser,
)
from llama_index.core.schema import BaseNode, Document, IndexNode

from rag_ft import FineTunedEmbedding, QADataset, fine_tune, generate_qa_dataset
from rag_ft.dataset import read_beir

FILES = 14


def documents() -> list[Document]:
    return [
        Document(text=text_about(number), metadata={"file_path": f"/srv/docs/{THINGS[number]}.md"})
        for number in range(FILES)
    ]


def of_directory(folder: Path) -> list[BaseNode]:
    return app_nodes(write_app_folder(folder / "docs", FILES))


def of_markdown(folder: Path) -> list[BaseNode]:
    return MarkdownNodeParser().get_nodes_from_documents(documents())


def of_windows(folder: Path) -> list[BaseNode]:
    return SentenceWindowNodeParser.from_defaults().get_nodes_from_documents(documents())


def of_hierarchy(folder: Path) -> list[BaseNode]:
    return HierarchicalNodeParser.from_defaults(chunk_sizes=[256, 128, 64]).get_nodes_from_documents(documents())


def of_semantics(folder: Path) -> list[BaseNode]:
    parser = SemanticSplitterNodeParser(embed_model=FineTunedEmbedding.load("local"))
    return parser.get_nodes_from_documents(documents())


def of_index_nodes(folder: Path) -> list[BaseNode]:
    nodes: list[BaseNode] = []
    for node in SentenceSplitter(chunk_size=128, chunk_overlap=0).get_nodes_from_documents(documents()):
        nodes.append(node)
        first = node.text.split(". ")[0] + "."
        nodes.append(IndexNode(text=first, index_id=node.node_id, metadata=dict(node.metadata)))
    return nodes


class Titles(MockLLM):
    """Says the same about all texts, as extractors ask it for titles, summaries, keywords and questions."""

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        return super().complete("The harbour rules, summarised. What do the harbour rules say?", formatted, **kwargs)


def of_extractors(folder: Path) -> list[BaseNode]:
    from llama_index.core.extractors import (
        KeywordExtractor,
        QuestionsAnsweredExtractor,
        SummaryExtractor,
        TitleExtractor,
    )

    llm = Titles()
    extractors = [TitleExtractor(llm=llm), SummaryExtractor(llm=llm), QuestionsAnsweredExtractor(llm=llm)]
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=256, chunk_overlap=20), *extractors, KeywordExtractor(llm=llm)]
    )
    return list(pipeline.run(documents=documents()))


def of_parsing_service(folder: Path) -> list[BaseNode]:
    """A document for each page, with nested metadata as Docling, Unstructured and LlamaParse give it."""
    pages = []
    for number in range(FILES):
        for page, text in enumerate(text_about(number).split("\n\n")[1:], 1):
            metadata = {
                "file_name": f"{THINGS[number]}.pdf",
                "page_label": page,
                "languages": ["eng"],
                "headings": [f"Rules for the {THINGS[number]}"],
                "coordinates": {"points": [[1.5, 2.5], [3.5, 4.5]], "system": "PixelSpace"},
                "doc_items": [{"label": "paragraph", "prov": [{"page_no": page, "bbox": {"l": 1.0, "t": 2.0}}]}],
                "origin": {"mimetype": "application/pdf", "binary_hash": 7149613187136816312, "filename": "x.pdf"},
                "job_metadata": None,
            }
            keys = [key for key in metadata if key != "headings"]
            pages.append(Document(text=text, metadata=metadata, excluded_embed_metadata_keys=keys))
    return SentenceSplitter(chunk_size=512, chunk_overlap=20).get_nodes_from_documents(pages)


NODES: dict[str, Callable[[Path], list[BaseNode]]] = {
    "SimpleDirectoryReader": of_directory,
    "MarkdownNodeParser": of_markdown,
    "SentenceWindowNodeParser": of_windows,
    "HierarchicalNodeParser": of_hierarchy,
    "SemanticSplitterNodeParser": of_semantics,
    "IndexNode": of_index_nodes,
    "extractors": of_extractors,
    "parsing service": of_parsing_service,
}


SLOW = ("MarkdownNodeParser", "SentenceWindowNodeParser", "SemanticSplitterNodeParser", "IndexNode")


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow if kind in SLOW else ()) for kind in NODES])
def test_ordinary_nodes_get_a_verdict(kind: str, tmp_path: Path) -> None:
    nodes = NODES[kind](tmp_path)
    run = fine_tune(nodes, use_llm=False, base_model="local", output_dir=tmp_path / "run", max_length=64, max_pairs=32)
    assert run.comparison.verdict in ("ship", "keep-baseline", "inconclusive")
    dataset = read_beir(tmp_path / "run" / "dataset")
    assert len(dataset.documents) == FILES
    assert_about_own_texts(dataset)
    found = run.index.as_retriever(similarity_top_k=3).retrieve("Who inspects the winch?")
    assert any("winch" in hit.text for hit in found)


def assert_about_own_texts(dataset: QADataset) -> None:
    """No question is made of metadata."""
    wrong = re.compile(r"file_path|/srv/docs|excerpt|-----|harbour rules|bbox|PixelSpace|page_label", re.IGNORECASE)
    texts = [text for split in dataset.splits for text in dataset.texts(split)]
    assert len(texts) > 30
    assert [text for text in texts if wrong.search(text)] == []


def test_pages_and_whole_files_give_the_same_units_and_test_documents() -> None:
    whole = [Document(text=text_about(n), metadata={"file_name": f"{THINGS[n]}.pdf"}) for n in range(FILES)]
    pages = [
        Document(text=text, metadata={"file_name": f"{THINGS[n]}.pdf", "page_label": str(page)})
        for n in range(FILES)
        for page, text in enumerate(text_about(n).split("\n\n"), 1)
    ]
    splitter = SentenceSplitter(chunk_size=128, chunk_overlap=0)
    of_whole, of_pages = (
        generate_qa_dataset(splitter.get_nodes_from_documents(each), use_llm=False).dataset for each in (whole, pages)
    )
    assert len(of_pages.documents) == len(of_whole.documents) == FILES
    held_out = []
    for dataset in (of_whole, of_pages):
        test = dataset.documents_of(dataset.qrels["test"], "test")
        train = dataset.documents_of(dataset.qrels["train"], "train")
        held_out.append((test - train, len(set(dataset.split_units.values()))))
    assert held_out[0] == held_out[1]
    assert held_out[0][0]
