"""Read a folder of files as LlamaIndex documents."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rag_ft.documents.front_matter import split_front_matter, without_template_tags
from rag_ft.errors import InputError, first_line, require_package
from rag_ft.files import read_text

if TYPE_CHECKING:
    from llama_index.core.schema import Document

logger = logging.getLogger(__name__)


def read_documents(folder: str | Path) -> list[Document]:
    """Read the text documents below a folder, or a single file, as LlamaIndex documents.

    Markdown and text files need no extra packages. PDF, Word, HTML and similar files are read with LlamaIndex's readers
    (`pip install 'rag-ft[readers]'`). Hidden files and files of other types are skipped.

    Raises:
        InputError: if the path is missing, has no readable document, or a file is not UTF-8.

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
    """Yield the documents of `read_documents` one at a time."""
    root = Path(folder)
    paths = _readable_files(root)
    empty = True
    for path in paths:
        name = path.name if root.is_file() else path.relative_to(root).as_posix()
        if document := _to_document(READERS[path.suffix.lower()](path), name):
            empty = False
            yield document
    if empty:
        raise InputError(f"all {len(paths)} documents in {root} are empty: choose another folder")


def _readable_files(root: Path) -> list[Path]:
    if not root.exists():
        raise InputError(f"{root} does not exist: choose a folder of documents")
    files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
    if root.is_dir():
        files = [path for path in files if not any(part.startswith(".") for part in path.relative_to(root).parts)]
    readable = [path for path in files if path.suffix.lower() in READERS]
    if not readable:
        types = ", ".join(sorted({path.suffix or path.name for path in files})[:6]) or "it is empty"
        raise InputError(
            f"{root} contains no documents ({types}): supported types are .md, .txt, .rst, .pdf, .docx and .html"
        )
    if len(readable) < len(files):
        logger.info("skipped %d files in %s that are not documents", len(files) - len(readable), root)
    return readable


def _read_with_llama_index(path: Path) -> str:
    require_package("llama_index.readers.file", "readers", f"reading {path.name}")
    from llama_index.core import SimpleDirectoryReader

    try:
        pages = SimpleDirectoryReader(input_files=[path], raise_on_error=True).load_data()
        return "\n\n".join(page.text for page in pages)
    except Exception as error:
        raise InputError(f"{path} cannot be read ({first_line(error)}): fix it or leave it out") from error


READERS: dict[str, Callable[[Path], str]] = dict.fromkeys((".md", ".markdown", ".txt", ".text", ".rst"), read_text)
READERS |= dict.fromkeys((".pdf", ".docx", ".html", ".htm", ".epub", ".pptx", ".rtf"), _read_with_llama_index)
"""Suffix of a file -> the function that reads its text. It raises an `InputError` for a broken file."""


def _to_document(raw: str, name: str) -> Document | None:
    """Build a document from the text of a file; None if it has no text besides front matter and tags."""
    from llama_index.core.schema import Document

    front_matter, body = split_front_matter(raw)
    text = without_template_tags(body).strip()
    if not text:
        return None
    heading = re.search(r"^#{1,3}\s+(.+?)\s*#*$", text, re.MULTILINE)
    title = str(front_matter.get("title") or "").strip() or (heading[1].strip() if heading else "") or Path(name).stem
    return Document(
        text=text,
        id_=name,
        metadata={"title": title, "file_name": name},
        excluded_embed_metadata_keys=["file_name"],
        excluded_llm_metadata_keys=["file_name"],
        # The embedded text is title, newline, text, as for a BEIR passage.
        metadata_template="{value}",
        text_template="{metadata_str}\n{content}",
    )
