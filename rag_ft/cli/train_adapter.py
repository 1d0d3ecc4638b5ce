"""`rag-ft train-adapter`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rag_ft.cli import options
from rag_ft.cli.console import begin, say
from rag_ft.cli.inputs import named_fields, request_policy
from rag_ft.embedding.loading import DEFAULT_BASE_MODEL
from rag_ft.errors import InputError

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from rag_ft.adapters.train import TrainedAdapter
    from rag_ft.dataset.qa_dataset import QADataset
    from rag_ft.embedding.request_sender import RequestPolicy
    from rag_ft.embedding.training_summary import TrainingSummary


def train_adapter(
    dataset: options.Dataset,
    output: options.OutputAdapter,
    base_model: options.AdaptedModel = DEFAULT_BASE_MODEL,
    both_sides: options.BothSides = False,
    max_pairs: options.AdapterMaxPairs = None,
    device: options.Device = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    field: options.Fields = None,
    embed_url: options.EmbedUrl = None,
    max_cost: options.MaxCost = 5.0,
    requests_per_minute: options.RequestsPerMinute = None,
    batch: options.Batch = False,
) -> None:
    """Train a linear map of embedding vectors, for models whose weights cannot be tuned, such as OpenAI's.

    By default only questions are mapped, so the index stays valid. The test split is not used.
    """
    show_progress = begin(quiet)
    from rag_ft.dataset.formats.load import load_dataset

    training = AdapterTraining(
        base_model=base_model, both_sides=both_sides, max_pairs=max_pairs, url=embed_url, device=device, seed=seed
    )
    policy = request_policy(max_cost, requests_per_minute, batch)
    training.run(load_dataset(dataset, fields=named_fields(field)), output, policy, show_progress)


@dataclass(frozen=True, kw_only=True)
class AdapterTraining:
    """The arguments of `train-adapter`.

    Attributes:
        base_model: the name of the embedding.
        both_sides: map passages as well as questions.
        max_pairs: maximum number of pairs to train on.
        url: the server for openai:NAME.
        device: a torch device, for a local embedding.
        seed: seeds every random choice.
    """

    base_model: str
    both_sides: bool
    max_pairs: int | None
    url: str | None
    device: str | None
    seed: int

    def run(self, dataset: QADataset, output: Path, policy: RequestPolicy, show_progress: bool) -> None:
        """Train the adapter, and print its scores.

        Raises:
            InputError: if an option for a server was given and the embedding is local.
        """
        from rag_ft.adapters.recipe import AdapterRecipe
        from rag_ft.adapters.train import train_adapter as train
        from rag_ft.embedding.openai_api import is_openai_name

        if (policy.batch or self.url) and not is_openai_name(self.base_model):
            raise InputError(
                f"--batch and --embed-url are for openai:MODEL, and --base-model is {self.base_model}: omit them"
            )
        recipe = AdapterRecipe(map_passages=self.both_sides, max_pairs=self.max_pairs, seed=self.seed)
        trained = train(
            dataset, self._embedding(), output, recipe=recipe, request_policy=policy, show_progress=show_progress
        )
        show_adapter(trained)
        say(f"adapter {output}")

    def _embedding(self) -> BaseEmbedding:
        from rag_ft.embedding.fine_tuned import FineTunedEmbedding
        from rag_ft.embedding.model_spec import ModelSpec
        from rag_ft.embedding.openai_api import is_openai_name, openai_embedding

        if not is_openai_name(self.base_model):
            return FineTunedEmbedding.load(ModelSpec(name=self.base_model, device=self.device))
        mapped = "questions and passages" if self.both_sides else "questions only, so that the index stays valid"
        say(
            f"the weights of {self.base_model} cannot be tuned through its API: training a linear map of its vectors "
            f"instead ({mapped})"
        )
        return openai_embedding(self.base_model, self.url)


def show_adapter(trained: TrainedAdapter) -> None:
    """Print the dev scores, and which candidate was selected and why."""
    summary = trained.summary
    if summary.scores:
        say(f"dev ndcg@10: {summary.scores_text}")
    show_decision(summary)


def show_decision(summary: TrainingSummary) -> None:
    """Print which candidate was selected and why, each rejected candidate once, and what can be done about it."""
    say(summary.decided, style="yellow" if summary.is_base else "green")
    for candidate in summary.rejected:
        say(f"  rejected: {candidate}", style="yellow")
    for step in summary.next_steps:
        say(step)
