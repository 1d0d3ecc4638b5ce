"""Uploading a model folder to a hub, played by a small server with its protocol."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rag_ft import InputError, OutsideError
from rag_ft.embedding import push_to_hub
from rag_ft.embedding.loading import load_sentence_transformer
from rag_ft.embedding.saving import save_model


class Hub(BaseHTTPRequestHandler):
    """Creates repositories and accepts commits; it claims to have large files already."""

    def log_message(self, *arguments: object) -> None:
        pass

    def _answer(self, value: object, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._answer({"sha": "a" * 40, "id": "acme/model", "siblings": []})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server = self.server
        assert isinstance(server, HubServer)
        if self.headers.get("Authorization") != "Bearer hf_right":
            self._answer({"error": "no such key: hf_wrong"}, 401)
        elif self.path.endswith("/repos/create"):
            server.created = json.loads(body)
            self._answer({"url": server.address + "/acme/model"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["size"] > 10**6 else "regular",
                    "shouldIgnore": False,
                }
                for file in files
            ]
            self._answer({"files": modes})
        elif self.path.endswith("/objects/batch"):
            objects = json.loads(body)["objects"]
            self._answer({"objects": [{"oid": each["oid"], "size": each["size"]} for each in objects]})
        elif "/commit/" not in self.path:
            self._answer({"errors": [], "warnings": []})
        else:
            rows = [json.loads(line) for line in body.splitlines()]
            server.paths = frozenset(row["value"].get("path") for row in rows if row["key"] in ("file", "lfsFile"))
            self._answer({"commitUrl": server.address + "/acme/model/commit/1", "commitOid": "1" * 40})


class HubServer(ThreadingHTTPServer):
    created: dict | None = None
    paths: frozenset[str] = frozenset()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # large files by LFS
    server = HubServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = load_sentence_transformer("local")
    model.prompts |= {"query": "", "document": ""}
    place = tmp_path_factory.mktemp("hub") / "model"
    save_model(model, place, "local")
    return place


def test_a_model_is_uploaded_with_its_card_and_contract(hub: HubServer, folder: Path) -> None:
    address = push_to_hub(folder, "acme/model", token="hf_right", endpoint=hub.address)
    assert address.endswith("/commit/1")
    assert hub.created is not None
    assert hub.created.get("private") is True or hub.created.get("visibility") == "private"
    assert {"README.md", "rag_ft.json", "model.safetensors", "modules.json"} <= hub.paths


def test_a_refusal_is_one_line_without_the_key(hub: HubServer, folder: Path) -> None:
    with pytest.raises(OutsideError, match="the upload to acme/model failed") as refused:
        push_to_hub(folder, "acme/model", token="hf_wrong", endpoint=hub.address)
    assert "\n" not in str(refused.value)


def test_a_wrong_folder_or_name_is_refused(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a model of rag-ft"):
        push_to_hub(tmp_path, "acme/model", token="hf_right", endpoint=hub.address)
    with pytest.raises(InputError, match="OWNER/NAME"):
        push_to_hub(folder, "a/b/c", token="hf_right", endpoint=hub.address)
