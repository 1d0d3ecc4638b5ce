"""A folder of documents -> LlamaIndex nodes: front matter and template tags left out, titles kept."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_ft.dataset.qa_dataset import Passage
from rag_ft.dataset.text.language import corpus_language, language_of, sentences_of
from rag_ft.errors import InputError, first_line, require_package
from rag_ft.files import read_text

if TYPE_CHECKING:
    from llama_index.core.node_parser import SentenceSplitter
    from llama_index.core.schema import BaseNode, Document, TextNode

logger = logging.getLogger(__name__)

TEXT_SUFFIXES = {".md", ".markdown", ".txt", ".text", ".rst"}
READER_SUFFIXES = {".pdf", ".docx", ".html", ".htm", ".epub", ".pptx", ".rtf"}
CHUNK_SIZE = 256
CHUNK_OVERLAP = 0
"""Tokens; 256 is what small embedding models read. Overlap would make every passage the near-repeat of
its neighbour."""
CLAUSE = "[^,.;。？！，、；：\\n]+[,.;。？！，、；：\\n]?|[,.;。？！，、；：\\n]"
"""What a sentence that is longer than a node is cut into, in languages other than English."""


def read_documents(folder: str | Path) -> list[Document]:
    """Read the text documents below a folder, or a single file, as LlamaIndex documents.

    Markdown and text files are read here; PDF, Word, HTML and the like through LlamaIndex's readers
    (`pip install 'rag-ft[readers]'`). Files of other kinds and hidden ones are passed over.

    Raises:
        InputError: where the path is missing, holds no readable document, or a file is not UTF-8.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from rag_ft import read_documents
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "leave.md").write_text("# Booking leave\\n\\nLeave is booked in HELM.")
        >>> [(document.id_, document.metadata["title"]) for document in read_documents(folder)]
        [('leave.md', 'Booking leave')]
    """
    return list(stream_documents(folder))


def stream_documents(folder: str | Path) -> Iterator[Document]:
    """What `read_documents` reads, one document at a time."""
    from llama_index.core.schema import Document

    root = Path(folder)
    if not root.exists():
        raise InputError(f"{root} does not exist: give a folder of documents")
    files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
    if root.is_dir():
        files = [path for path in files if not any(part.startswith(".") for part in path.relative_to(root).parts)]
    readable = [path for path in files if path.suffix.lower() in TEXT_SUFFIXES | READER_SUFFIXES]
    if not readable:
        kinds = ", ".join(sorted({path.suffix or path.name for path in files})[:6]) or "it is empty"
        raise InputError(f"{root} holds no text document ({kinds}): .md, .txt, .rst, .pdf, .docx and .html are read")
    if len(readable) < len(files):
        logger.info("passed over %d files in %s that are no documents", len(files) - len(readable), root)
    empty = True
    for path in readable:
        name = path.name if root.is_file() else path.relative_to(root).as_posix()
        raw = read_text(path) if path.suffix.lower() in TEXT_SUFFIXES else _read_other(path)
        matter, body = split_front_matter(raw)
        text = without_template_tags(body).strip()
        if text:
            title = str(matter.get("title") or "").strip() or _first_heading(text) or Path(name).stem
            empty = False
            yield Document(
                text=text,
                id_=name,
                metadata={"title": title, "file_name": name},
                excluded_embed_metadata_keys=["file_name"],
                excluded_llm_metadata_keys=["file_name"],
                # The embedded text is title, newline, text: as a BEIR passage is embedded.
                metadata_template="{value}",
                text_template="{metadata_str}\n{content}",
            )
    if empty:
        raise InputError(f"the {len(readable)} documents in {root} are empty: there is nothing to index")


def _read_other(path: Path) -> str:
    require_package("llama_index.readers.file", "readers", f"reading {path.name}")
    from llama_index.core import SimpleDirectoryReader

    try:
        return "\n\n".join(
            part.text for part in SimpleDirectoryReader(input_files=[path], raise_on_error=True).load_data()
        )
    except Exception as error:
        reason = first_line(error)
        raise InputError(f"{path} cannot be read ({reason}): mend it or leave it out") from error


def split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """(the YAML values between two lines of `---` at the start, the rest); no values where it is not YAML.

    Example:
        >>> from rag_ft.documents.reader import split_front_matter
        >>> split_front_matter("---\\ntitle: Leave\\n---\\nText")
        ({'title': 'Leave'}, 'Text')
    """
    import yaml

    match = re.match(r"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", text, re.DOTALL)
    if not match:
        return {}, text
    try:
        values = yaml.safe_load(match[1])
    except Exception:  # a date of month 13 is a ValueError, not a YAMLError
        return {}, text[match.end() :]
    return (values, text[match.end() :]) if isinstance(values, dict) else ({}, text)


def without_template_tags(text: str) -> str:
    """Text without Jekyll, Liquid and Jinja tags and HTML comments; a tag's first quoted text stays.

    Example:
        >>> from rag_ft.documents.reader import without_template_tags
        >>> without_template_tags('Ask in {% slack_channel "travel" %}.')
        'Ask in travel.'
    """
    text = re.sub(r"\{%-?\s*comment\s*-?%\}.*?\{%-?\s*endcomment\s*-?%\}", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"\{%-?\s*(?:include|image\w*)\b[^%]*%\}", "", text)
    # In a Markdown link the tag is the address, which nobody asks for: only the link's text stays.
    text = re.sub(r"\[([^\[\]]*)\]\(\s*\{%[^%]*%\}[^)\s]*\s*\)", r"\1", text)
    text = re.sub(r"\{%[^%\"']*(?:[\"']([^\"']*)[\"'])?[^%]*%\}", lambda match: match[1] or "", text)
    return re.sub(r"\{\{[^}]*\}\}|\{:[^}\n]*\}", "", text)


def _first_heading(text: str) -> str:
    match = re.search(r"^#{1,3}\s+(.+?)\s*#*$", text, re.MULTILINE)
    return match[1].strip() if match else ""


def cut_into_nodes(
    documents: Sequence[Document], chunk_size: int = CHUNK_SIZE, chunk_overlap: int = CHUNK_OVERLAP
) -> list[TextNode]:
    """Cut documents into nodes at sentence ends; a node's id is its document's id, `#`, and its place.

    Sentences end as they do in the language of each document; one that does not tell its language follows the others.

    Args:
        documents: LlamaIndex documents.
        chunk_size: tokens in a node at most, the title included.
        chunk_overlap: tokens that neighbours share.

    Raises:
        InputError: where the overlap is no less than the chunk.

    Example:
        >>> from llama_index.core import Document
        >>> from rag_ft import cut_into_nodes
        >>> nodes = cut_into_nodes([Document(text="年假须提前申请。特殊假期填写表格。" * 9, id_="年假")], chunk_size=64)
        >>> [(node.node_id, node.text[-3:]) for node in nodes][:2]
        [('年假#0', '申请。'), ('年假#1', '表格。')]
    """
    cutter = _Cutter(chunk_size, chunk_overlap, corpus_language([document.text for document in documents]))
    return [node for document in documents for node in cutter.cut(document)]


class DocumentNodes:
    """The nodes of a folder of documents, cut while they are read: one document is in memory at a time.

    The same nodes as those of `cut_into_nodes(read_documents(folder))`; documents that do not tell their language
    follow the first 200.

    Args:
        folder: of documents, or a single file.
        chunk_size: tokens in a node at most, the title included.
        chunk_overlap: tokens that neighbours share.

    Raises:
        InputError: where the overlap is no less than the chunk, or there is no document.
    """

    def __init__(self, folder: str | Path, chunk_size: int = CHUNK_SIZE, chunk_overlap: int = CHUNK_OVERLAP) -> None:
        self._folder, self._cut = folder, (chunk_size, chunk_overlap)
        first = [document.text for document in islice(stream_documents(folder), 200)]
        self._most = corpus_language(first)
        _Cutter(*self._cut, self._most)

    def __iter__(self) -> Iterator[TextNode]:
        cutter = _Cutter(*self._cut, self._most)
        for document in stream_documents(self._folder):
            yield from cutter.cut(document)


class _Cutter:
    """Cuts documents at sentence ends, as they are in the language of each."""

    def __init__(self, chunk_size: int, chunk_overlap: int, most: str) -> None:
        if chunk_overlap >= chunk_size:
            raise InputError(f"--chunk-overlap {chunk_overlap} must be less than --chunk-size {chunk_size}")
        self._size, self._overlap, self._most = chunk_size, chunk_overlap, most
        self._places: Counter[str] = Counter()
        self._splitters: dict[str, SentenceSplitter] = {}

    def cut(self, document: Document) -> list[TextNode]:
        return self._splitter(language_of(document.text) or self._most).get_nodes_from_documents([document])  # type: ignore[return-value]

    def _splitter(self, language: str) -> SentenceSplitter:
        from llama_index.core.node_parser.text.sentence import CHUNKING_REGEX, SentenceSplitter

        if language not in self._splitters:
            self._splitters[language] = SentenceSplitter(
                chunk_size=self._size,
                chunk_overlap=self._overlap,
                chunking_tokenizer_fn=partial(sentences_of, language=language),
                secondary_chunking_regex=CHUNKING_REGEX if language in ("", "en") else CLAUSE,
                id_func=self._next_id,
            )
        return self._splitters[language]

    def _next_id(self, _: int, document: BaseNode) -> str:
        name = document.ref_doc_id or document.node_id
        self._places[name] += 1
        return f"{name}#{self._places[name] - 1}"


def passages_from_nodes(nodes: Sequence[BaseNode]) -> dict[str, Passage]:
    """Passages with the text that LlamaIndex embeds (`MetadataMode.EMBED`); empty ones are left out.

    Raises:
        InputError: where two nodes have one id, or none has text.
    """
    from llama_index.core.schema import MetadataMode

    # A title is kept apart only where the dataset puts it back: where the corpus has more than one.
    has_titles = len({str(node.metadata.get("title", "")) for node in nodes}) > 1
    passages: dict[str, Passage] = {}
    for node in nodes:
        embedded = node.get_content(metadata_mode=MetadataMode.EMBED)
        text = node.get_content(metadata_mode=MetadataMode.NONE)
        if not text.strip():
            continue
        for name in (node.node_id, node.ref_doc_id or ""):
            if any(sign in name for sign in "\t\r\n"):
                raise InputError(f"the id {name!r} of a node has a tab or a line break: use another id")
        # A parser may leave half of a character pair, which no tokenizer and no file takes.
        text, embedded = (part.encode("utf-8", "replace").decode() for part in (text, embedded))
        if node.node_id in passages:
            raise InputError(f"two nodes have the id {node.node_id!r}: ids must be unique")
        title = str(node.metadata.get("title", "")) if has_titles else ""
        if embedded != f"{title}\n{text}":
            title, text = "", embedded
        passages[node.node_id] = Passage(node.node_id, text, title, node.ref_doc_id or "")
    if not passages:
        raise InputError("no node has text: there is nothing to ask about")
    return passages
