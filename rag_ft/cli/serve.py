"""`rag-ft serve`."""

from __future__ import annotations

import logging
import sys

from rag_ft.cli import options
from rag_ft.cli.console import begin, say
from rag_ft.errors import require_package


def serve(
    model: options.ServedModel,
    device: options.Device = None,
    quiet: options.Quiet = False,
    name: options.ServedName = None,
    backend: options.ServeBackend = "torch",
    int8: options.ServeInt8 = False,
    dimension: options.ServeDimension = None,
    port: options.Port = 8000,
    host: options.ServeHost = "127.0.0.1",
    rate_limit: options.RateLimit = None,
) -> None:
    """Serve a model as OpenAI's /v1/embeddings and /v1/models; NAME-query and NAME-passage select the role.

    Clients must send the key in the environment variable RAG_FT_API_KEY. Logs are JSON lines on stderr.
    """
    begin(quiet)
    for package in ("fastapi", "uvicorn", "prometheus_client"):
        require_package(package, "serve", "rag-ft serve")
    from rag_ft.embedding.model_spec import ModelSpec
    from rag_ft.embedding.resolve_embedding import embedding_by_name
    from rag_ft.server.app import api_key_of_environment, create_app
    from rag_ft.server.limits import Limits
    from rag_ft.server.logs import log_as_json
    from rag_ft.server.protocol import model_names
    from rag_ft.server.running import bound_socket, check_host
    from rag_ft.server.running import serve as serve_app

    key = api_key_of_environment()
    check_host(host, key is not None)
    with bound_socket(host, port) as listening:  # checks the port before loading a model
        spec = ModelSpec(name=model, device=device)
        embedding = embedding_by_name(spec, dimension=dimension, backend=backend, int8=int8)
        server = create_app(embedding, name, key, Limits(requests_per_minute=rate_limit))
        log_as_json(sys.stderr, logging.WARNING if quiet else logging.INFO)
        listening.listen()
        displayed_host = f"[{host}]" if ":" in host else host
        names = ", ".join(model_names(server.state.served.name))
        say(f"{names} at http://{displayed_host}:{listening.getsockname()[1]}/v1")
        serve_app(server, listening)
