"""A cross-encoder that removes answers from mined negatives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.errors import InputError, first_line
from rag_ft.quiet import quiet_libraries

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


def load_cross_encoder(name: str, device: str | None = None) -> CrossEncoder:
    """Load a reranker, without pickle and without remote code.

    Args:
        name: a folder or a hub name.
        device: a torch device; None picks the best one available.

    Raises:
        InputError: if the reranker cannot be loaded.
    """
    from sentence_transformers import CrossEncoder

    try:
        with quiet_libraries():
            return CrossEncoder(name, device=device, trust_remote_code=False, model_kwargs={"use_safetensors": True})
    except Exception as error:
        reason = first_line(error)
        raise InputError(
            f"{name} cannot be loaded as a cross-encoder ({reason}): choose a folder or a hub name of one"
        ) from error


def without_answers(
    mined: dict[str, dict[str, str]], dataset: QADataset, cross_encoder: CrossEncoder, margin: float
) -> dict[str, dict[str, str]]:
    """Remove mined passages that a cross-encoder scores like answers.

    Args:
        mined: query -> passage -> its miner.
        dataset: a dataset with a train split.
        cross_encoder: scores the relevant and the mined passages of each query.
        margin: maximum score of a negative as a fraction of the best relevant passage's score.
    """
    import torch

    texts, train = dataset.passage_texts, dataset.require("train")
    rows = [(query, passage) for query, miner_of in mined.items() for passage in [*train[query], *miner_of]]
    # Scores from 0 to 1, so that the margin is a fraction.
    predicted = cross_encoder.predict(
        [(dataset.queries[query].text, texts[passage]) for query, passage in rows], activation_fn=torch.nn.Sigmoid()
    )
    scores = dict(zip(rows, map(float, predicted), strict=True))
    return {
        query: {
            passage: miner
            for passage, miner in miner_of.items()
            if scores[query, passage] <= margin * max(scores[query, answer] for answer in train[query])
        }
        for query, miner_of in mined.items()
    }
