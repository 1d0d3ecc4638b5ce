"""`rag-ft serve`."""

from __future__ import annotations

import logging
import sys
from typing import Annotated, Literal

import typer

from rag_ft.cli.app import app, begin, out
from rag_ft.cli.options import Device, Quiet


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="A model folder, an adapter's folder, a hub name, or 'local'.")],
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="0 for one that is free.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Another one opens the server to other machines, and needs RAG_FT_API_KEY.")
    ] = "127.0.0.1",
    name: Annotated[str | None, typer.Option(help="By which it is asked for; the model's own when not given.")] = None,
    backend: Annotated[
        Literal["torch", "onnx", "openvino"], typer.Option(help="What computes the vectors (rag-ft export).")
    ] = "torch",
    int8: Annotated[bool, typer.Option("--int8", help="The export in 8 bits, of --backend onnx or openvino.")] = False,
    dimension: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Vectors are cut to this (rag-ft train --dimension).")
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Of one address; no limit when not given.")
    ] = None,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Serve a model as OpenAI's /v1/embeddings and /v1/models; NAME-query and NAME-passage say the role.

    RAG_FT_API_KEY in the environment is the key that callers must send. The log is JSON lines on stderr.
    """
    begin(quiet)
    from rag_ft.embedding.resolve_embedding import embedding_by_name
    from rag_ft.errors import require_package

    for package in ("fastapi", "uvicorn", "prometheus_client"):
        require_package(package, "serve", "rag-ft serve")
    from rag_ft.server.app import api_key_of_environment, create_app
    from rag_ft.server.limits import Limits
    from rag_ft.server.logs import log_as_json
    from rag_ft.server.protocol import model_names
    from rag_ft.server.running import bound_socket, check_host
    from rag_ft.server.running import serve as run

    key = api_key_of_environment()
    check_host(host, key is not None)
    with bound_socket(host, port) as listening:  # a port that is taken is found out before a model is loaded
        embedding = embedding_by_name(model, backend=backend, int8=int8, dimension=dimension, device=device)
        server = create_app(embedding, name, key, Limits(requests_per_minute=requests_per_minute))
        log_as_json(sys.stderr, logging.WARNING if quiet else logging.INFO)
        at = listening.getsockname()[1]
        listening.listen()
        shown = f"[{host}]" if ":" in host else host
        names = ", ".join(model_names(server.state.served.name))
        out.print(f"{names} at http://{shown}:{at}/v1", highlight=False, markup=False, soft_wrap=True)
        run(server, listening)
