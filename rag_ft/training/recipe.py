"""The training recipe: all settings in one place, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from rag_ft.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Loss = Literal[
    "mnr", "gist", "triplet", "cosent", "cosine", "online-contrastive", "contrastive", "mse", "margin-mse", "kl"
]
Miner = Literal["dense", "bm25", "both", "mix"]

STORED_NAMES = {"similar_per_batch": "together", "alphas": "shares", "max_forgetting": "forgetting"}
"""Setting -> its key in `rag_ft.json`, which is also accepted as a setting. Files keep the keys of version 0.1.0."""


@dataclass(frozen=True)
class Recipe:
    """The settings of a training.

    Attributes:
        epochs: number of passes over the training examples.
        patience: number of epochs without a better dev score after which training ends.
        batch_size: number of examples in a batch. The passages of the other examples are a question's negatives.
        inner_batch: number of examples whose activations are in memory at once. A larger batch is cached, which takes
            a third more time.
        loss: the name of a loss (`rag_ft.training.loop.losses`); None chooses the one that fits the data.
        negatives: maximum number of hard negatives per question, if the dataset has any. Each costs as much time as
            the positive.
        mine: how to mine hard negatives before training: `dense` (the model itself), `bm25`, `both` in turn, or the
            `mix` of their scores. None uses those of the dataset. Batches of similar passages give most of the same
            gain at no cost.
        rounds: number of times to mine and train. Each round mines with the model of the round before.
        lora: rank of the low-rank updates that are trained instead of the weights (Hu et al. 2022) and merged when the
            model is saved; 0 trains all weights. Needs peft.
        dimensions: lengths that vectors may be cut to afterwards (Matryoshka); the full length is always trained.
        similar_per_batch: number of examples with similar passages (by the base model) that share a batch: hard
            negatives without mining. 1 makes random batches.
        learning_rate: the peak learning rate, after a linear warm-up.
        warmup: fraction of the steps with a rising learning rate, as in the fine-tuning of BERT (Devlin et al. 2019).
        scale: scale of the cosine in the loss (1 / temperature); most base models were trained with 20.
        dropout: keep the model's own dropout on. It doubles the time of a step on a CPU, and did not improve short
            trainings of a trained encoder.
        cloze: applies to questions that are a sentence of their passage: in this fraction of them, the sentence is
            removed from the passage, so that the model cannot learn to look for copies (inverse cloze task, Lee et al.
            2019).
        alphas: weights of the tuned model to try in the shipped model; dev selects one. Models between base and tuned
            keep most of the gain and forget little (WiSE-FT, Wortsman et al. 2022).
        max_forgetting: maximum drop of the score on general questions (`rag_ft.training.selection.forgetting`).
        seed: seeds shuffling and the cloze.

    Raises:
        InputError: if a value is invalid.

    Example:
        >>> from rag_ft import Recipe
        >>> recipe = Recipe(epochs=1, batch_size=32, lora=8)  # train_model(dataset, "models/acme", recipe=recipe)
        >>> recipe.lora, recipe.learning_rate
        (8, 0.0001)
        >>> Recipe(batch_size=1)
        Traceback (most recent call last):
            ...
        rag_ft.errors.InputError: batch_size is 1: use a whole number, 2 or more
    """

    epochs: int = 3
    patience: int = 2
    batch_size: int = 64
    inner_batch: int = 64
    loss: Loss | None = None
    negatives: int = 1
    mine: Miner | None = None
    rounds: int = 1
    lora: int = 0
    dimensions: tuple[int, ...] = ()
    similar_per_batch: int = 4
    learning_rate: float = 1e-4
    warmup: float = 0.1
    scale: float = 20.0
    dropout: bool = False
    cloze: float = 0.9
    alphas: tuple[float, ...] = (1.0, 0.75, 0.5)
    max_forgetting: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, minimum in MINIMA.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < minimum:
                raise InputError(f"{name} is {value!r}: use a whole number, {minimum} or more")
        for name in ("learning_rate", "scale"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 < value < float("inf"):
                raise InputError(f"{name} is {value!r}: use a number above 0")
        for name in ("warmup", "cloze", "max_forgetting"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value <= 1:
                raise InputError(f"{name} is {value!r}: use a number from 0 to 1")
        for name, choices in (("loss", get_args(Loss)), ("mine", get_args(Miner))):
            if getattr(self, name) not in (None, *choices):
                raise InputError(f"{name} is {getattr(self, name)!r}: choose one of {', '.join(choices)}")
        if not isinstance(self.dropout, bool):
            raise InputError(f"dropout is {self.dropout!r}: use True or False")
        if not _all(self.alphas, lambda alpha: _is_number(alpha) and 0 < alpha <= 1):
            raise InputError(f"alphas are {self.alphas!r}: use a list of numbers above 0 and at most 1")
        if not _all(self.dimensions, lambda dimension: isinstance(dimension, int) and dimension >= 1):
            raise InputError(f"dimensions are {self.dimensions!r}: use a list of whole numbers, each 1 or more")

    def with_settings(self, settings: Mapping[str, Any]) -> Recipe:
        """Return this recipe with some values replaced.

        Args:
            settings: field -> value. The keys of `rag_ft.json` are also accepted (`STORED_NAMES`).

        Raises:
            InputError: if a setting is unknown or its value is invalid.

        Example:
            >>> from rag_ft import Recipe
            >>> Recipe().with_settings({"epochs": 1, "loss": "gist"}).loss
            'gist'
        """
        names = {stored: name for name, stored in STORED_NAMES.items()}
        settings = {names.get(name, name): value for name, value in settings.items()}
        known = {each.name for each in fields(self)}
        for name in settings:
            if name not in known:
                raise InputError(f"the recipe has no {name!r}: its settings are {', '.join(sorted(known))}")
        return replace(self, **settings)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain values, with the keys of `rag_ft.json`.

        The keys and their order are those of version 0.1.0, because the fingerprint of a training covers them.
        """
        content: dict[str, Any] = {}
        for name, value in asdict(self).items():
            content[STORED_NAMES.get(name, name)] = list(value) if isinstance(value, tuple) else value
            if name == "mine":
                content["focus"] = None  # an option that was removed
        return content


MINIMA = {
    "epochs": 1, "patience": 1, "batch_size": 2, "inner_batch": 1, "similar_per_batch": 1, "negatives": 0, "rounds": 1,
    "lora": 0,
}  # fmt: skip
"""Setting that is a whole number -> its minimum."""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _all(values: Any, is_valid: Any) -> bool:
    return isinstance(values, tuple | list) and all(is_valid(value) for value in values)


def check_settings(settings: Mapping[str, Any]) -> None:
    """Check settings of the recipe before any work is done.

    Raises:
        InputError: if a setting is unknown, its value is invalid, or it is the seed, which is a separate argument.
    """
    if "seed" in settings:
        raise InputError("seed is not a setting of the recipe: pass it as the argument `seed`")
    Recipe().with_settings(settings)


HUMAN_ALPHAS = (1.0, 0.75, 0.5)
GENERATED_ALPHAS = (0.75, 0.5, 0.25)
"""Alphas of a model tuned on generated questions, before `headroom` lowers them."""

MANY_PAIRS, LARGE_BATCH = 50_000, 256
"""Number of pairs from which a GPU uses batches of this size: more negatives (Qu et al. 2021), and still hundreds of
steps."""


def recipe_for(model: SentenceTransformer, pairs: int, generated: bool, seed: int = 0) -> Recipe:
    """Return the default recipe for a model and an amount of data.

    Args:
        model: the base model; wider models get a lower learning rate.
        pairs: number of training pairs.
        generated: whether the questions were generated. Dev then resembles training and approves of too much, so the
            alphas are smaller, and `headroom` lowers them further.
        seed: the recipe's seed.
    """
    width = model.get_embedding_dimension() or 384
    large = model.device.type == "cuda" and pairs >= MANY_PAIRS
    return Recipe(
        # There are many sentences, and new ones teach more than repeated ones. Five epochs of human questions did
        # better on dev (covidqa .640 -> .658, 10-K questions .771 -> .784), but on test as often worse as better.
        epochs=1 if pairs >= (4_000 if generated else 20_000) else 2 if generated else 3,
        batch_size=LARGE_BATCH if large else 64 if pairs >= 256 else 32,
        inner_batch=LARGE_BATCH if large else 64,
        # 1e-4 was measured at a width of 384. 2e-4 does better on dev documents and worse on others.
        learning_rate=1e-4 * min(1.0, 384 / width) ** 1.5,
        alphas=GENERATED_ALPHAS if generated else HUMAN_ALPHAS,
        seed=seed,
    )
