"""Chroma clients and collections: an embedded folder, a server behind http://, or Chroma's cloud."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from rag_ft.errors import InputError, OutsideError, first_line
from rag_ft.index.contract import SPACE

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection


def is_address(where: str | Path) -> bool:
    """Whether a server or Chroma's cloud is meant, and not a folder."""
    return bool(re.match(r"https?://|cloud(:|$)", str(where)))


def open_chroma(where: str | Path, create: bool = True) -> ClientAPI:
    """Open an embedded Chroma folder, a server by its address, or a database in Chroma's cloud.

    Keys come from the environment alone: `CHROMA_AUTH_TOKEN` is sent to a server as a bearer token, `CHROMA_API_KEY`
    to the cloud.

    Args:
        where: a folder, `http://HOST:PORT` (or `https://`) with `/TENANT/DATABASE` behind it where these are not the
            default ones, or `cloud:TENANT/DATABASE` (`cloud` alone takes those that the key belongs to).
        create: make the folder where there is none.

    Raises:
        InputError: where the folder is something else, or is missing and not to be made, or the cloud's key is missing.
        OutsideError: where the server does not answer.
    """
    import chromadb

    # No settings of our own: Chroma refuses a second client on one folder with other settings than the first's.
    if is_address(where):
        return _open_server(str(where))
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
            f"{folder} cannot be opened as a Chroma folder ({first_line(error)}): choose another --chroma"
        ) from error


def _open_server(where: str) -> ClientAPI:
    import chromadb

    if where.startswith("cloud"):
        tenant, database = _tenant(where.partition(":")[2], where)
        if not (key := os.environ.get("CHROMA_API_KEY")):
            raise InputError(f"{where} needs a key: set CHROMA_API_KEY")
        connect: Callable[[], ClientAPI] = partial(chromadb.CloudClient, tenant=tenant, database=database, api_key=key)
        shown = "Chroma's cloud"
    else:
        url = urlparse(where)
        try:
            port = url.port or (443 if url.scheme == "https" else 8000)
        except ValueError as error:
            raise InputError(f"{where} is no address ({error}): --chroma takes a folder or http://HOST:PORT") from None
        tenant, database = _tenant(url.path.strip("/"), where)
        token = os.environ.get("CHROMA_AUTH_TOKEN")
        connect = partial(
            chromadb.HttpClient,
            host=url.hostname or "",
            port=port,
            ssl=url.scheme == "https",
            headers={"Authorization": f"Bearer {token}"} if token else None,
            **({"tenant": tenant, "database": database} if tenant and database else {}),
        )
        shown = f"{url.scheme}://{url.hostname}:{port}"
    try:
        client = connect()
        client.heartbeat()
    except Exception as error:
        said = first_line(error)
        refused = any(word in said.lower() for word in ("401", "403", "unauthorized", "forbidden", "permission"))
        fix = "check the key (CHROMA_AUTH_TOKEN, CHROMA_API_KEY)" if refused else "start it (chroma run)"
        raise OutsideError(f"no Chroma server answers at {shown} ({said}): {fix} or check the address") from error
    return client


def _tenant(path: str, where: str) -> tuple[str | None, str | None]:
    if not path:
        return None, None
    tenant, _, database = path.partition("/")
    if not tenant or not database or "/" in database:
        raise InputError(f"{where}: behind the address stand TENANT/DATABASE, or nothing")
    return tenant, database


def check_collection_name(name: str) -> str:
    """Raise an `InputError` where Chroma would refuse a collection's name."""
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,510}[a-zA-Z0-9]", name):
        raise InputError(
            f"--collection {name!r}: 3 to 512 letters, digits, dots, dashes and underscores, "
            "with a letter or digit at both ends"
        )
    return name


def create_collection(client: ClientAPI, name: str, metadata: dict[str, Any] | None = None) -> Collection:
    """A new collection with cosine distance, whose vectors we make ourselves."""
    return client.create_collection(
        name, configuration={"hnsw": {"space": SPACE}}, metadata=metadata or None, embedding_function=None
    )
