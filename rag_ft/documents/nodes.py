"""Cut documents into nodes at sentence ends, and turn nodes into passages."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rag_ft.dataset.qa_dataset import Passage
from rag_ft.dataset.text.embedded_metadata import keys_without_content, warning_about
from rag_ft.dataset.text.language import corpus_language, language_of
from rag_ft.dataset.text.sentences import sentences_of
from rag_ft.dataset.units import is_random
from rag_ft.documents.node_documents import in_order_of_text, name_documents
from rag_ft.documents.node_gate import admit, admitted, embedded_text
from rag_ft.documents.reader import stream_documents
from rag_ft.errors import InputError

if TYPE_CHECKING:
    from llama_index.core.node_parser import SentenceSplitter
    from llama_index.core.schema import BaseNode, Document, TextNode

logger = logging.getLogger(__name__)

CHUNK_SIZE = 256
"""Default size of a node in tokens, which small embedding models can read."""

CHUNK_OVERLAP = 0
"""Default overlap in tokens. With an overlap each passage would nearly repeat its neighbour."""

CLAUSE = "[^,.;。？！，、；：\\n]+[,.;。？！，、；：\\n]?|[,.;。？！，、；：\\n]"
"""Regular expression for the parts of a sentence that is longer than a node, in languages other than English."""

LANGUAGE_SAMPLE = 200
"""Number of documents that a stream reads ahead to find the main language."""


def cut_into_nodes(
    documents: Sequence[Document], chunk_size: int = CHUNK_SIZE, chunk_overlap: int = CHUNK_OVERLAP
) -> list[TextNode]:
    """Cut documents into nodes at sentence ends. The id of a node is the id of its document, `#`, and its index.

    Sentence ends follow the rules of each document's language. If the language of a document is unclear, the main
    language of all documents is used.

    Args:
        documents: LlamaIndex documents.
        chunk_size: maximum number of tokens in a node, including the title.
        chunk_overlap: number of tokens that neighbours share.

    Raises:
        InputError: if the overlap is not less than the chunk size.

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
    """The nodes of a folder of documents, cut while reading: only one document is in memory at a time.

    The nodes are those of `cut_into_nodes(read_documents(folder))`, except that the main language is detected from the
    first 200 documents.

    Args:
        folder: a folder of documents, or a single file.
        chunk_size: maximum number of tokens in a node, including the title.
        chunk_overlap: number of tokens that neighbours share.

    Raises:
        InputError: if the overlap is not less than the chunk size, or the folder has no documents.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from rag_ft.documents import DocumentNodes
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "leave.md").write_text("# Booking leave\\n\\nLeave is booked in HELM.")
        >>> [node.node_id for node in DocumentNodes(folder)]
        ['leave.md#0']
    """

    def __init__(self, folder: str | Path, chunk_size: int = CHUNK_SIZE, chunk_overlap: int = CHUNK_OVERLAP) -> None:
        self._folder = folder
        sample = [document.text for document in islice(stream_documents(folder), LANGUAGE_SAMPLE)]
        self._new_cutter = partial(_Cutter, chunk_size, chunk_overlap, corpus_language(sample))
        self._new_cutter()  # checks the arguments

    def __iter__(self) -> Iterator[TextNode]:
        cutter = self._new_cutter()
        for document in stream_documents(self._folder):
            yield from cutter.cut(document)


class _Cutter:
    """Cuts documents at the sentence ends of their language."""

    def __init__(self, chunk_size: int, chunk_overlap: int, main_language: str) -> None:
        if chunk_overlap >= chunk_size:
            raise InputError(f"--chunk-overlap {chunk_overlap} must be less than --chunk-size {chunk_size}")
        self._size, self._overlap, self._main_language = chunk_size, chunk_overlap, main_language
        self._node_counts: Counter[str] = Counter()
        self._splitters: dict[str, SentenceSplitter] = {}

    def cut(self, document: Document) -> list[TextNode]:
        clean = admit(document)
        if clean is None:
            return []
        document = cast("Document", clean)
        splitter = self._splitter(language_of(document.text) or self._main_language)
        return splitter.get_nodes_from_documents([document])  # type: ignore[return-value]

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
        self._node_counts[name] += 1
        return f"{name}#{self._node_counts[name] - 1}"


def passages_from_nodes(nodes: Iterable[BaseNode]) -> dict[str, Passage]:
    """Return the passages of nodes: the text that LlamaIndex embeds (`MetadataMode.EMBED`), and their own text.

    Nodes without text are left out. Documents are files or addresses (`source_of`), because a reader may make several
    LlamaIndex documents of one file. The order is that of the documents' names and of the text in them, so that it does
    not depend on the order of the nodes.

    Raises:
        InputError: if a node cannot be stored (`admit`), two nodes have the same id, or no node has text.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> from rag_ft.documents import passages_from_nodes
        >>> passages_from_nodes([TextNode(id_="n1", text="Leave is booked in HELM.")])["n1"].text
        'Leave is booked in HELM.'
    """
    kept: dict[str, BaseNode] = {}
    for node in admitted(nodes):
        if node.node_id in kept and embedded_text(node) != embedded_text(kept[node.node_id]):
            raise InputError(f"two nodes have the id {node.node_id!r} and different content: ids must be unique")
        kept[node.node_id] = node
    if not kept:
        raise InputError("no node has text: pass nodes with text")
    document_of = name_documents(kept)
    _warn_of_unknown_documents(document_of)
    # `QADataset.passage_texts` prepends titles only if the corpus has more than one, so only then are they separated.
    has_titles = len({str(node.metadata.get("title", "")) for node in kept.values()}) > 1
    passages = {key: _passage(kept[key], document_of[key], has_titles) for key in in_order_of_text(kept, document_of)}
    if warning := warning_about(keys_without_content(passages.values()), len(passages)):
        logger.warning("%s", warning)
    return passages


def _warn_of_unknown_documents(document_of: Mapping[str, str]) -> None:
    """Say what is assumed if nodes do not tell their document."""
    unknown = sum(not document for document in document_of.values())
    if unknown and any(is_random(key) for key, document in document_of.items() if not document):
        logger.warning(
            "%d of %d nodes do not tell which document they come from, so each counts as its own document: name the "
            'file in their metadata (metadata["file_path"]) if several are of one document', unknown, len(document_of),
        )  # fmt: skip


def _passage(node: BaseNode, document: str, has_titles: bool) -> Passage:
    from llama_index.core.schema import MetadataMode

    embedded, text = embedded_text(node), node.get_content(metadata_mode=MetadataMode.NONE)
    title = str(node.metadata.get("title", "")) if has_titles else ""
    if title and embedded == f"{title}\n{text}":
        return Passage(node.node_id, text, title, document)
    return Passage(node.node_id, embedded, "", document, text if text != embedded else "")
