"""Chroma clients and collections: an embedded folder, or a server behind http://."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from rag_ft.errors import InputError, OutsideError

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

SPACE = "cosine"


def open_chroma(where: str | Path, create: bool = True) -> ClientAPI:
    """Open an embedded Chroma folder, or a server by its address.

    Args:
        where: a folder, or `http://host:port` (or `https://`).
        create: make the folder where there is none.

    Raises:
        InputError: where the folder is something else, or is missing and not to be made.
        OutsideError: where the server does not answer.
    """
    import chromadb

    # No settings of our own: Chroma refuses a second client on one folder with other settings than the first's.
    if re.match(r"https?://", str(where)):
        url = urlparse(str(where))
        try:
            port = url.port or (443 if url.scheme == "https" else 8000)
        except ValueError as error:
            raise InputError(f"{where} is no address ({error}): --chroma takes a folder or http://HOST:PORT") from None
        try:
            client = chromadb.HttpClient(
                host=url.hostname or "",
                port=port,
                ssl=url.scheme == "https",
            )
            client.heartbeat()
        except Exception as error:
            raise OutsideError(
                f"no Chroma server answers at {url.scheme}://{url.hostname}:{port} ({_short(error)}): "
                "start it (chroma run) or check the address"
            ) from error
        return client
    folder = Path(where).expanduser()
    if folder.is_file():
        raise InputError(f"{folder} is a file: --chroma takes a folder or http://HOST:PORT")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "chroma.sqlite3").is_file():
        raise InputError(f"{folder} is not empty and no Chroma folder (no chroma.sqlite3): choose another --chroma")
    if not create and not folder.is_dir():
        raise InputError(f"{folder} does not exist: give the folder of a Chroma database")
    try:
        return chromadb.PersistentClient(path=str(folder))
    except Exception as error:
        if "disk is full" in str(error) or "No space left" in str(error):
            raise OutsideError(f"no space left on the disk for {folder}: free some and run again") from error
        raise InputError(
            f"{folder} cannot be opened as a Chroma folder ({_short(error)}): choose another --chroma"
        ) from error


def collection_name(name: str, fingerprint: str) -> str:
    """A collection name of one model: the readable part, and the start of its contract's fingerprint.

    Example:
        >>> from rag_ft.index.chroma import collection_name
        >>> collection_name("Acme policies", "0123456789abcdef")
        'Acme-policies-0123456789'
    """
    plain = re.sub(r"[^a-zA-Z0-9._-]+", "-", name).strip("-._") or "passages"
    return f"{plain[:400]}-{fingerprint[:10]}"


def check_collection_name(name: str) -> str:
    """Raise an `InputError` where Chroma would refuse a collection's name."""
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,510}[a-zA-Z0-9]", name):
        raise InputError(
            f"--collection {name!r}: 3 to 512 letters, digits, dots, dashes and underscores, "
            "with a letter or digit at both ends"
        )
    return name


def create_collection(client: ClientAPI, name: str, contract: dict[str, Any]) -> Collection:
    """A new collection with cosine distance and the embedding contract in its metadata."""
    metadata = {f"rag_ft_{key}": value for key, value in contract.items()}
    return client.create_collection(
        name, configuration={"hnsw": {"space": SPACE}}, metadata=metadata or None, embedding_function=None
    )


def collection_contract(collection: Collection) -> dict[str, Any]:
    """The embedding contract in a collection's metadata; empty where there is none."""
    metadata = collection.metadata or {}
    return {key.removeprefix("rag_ft_"): value for key, value in metadata.items() if key.startswith("rag_ft_")}


def _short(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:120].rstrip(". ")
