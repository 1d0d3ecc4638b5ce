"""Uploading a tuned model to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from rag_ft.embedding.contract import read_model_record
from rag_ft.errors import InputError, OutsideError, first_line


def push_to_hub(
    folder: str | Path, repository: str, *, private: bool = True, token: str | None = None, endpoint: str | None = None
) -> str:
    """Upload a model folder with its card and contract, so that others can load it by its name.

    Args:
        folder: the output of `train_model` or `rag-ft train`.
        repository: `OWNER/NAME`; created if it does not exist.
        private: whether a new repository is private.
        token: access token of the hub; None uses `hf auth login` or HF_TOKEN. It is not stored.
        endpoint: address of another hub; None uses HF_ENDPOINT or huggingface.co.

    Returns:
        The URL of the commit.

    Raises:
        InputError: if the folder does not hold a model of rag_ft, or the repository's name is invalid.
        OutsideError: if the hub does not answer, or rejects the upload.

    Example:
        >>> from rag_ft.embedding import push_to_hub
        >>> push_to_hub("runs/acme/model", "acme/handbook-embeddings")  # doctest: +SKIP
        'https://huggingface.co/acme/handbook-embeddings/commit/...'
        >>> push_to_hub("no-model", "acme/handbook-embeddings")
        Traceback (most recent call last):
            ...
        rag_ft.errors.InputError: no-model is not a model of rag-ft: pass the output folder of rag-ft train or run
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    if not read_model_record(Path(folder)):
        raise InputError(f"{folder} is not a model of rag-ft: pass the output folder of rag-ft train or run")
    api = HfApi(endpoint=endpoint, token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="A model tuned with rag_ft", ignore_patterns=[".*"]
        )
    except HFValidationError as error:
        raise InputError(f"{repository!r} is not a repository name: use OWNER/NAME") from error
    except Exception as error:
        reason = first_line(error)
        raise OutsideError(f"the upload to {repository} failed ({reason}): log in (hf auth login) or retry") from error
    return str(commit.commit_url)
