"""`rag-ft train` over an embedding whose weights stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from rag_ft.cli.app import out
from rag_ft.errors import InputError

if TYPE_CHECKING:
    from rag_ft.dataset.qa_dataset import QADataset
    from rag_ft.embedding.client import RequestPolicy

WHY = (
    "{name} is behind an API, and no API fine-tunes an embedding: a small map of its vectors is trained in its place, "
    "of {sides}"
)


def refuse_other_options(given: dict[str, Any]) -> None:
    """An adapter has none of the numbers of a fine-tuning.

    Raises:
        InputError: naming the first that was given.
    """
    for option, value in given.items():
        if value:
            raise InputError(f"{option} is for tuning a model's weights, and an adapter is trained: leave it out")


def train_an_adapter(
    dataset: QADataset,
    base_model: str,
    output: Path,
    kind: str,
    both_sides: bool,
    url: str | None,
    request_policy: RequestPolicy,
    max_pairs: int | None,
    seed: int,
    device: str | None,
    show_progress: bool,
) -> None:
    from rag_ft.adapters.train import train_adapter
    from rag_ft.embedding.fine_tuned import FineTunedEmbedding
    from rag_ft.embedding.openai_api import is_openai_name, openai_embedding

    remote = is_openai_name(base_model)
    if not remote and (request_policy.batch or url):
        raise InputError(
            f"--batch and --embed-url are for openai:MODEL, and --base-model is {base_model}: leave it out"
        )
    if remote:
        sides = "questions and passages" if both_sides else "questions alone, so that the index stays"
        out.print(escape(WHY.format(name=base_model, sides=sides)), highlight=False, soft_wrap=True)
        embedding: Any = openai_embedding(base_model, url)
    else:
        embedding = FineTunedEmbedding.load(base_model, device=device)
    trained = train_adapter(
        dataset,
        embedding,
        output,
        kind=kind,  # type: ignore[arg-type]
        both_sides=both_sides,
        max_pairs=max_pairs,
        request_policy=request_policy,
        seed=seed,
        show_progress=show_progress,
    )
    if trained.dev:
        figures = ", ".join(f"{name} {score:.3f}" for name, score in trained.dev.items())
        out.print(f"dev ndcg@10: {figures}", highlight=False)
    for name, reason in trained.record["training"]["refused"].items():
        out.print(f"[yellow]{escape(name)} is not taken: {escape(reason)}[/]", highlight=False)
    if trained.is_base:
        why = trained.record["training"]["base_stays_because"]
        out.print(f"[yellow]{why}: the folder holds an adapter that changes nothing[/]", highlight=False)
    out.print(f"adapter {escape(str(output))}", highlight=False)
