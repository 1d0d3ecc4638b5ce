"""A tuned model to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from rag_ft.embedding.contract import read_model_record
from rag_ft.errors import InputError, OutsideError, first_line


def push_to_hub(
    folder: str | Path, repository: str, *, private: bool = True, token: str | None = None, endpoint: str | None = None
) -> str:
    """Upload a model folder with its card and contract; others load it by its name.

    Args:
        folder: of `train_model` or `rag-ft train`.
        repository: `OWNER/NAME`; made where it is not there.
        private: whether a new one is for its owner alone.
        token: of the hub; that of `hf auth login` or HF_TOKEN where None. It is written nowhere.
        endpoint: of another hub than huggingface.co; HF_ENDPOINT where None.

    Returns:
        The address of the commit.

    Raises:
        InputError: where the folder holds no model of rag_ft, or the name is none.
        OutsideError: where the hub does not answer, or refuses.

    Example:
        >>> from rag_ft.embedding import push_to_hub
        >>> push_to_hub("runs/acme/model", "acme/handbook-embeddings")  # doctest: +SKIP
        'https://huggingface.co/acme/handbook-embeddings/commit/...'
        >>> push_to_hub("no-model", "acme/handbook-embeddings")
        Traceback (most recent call last):
            ...
        rag_ft.errors.InputError: no-model holds no model that rag-ft made: give the folder of rag-ft train or run
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    if not read_model_record(Path(folder)):
        raise InputError(f"{folder} holds no model that rag-ft made: give the folder of rag-ft train or run")
    api = HfApi(endpoint=endpoint, token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="A model tuned with rag_ft", ignore_patterns=[".*"]
        )
    except HFValidationError as error:
        raise InputError(f"{repository!r} is no name on the hub: give OWNER/NAME") from error
    except Exception as error:
        reason = first_line(error)
        raise OutsideError(
            f"the hub did not take {repository} ({reason}): log in (hf auth login) or try again"
        ) from error
    return str(done.commit_url)
