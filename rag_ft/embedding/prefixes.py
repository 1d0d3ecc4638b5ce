"""The query and passage prefixes of known model families.

Each entry follows the model's card. A prefix that is missing at inference, or that differs between training and
inference, lowers the quality without an error. So base models get their prefixes from this table, and a tuned model
carries its own.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple


class Prefixes(NamedTuple):
    """Exact text put before each query and each passage, with any space at the end."""

    query_prefix: str = ""
    passage_prefix: str = ""


BGE_ENGLISH = "Represent this sentence for searching relevant passages: "

FAMILIES: tuple[tuple[str, Prefixes], ...] = (
    (r"e5-mistral|e5-.*-instruct|multilingual-e5-large-instruct", Prefixes(
        "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: ", "")),
    (r"(^|[/_-])(multilingual-)?e5-(small|base|large)", Prefixes("query: ", "passage: ")),
    (r"bge-m3|bge-.*-(multilingual|icl)", Prefixes()),
    (r"bge-(small|base|large)-en", Prefixes(BGE_ENGLISH, "")),
    (r"bge-(small|base|large)-zh", Prefixes("为这个句子生成表示以用于检索相关文章：", "")),
    (r"nomic-embed-text", Prefixes("search_query: ", "search_document: ")),
    (r"modernbert-embed", Prefixes("search_query: ", "search_document: ")),
    (r"snowflake-arctic-embed-(l-)?(m-)?v2|arctic-embed-[ml]-v2", Prefixes("query: ", "")),
    (r"arctic-embed", Prefixes(BGE_ENGLISH, "")),
    (r"mxbai-embed-large|mxbai-embed-xsmall|mxbai-embed-2d", Prefixes(BGE_ENGLISH, "")),
    (r"qwen3-embedding", Prefixes(
        "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:", "")),
    (r"embeddinggemma", Prefixes("task: search result | query: ", "title: none | text: ")),
    (r"gte-qwen", Prefixes(
        "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: ", "")),
    (r"gte-(small|base|large|modernbert|multilingual)", Prefixes()),
    (r"instructor-(base|large|xl)", Prefixes(
        "Represent the question for retrieving supporting documents: ", "Represent the document for retrieval: ")),
    (r"(all|multi-qa|paraphrase)-.*(minilm|mpnet|distilbert|distilroberta|dot)", Prefixes()),
)  # fmt: skip
"""Pairs of (pattern of the lower-case name, prefixes); the first match counts."""


def family_prefixes(*names: str) -> Prefixes | None:
    """Return the prefixes of the first name that belongs to a known family; None if no name does.

    Example:
        >>> from rag_ft.embedding.prefixes import family_prefixes
        >>> family_prefixes("intfloat/e5-small-v2")
        Prefixes(query_prefix='query: ', passage_prefix='passage: ')
    """
    for name in names:
        for pattern, prefixes in FAMILIES:
            if re.search(pattern, name.lower()):
                return prefixes
    return None


def recorded_names(folder: Path) -> list[str]:
    """Collect a model folder's names: the base model in `rag_ft.json`, names in its config and card, and its path."""
    names: list[str] = []
    for file, key in (("rag_ft.json", "base_model"), ("config.json", "_name_or_path")):
        try:
            value = json.loads((folder / file).read_text(encoding="utf-8")).get(key)
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(value, str):
            names.append(value)
    try:
        card = (folder / "README.md").read_text(encoding="utf-8", errors="replace")[:4000]
    except OSError:
        card = ""
    names += re.findall(r"^base_model:\s*(\S+)", card, re.MULTILINE)
    names += re.findall(r"^#\s+(\S.*)$", card, re.MULTILINE)[:1]
    return [*names, *reversed(folder.resolve().parts[-4:])]


def prefixes_for(
    name: str, saved: dict[str, str] | None = None, query_prefix: str | None = None, passage_prefix: str | None = None
) -> Prefixes:
    """Choose the prefixes: from the arguments, then from the model, then from its family; otherwise there are none.

    Args:
        name: a hub name or a model folder.
        saved: the prompts saved in the model (`SentenceTransformer.prompts`).
        query_prefix: replaces the query prefix; an empty text means no prefix.
        passage_prefix: replaces the passage prefix; an empty text means no prefix.
    """
    saved = saved or {}
    folder = Path(name)
    family = family_prefixes(name, *(recorded_names(folder) if folder.is_dir() else ())) or Prefixes()
    saved_prefixes = Prefixes(
        saved.get("query") or "", next((saved[key] for key in ("document", "passage", "corpus") if saved.get(key)), "")
    )
    default = saved_prefixes if any(saved_prefixes) else family
    return Prefixes(
        default.query_prefix if query_prefix is None else query_prefix,
        default.passage_prefix if passage_prefix is None else passage_prefix,
    )
