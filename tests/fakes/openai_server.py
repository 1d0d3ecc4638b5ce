"""An HTTP server that speaks OpenAI's protocol (chat completions, embeddings, files, batches), with latency and faults.

    python tests/fakes/openai_server.py --latency 0.5 --faults 0.3

It prints its address, answers every prompt with JSON questions that follow from the prompt alone, and tells at
GET /stats what it was asked: requests, their outcomes, how many times each prompt was answered well.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = ("429", "500", "reset", "cut", "rubbish")
"""What may befall a request; `401` is one more, for tests that ask for it."""


def answer_to(prompt: str) -> str:
    """Questions that share the rarest-looking words of the passage, as JSON; one for each kind that was asked for."""
    inside = re.search(r"<passage>\n(.*?)\n</passage>", prompt, re.DOTALL)
    words = re.findall(r"\w{4,}", inside[1] if inside else prompt)
    kinds = re.findall(r"^- (\w+):", prompt.split("</passage>")[-1], re.MULTILINE) or ["question"]
    seed = int(hashlib.sha256((inside[1] if inside else prompt).encode()).hexdigest(), 16)
    draw = random.Random(seed)
    questions = []
    for kind in kinds:
        chosen = draw.sample(words, min(5, len(words))) if words else ["nothing"]
        questions.append({"style": kind, "question": f"How do {' '.join(chosen)} hang together?"})
    return json.dumps({"questions": questions})


DIMENSION = 64


def vector_of(text: str, version: int = 0) -> list[float]:
    """A vector of length 1 that follows from the words of a text alone: texts that share words are near."""
    vector = [0.0] * DIMENSION
    for word in re.findall(r"\w+", text.lower()):
        digest = hashlib.sha256(f"{version} {word}".encode()).digest()
        for place in range(4):
            vector[digest[place] % DIMENSION] += 1.0 if digest[place + 8] % 2 else -1.0
    length = sum(number * number for number in vector) ** 0.5
    return [number / length for number in vector] if length else [1.0] + [0.0] * (DIMENSION - 1)


def embeddings(body: dict[str, Any], version: int = 0) -> dict[str, Any]:
    """The answer to a request for vectors."""
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    vectors: list[Any] = [vector_of(text, version) for text in texts]
    if body.get("encoding_format") == "base64":
        vectors = [base64.b64encode(struct.pack(f"<{DIMENSION}f", *vector)).decode() for vector in vectors]
    data = [{"object": "embedding", "index": place, "embedding": vector} for place, vector in enumerate(vectors)]
    return {
        "object": "list", "model": body["model"], "data": data, "usage": {"prompt_tokens": 1, "total_tokens": 1},
    }  # fmt: skip


class State:
    """What the server knows, under one lock."""

    def __init__(self, latency: float, faults: float, seed: int = 0) -> None:
        self.latency = latency
        self.faults = faults
        self.draw = random.Random(seed)
        self.lock = threading.Lock()
        self.outcomes: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.in_flight = self.most_in_flight = 0
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.batch_seconds = 0.2
        self.texts: Counter[str] = Counter()
        """Texts whose vectors were sent whole."""
        self.version = 0
        """Of the weights behind the embeddings."""
        self.paths: Counter[str] = Counter()
        self.keys: set[str] = set()
        self.batch_endings: list[str] = []
        """How the next batches end: completed, partial, expired or failed; completed when the list is used up."""

    def fault(self) -> str:
        with self.lock:
            return self.draw.choice(FAULTS) if self.draw.random() < self.faults else ""

    def count(self, outcome: str, prompt: str = "") -> None:
        with self.lock:
            self.outcomes[outcome] += 1
            if outcome == "ok":
                self.answered[hashlib.sha256(prompt.encode()).hexdigest()] += 1

    def stats(self) -> dict[str, Any]:
        with self.lock:
            return {
                "outcomes": dict(self.outcomes),
                "requests": sum(self.outcomes.values()),
                "prompts": len(self.answered),
                "answered_twice": sum(count > 1 for count in self.answered.values()),
                "most_in_flight": self.most_in_flight,
                "batches": len(self.batches),
            }


def completion(text: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": "fake",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, *args: object) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.state.lock:
            self.state.paths[self.path] += 1
            self.state.keys.add(self.headers.get("api-key") or self.headers.get("Authorization", ""))
        if self.path.split("?")[0].endswith("/embeddings"):
            self.in_flight(lambda: self.embed(json.loads(body)))
        elif self.path.endswith("/chat/completions"):
            self.in_flight(lambda: self.chat(json.loads(body)["messages"][-1]["content"]))
        elif self.path.endswith("/files"):
            content = body.split(b"\r\n\r\n")
            part = next(chunk for chunk in content if chunk.lstrip().startswith(b"{"))
            identifier = f"file-{len(self.state.files) + 1}"
            self.state.files[identifier] = part.rsplit(b"\r\n--", 1)[0]
            self.reply(200, self.file(identifier))
        elif self.path.endswith("/batches"):
            self.start_batch(json.loads(body))
        else:
            self.reply(404, {"error": {"message": "no such path"}})

    def in_flight(self, answer: Callable[[], None]) -> None:
        with self.state.lock:
            self.state.in_flight += 1
            self.state.most_in_flight = max(self.state.most_in_flight, self.state.in_flight)
        try:
            answer()
        finally:
            with self.state.lock:
                self.state.in_flight -= 1

    def chat(self, prompt: str) -> None:
        rubbish = completion('{"questions": [{"style": "question", "ques')
        self.answer(completion(answer_to(prompt)), rubbish, prompt)

    def embed(self, body: dict[str, Any]) -> None:
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        if self.answer(embeddings(body, self.state.version), b'{"object": "list", "data": [', "\n".join(texts)):
            with self.state.lock:
                self.state.texts.update(texts)

    def answer(self, good: Any, rubbish: Any, prompt: str) -> bool:
        """Answer well, or as a fault has it; whether it went well."""
        time.sleep(self.state.latency)
        fault = self.state.fault()
        self.state.count(fault or "ok", prompt)
        if fault == "401":
            key = self.headers.get("Authorization", "").removeprefix("Bearer ")
            self.reply(401, {"error": {"message": f"Incorrect API key provided: {key}", "code": "invalid_api_key"}})
        elif fault == "429":
            self.reply(429, {"error": {"message": "slow down", "code": "rate_limit"}}, {"Retry-After": "0.2"})
        elif fault == "500":
            self.reply(500, {"error": {"message": "a bad day"}})
        elif fault == "reset":
            # An RST, not an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            self.connection.close()
            self.close_connection = True
        elif fault == "cut":
            data = json.dumps(good).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault == "rubbish":
            self.reply(200, rubbish)
        else:
            self.reply(200, good)
        return not fault

    def file(self, identifier: str) -> dict[str, Any]:
        return {
            "id": identifier, "object": "file", "bytes": len(self.state.files[identifier]), "created_at": 0,
            "filename": "rag_ft.jsonl", "purpose": "batch", "status": "processed",
        }  # fmt: skip

    def start_batch(self, request: dict[str, Any]) -> None:
        with self.state.lock:
            identifier = f"batch_{len(self.state.batches) + 1}"
            ending = self.state.batch_endings.pop(0) if self.state.batch_endings else "completed"
            lines = self.state.files[request["input_file_id"]].decode().splitlines()
            self.state.batches[identifier] = {
                "id": identifier, "object": "batch", "endpoint": request["endpoint"], "created_at": 0,
                "input_file_id": request["input_file_id"], "completion_window": "24h", "status": "in_progress",
                "metadata": request.get("metadata"), "errors": None, "output_file_id": None, "error_file_id": None,
                "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
                "_ending": ending, "_ready": time.monotonic() + self.state.batch_seconds,
            }  # fmt: skip
        if ending == "lost":  # the batch began, and the answer that says so never came
            self.connection.close()
            self.close_connection = True
            return
        self.reply(200, self.batch(identifier))

    def batch(self, identifier: str) -> dict[str, Any]:
        batch = self.state.batches[identifier]
        if batch["status"] == "in_progress" and time.monotonic() >= batch["_ready"]:
            self.finish(batch)
        return {key: value for key, value in batch.items() if not key.startswith("_")}

    def finish(self, batch: dict[str, Any]) -> None:
        ending = batch["_ending"]
        lines = [json.loads(line) for line in self.state.files[batch["input_file_id"]].decode().splitlines()]
        if ending == "failed":
            batch["status"] = "failed"
            batch["errors"] = {
                "object": "list",
                "data": [{"code": "token_limit_exceeded", "message": "Enqueued tokens"}],
            }
            return
        good, bad = [], []
        for place, line in enumerate(lines):
            embedding = line["url"].endswith("/embeddings")
            prompt = line["body"]["input"] if embedding else line["body"]["messages"][-1]["content"]
            head = {"id": f"batch_req_{place}", "custom_id": line["custom_id"]}
            if ending == "expired" and place >= len(lines) // 2:
                error = {"code": "batch_expired", "message": "This request could not be executed before the end"}
                bad.append(head | {"response": None, "error": error})
            elif ending == "partial" and place % 3 == 0:
                body = {"error": {"message": "The server had an error"}}
                bad.append(head | {"response": {"status_code": 500, "request_id": "r", "body": body}, "error": None})
            else:
                rubbish = ending == "partial" and place % 3 == 1
                if embedding:
                    answer = {"data": []} if rubbish else embeddings(line["body"], self.state.version)
                    self.state.texts.update([] if rubbish else [prompt])
                else:
                    answer = completion("I cannot" if rubbish else answer_to(prompt))
                self.state.count("rubbish" if rubbish else "ok", prompt)
                good.append(head | {"response": {"status_code": 200, "request_id": "r", "body": answer}, "error": None})
        random.Random(0).shuffle(good)  # results come in any order
        for name, rows in (("output_file_id", good), ("error_file_id", bad)):
            if rows:
                identifier = f"file-{len(self.state.files) + 1}"
                self.state.files[identifier] = "".join(json.dumps(row) + "\n" for row in rows).encode()
                batch[name] = identifier
        batch["request_counts"] = {"total": len(lines), "completed": len(good), "failed": len(bad)}
        batch["status"] = "expired" if ending == "expired" else "completed"

    def do_GET(self) -> None:
        path = self.path.split("?")[0].removeprefix("/v1")
        if path == "/stats":
            self.reply(200, self.state.stats())
        elif path == "/batches":
            listed = [self.batch(identifier) for identifier in reversed(self.state.batches)]
            self.reply(200, {"object": "list", "data": listed, "has_more": False})
        elif path.startswith("/batches/"):
            self.reply(200, self.batch(path.split("/")[2]))
        elif path.startswith("/files/") and path.endswith("/content"):
            self.reply(200, self.state.files[path.split("/")[2]])
        else:
            self.reply(404, {"error": {"message": "no such path"}})


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was broken on purpose, or by a killed client, is no news."""


def serve(latency: float = 0.0, faults: float = 0.0, seed: int = 0, port: int = 0) -> tuple[Server, State, str]:
    """Start a server in a thread; (the server, its state, its address that ends in /v1)."""
    state = State(latency, faults, seed)
    server = Server(("127.0.0.1", port), type("Bound", (Handler,), {"state": state}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, state, f"http://127.0.0.1:{server.server_address[1]}/v1"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.5, help="seconds before an answer")
    parser.add_argument("--faults", type=float, default=0.0, help="share of requests that fail")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    running, _, address = serve(arguments.latency, arguments.faults, port=arguments.port)
    print(address, flush=True)
    threading.Event().wait()
