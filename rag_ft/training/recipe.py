"""The training recipe in one place: each number with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from rag_ft.embedding.encoding import token_limit
from rag_ft.embedding.loading import longest_input
from rag_ft.errors import InputError
from rag_ft.quiet import quiet_libraries

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


Loss = Literal[
    "mnr", "gist", "triplet", "cosent", "cosine", "online-contrastive", "contrastive", "mse", "margin-mse", "kl"
]
Miner = Literal["dense", "bm25", "both", "mix"]

OLD_NAMES = {"together": "similar_per_batch"}
"""Key in `rag_ft.json` and setting on the command line -> field of the recipe. Files keep the keys of version 0.1.0."""


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
        epochs: passes over the pairs.
        patience: epochs without a better dev figure after which training ends.
        batch_size: pairs in a batch; each question sees the others' passages as negatives.
        inner_batch: pairs whose activations are in memory at once; a larger batch is cached, at a third more time.
        loss: its name (`rag_ft.training.loop.losses`); None takes the one that fits the data.
        negatives: hard negatives that a question takes at most, where the dataset has some. Each costs as much as
            the positive.
        mine: who looks for hard negatives before training: `dense` (the model itself), `bm25`, `both` in turn, or the
            `mix` of their scores; None takes those of the dataset. Batches of similar passages are most of what they
            bring, at no cost.
        rounds: of mining and training, each with the model of the round before.
        lora: rank of the low-rank updates that are trained in place of the weights (Hu et al. 2022) and merged when
            the model is saved; 0 trains all weights. Needs peft.
        dimensions: lengths that vectors may be cut to afterwards (Matryoshka); the full one is always trained.
        similar_per_batch: number of rows with similar passages (by the base model) that enter a batch together. They
            are hard negatives without mining. 1 makes random batches.
        learning_rate: the peak, after a linear warm-up.
        warmup: share of the steps, as the fine-tuning of BERT has it (Devlin et al. 2019).
        scale: of the cosine in the loss (1 / temperature); 20 is what most of the base models were trained with.
        dropout: whether the model's own dropout stays on. It is the largest cost on a CPU (half of a step),
            and short tunings of a trained encoder were no better with it.
        cloze: share of the pairs whose question is a sentence of its passage that lose this sentence, so
            that the model cannot learn to look for copies (inverse cloze task, Lee et al. 2019).
        shares: how much of the tuned weights the shipped model may have; dev chooses one. Weights between
            base and tuned model keep most of the gain and forget little (WiSE-FT, Wortsman et al. 2022).
        forgetting: how much less sure of general questions the shipped model may be than the base
            (`rag_ft.training.selection.forgetting`).
        seed: of shuffling and of the cloze.

    Example:
        >>> from rag_ft import Recipe
        >>> recipe = Recipe(epochs=1, batch_size=32, lora=8)  # train_model(dataset, "models/acme", recipe=recipe)
        >>> recipe.to_dict()["lora"], recipe.learning_rate
        (8, 0.0001)
        >>> Recipe(batch_size=1)
        Traceback (most recent call last):
            ...
        rag_ft.errors.InputError: batch_size is 1: give a whole number, 2 or more
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
    shares: tuple[float, ...] = (1.0, 0.75, 0.5)
    forgetting: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            InputError: with the setting and its value.
        """
        for name, known in (("loss", get_args(Loss)), ("mine", get_args(Miner))):
            if getattr(self, name) not in (None, *known):
                raise InputError(f"{name} is {getattr(self, name)!r}: give one of {', '.join(known)}")
        least_values = {"batch_size": 2, "negatives": 0, "lora": 0}
        for name in (
            "epochs",
            "patience",
            "batch_size",
            "inner_batch",
            "similar_per_batch",
            "negatives",
            "rounds",
            "lora",
        ):
            least = least_values.get(name, 1)
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise InputError(f"{name} is {value!r}: give a whole number, {least} or more")
        for name in ("learning_rate", "scale"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 < value < float("inf"):
                raise InputError(f"{name} is {value!r}: give a number above 0")
        for name, most in (("warmup", 1.0), ("cloze", 1.0), ("forgetting", 1.0)):
            if not _is_number(getattr(self, name)) or not 0 <= getattr(self, name) <= most:
                raise InputError(f"{name} is {getattr(self, name)!r}: give a number from 0 to {most:g}")
        if not isinstance(self.dropout, bool):
            raise InputError(f"dropout is {self.dropout!r}: give True or False")
        if not isinstance(self.shares, tuple | list) or not all(_is_number(s) and 0 < s <= 1 for s in self.shares):
            raise InputError(f"shares are {self.shares!r}: give a list of numbers above 0, and 1 at most")
        whole = isinstance(self.dimensions, tuple | list) and all(isinstance(each, int) for each in self.dimensions)
        if not whole or any(dimension < 1 for dimension in self.dimensions):
            raise InputError(f"dimensions are {self.dimensions!r}: give a list of whole numbers, 1 or more each")

    def but(self, **settings: Any) -> Recipe:
        """This recipe with other settings.

        Raises:
            InputError: where one is unknown or cannot be meant.

        Example:
            >>> from rag_ft import Recipe
            >>> Recipe().but(epochs=1, loss="gist").loss
            'gist'
        """
        settings = {OLD_NAMES.get(name, name): value for name, value in settings.items()}
        known = {each.name for each in fields(self)}
        for name in settings:
            if name not in known:
                raise InputError(f"the recipe has no {name!r}: its settings are {', '.join(sorted(known))}")
        return replace(self, **settings)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain values, as `rag_ft.json` keeps it.

        The keys and their order stay those of version 0.1.0, because the fingerprint of a training covers them.
        """
        key_of = {name: key for key, name in OLD_NAMES.items()}
        found: dict[str, Any] = {}
        for name, value in asdict(self).items():
            found[key_of.get(name, name)] = list(value) if isinstance(value, tuple) else value
            if name == "mine":
                found["focus"] = None  # an option of 0.1.0 that is gone
        return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse what no recipe has, or can mean, before any work is done.

    Raises:
        InputError: with the setting; a seed has a place of its own beside the recipe.
    """
    if "seed" in settings:
        raise InputError("the settings of the recipe have a seed: give it beside them")
    Recipe().but(**settings)


HUMAN_SHARES = (1.0, 0.75, 0.5)
GENERATED_SHARES = (0.75, 0.5, 0.25)
"""Of weights tuned on generated questions, where there is all room to learn (`headroom`)."""

MANY_PAIRS, LARGE_BATCH = 50_000, 256
"""On a GPU so many pairs come in batches of this size: more negatives (Qu et al. 2021), and still hundreds of steps."""


def recipe_for(model: SentenceTransformer, pairs: int, generated: bool, seed: int = 0) -> Recipe:
    """The default recipe for a model and an amount of data.

    Args:
        model: the base model; wider models take smaller steps.
        pairs: training pairs.
        generated: whether the questions were generated. Then dev is made like training and approves too
            much, so that less of the tuned weights is allowed, and how much follows from `headroom`.
        seed: of the run.
    """
    width = model.get_embedding_dimension() or 384
    large = model.device.type == "cuda" and pairs >= MANY_PAIRS
    return Recipe(
        # Sentences are plenty: other ones teach more than the same ones again. Five epochs of human questions did
        # better on dev (covidqa .640 -> .658, 10-K questions .771 -> .784), and as often worse as better on test.
        epochs=1 if pairs >= (4_000 if generated else 20_000) else 2 if generated else 3,
        batch_size=LARGE_BATCH if large else 64 if pairs >= 256 else 32,
        # Where so many do not fit, fewer are computed at once and the batch is cached.
        inner_batch=LARGE_BATCH if large else 64,
        # 1e-4 was measured on a width of 384: 2e-4 does better on dev documents and worse on others. Wider models
        # take smaller steps.
        learning_rate=1e-4 * min(1.0, 384 / width) ** 1.5,
        shares=GENERATED_SHARES if generated else HUMAN_SHARES,
        seed=seed,
    )


TRUNCATION_LIMIT = 0.25


def fitting_max_length(model: SentenceTransformer, texts: Sequence[str], sample: int = 500) -> int:
    """The maximum length for these passages: the model's own, or more where that would cut a quarter of each.

    Cutting costs more than any loss function can win where passages are much longer than the model reads
    (10-K filings: 9 points of hit rate between 256 and 512 tokens). But a model reads best, and in half of the time,
    at the length that it was trained on, so a small cut is left alone. Each passage counts alike, since a question is
    about one of them: a few very long ones do not decide for all.

    Args:
        model: its tokenizer, own length and positions count.
        texts: passages as they are embedded.
        sample: how many of them are counted.

    Returns:
        Tokens, a multiple of 64 where it is longer than the model's own; 0 where that has no bound.
    """
    own = token_limit(model)
    if not own:
        return 0
    longest = min(longest_input(model) or own, max(own, 512))
    if longest <= own or not texts:
        return own
    step = max(1, len(texts) // sample)
    with quiet_libraries():  # it would warn of texts that are longer than it reads, which is what is asked here
        lengths = [len(ids) for ids in model.tokenizer([text[:20_000] for text in texts[::step]])["input_ids"]]
    cut = sum(max(0, length - own) / length for length in lengths) / len(lengths)
    if cut < TRUNCATION_LIMIT:
        return own
    needed = sorted(lengths)[int(len(lengths) * 0.9)]
    return min(longest, -(-needed // 64) * 64)
