"""The losses of a recipe, and which one fits the data. All but one come from sentence-transformers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rag_ft.errors import InputError
from rag_ft.training.examples.training_example import TrainingExample
from rag_ft.training.recipe import Loss, Recipe

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

Shape = Literal["pairs", "triplets", "scored", "binary", "vectors", "rankings"]

SHAPE: dict[Loss, Shape] = {
    "mnr": "pairs",
    "gist": "pairs",
    "triplet": "triplets",
    "cosent": "scored",
    "cosine": "scored",
    "online-contrastive": "binary",
    "contrastive": "binary",
    "mse": "vectors",
    "margin-mse": "rankings",
    "kl": "rankings",
}
"""Loss -> the shape of data that it learns from. `vectors` and `rankings` come from a teacher."""

TEACHER_TEMPERATURE = 0.05
"""Temperature of the softmax over a teacher's cosines: the inverse of the contrastive losses' scale."""

TRIPLET_MARGIN = 0.2


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The properties of the data that the choice of a loss depends on.

    Attributes:
        pairs: number of training pairs.
        has_questions: whether there is a train split.
        generated: whether most of its questions were generated.
        scores: the distinct scores of the scored pairs.
        has_negatives: whether a training question has hard negatives.
        teacher: whether there is a teacher.
        same_space: whether the teacher's vectors are at least as long as the student's.
    """

    pairs: int
    has_questions: bool
    generated: bool
    scores: frozenset[float]
    has_negatives: bool
    teacher: bool
    same_space: bool


def default_loss(facts: DataFacts) -> Loss:
    """Choose the loss that fits the data.

    | data | loss |
    |---|---|
    | queries with their passages, with or without negatives | `mnr` |
    | scored pairs, and no train split | `cosent` |
    | pairs with scores 0 and 1 only, and no train split | `online-contrastive` |
    | a teacher whose vectors are at least as long as the student's | `mse` |
    | any other teacher | `kl` |
    """
    if facts.teacher:
        return "mse" if facts.same_space else "kl"
    if facts.has_questions or not facts.scores:
        return "mnr"
    return "online-contrastive" if facts.scores <= {0.0, 1.0} else "cosent"


def loss_for(model: SentenceTransformer, recipe: Recipe) -> nn.Module:
    """Create the loss of a recipe.

    | loss | learns from | what it does | source |
    |---|---|---|---|
    | `mnr` | pairs, also with negatives | ranks the positive first in its batch, both ways | Henderson et al. 2017 |
    | `gist` | pairs, also with negatives | one direction, without negatives that the base model ranks above the \
positive | Solatorio 2024 |
    | `triplet` | pairs with a negative | keeps the positive nearer by a margin | Schroff et al. 2015 |
    | `cosent` | scored pairs | sorts the pairs by their scores | Su 2022 |
    | `cosine` | scored pairs | makes the cosine the score | Reimers and Gurevych 2019 |
    | `online-contrastive` | binary pairs | `contrastive` on the hard pairs of a batch only | Hadsell et al. 2006 |
    | `contrastive` | binary pairs | separates positives from negatives by a margin | Hadsell et al. 2006 |
    | `mse` | a teacher's vectors | makes the student's vectors the teacher's | Reimers and Gurevych 2020 |
    | `margin-mse` | a teacher's scores | copies the teacher's margin between the two | Hofstätter et al. 2020 |
    | `kl` | a teacher's scores | copies the teacher's distribution over positive and negatives | Lin et al. 2020 |

    For `mnr` and `gist`, batches larger than `inner_batch` are cached (Gao et al. 2021): the gradients are those of
    the whole batch, with the memory of the inner batch. With `dimensions`, the loss is the sum over vectors that are
    cut to each of them (Kusupati et al. 2022).

    Args:
        model: the model to train; `gist` uses a copy of it as its guide.
        recipe: the recipe; `loss` (None means `mnr`), `scale`, `batch_size`, `inner_batch` and `dimensions` are used.

    Example:
        >>> from rag_ft import Recipe
        >>> from rag_ft.embedding.loading import load_sentence_transformer
        >>> from rag_ft.training.loop.losses import loss_for
        >>> model = load_sentence_transformer("local")
        >>> loss_for(model, Recipe(batch_size=1024)).uses_gradient_cache
        True
    """
    from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss

    loss = _plain_loss(model, recipe)
    if not recipe.dimensions:
        return loss
    full = model.get_embedding_dimension() or max(recipe.dimensions)
    return MatryoshkaLoss(model, loss, sorted({*recipe.dimensions, full}, reverse=True))


def _plain_loss(model: SentenceTransformer, recipe: Recipe) -> nn.Module:
    from sentence_transformers.base.losses.gradcache import has_static_embedding_input
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.util import pairwise_cos_sim

    from rag_ft.training.loop.shared_passages_loss import SharedPassagesLoss

    # A static embedding gets all texts in one row, which cannot be divided, but it needs hardly any memory.
    whole = recipe.batch_size <= recipe.inner_batch or has_static_embedding_input(model)
    cached: dict[str, Any] = {} if whole else {"mini_batch_size": recipe.inner_batch}
    match recipe.loss:
        case "gist":
            guide = copy.deepcopy(model).eval().requires_grad_(False)
            gist = losses.CachedGISTEmbedLoss if cached else losses.GISTEmbedLoss
            return gist(model, guide, temperature=1 / recipe.scale, **cached)
        case "triplet":
            return losses.TripletLoss(model, losses.TripletDistanceMetric.COSINE, triplet_margin=TRIPLET_MARGIN)
        case "cosent":
            return losses.CoSENTLoss(model, scale=recipe.scale)
        case "cosine":
            return losses.CosineSimilarityLoss(model)
        case "online-contrastive":
            return losses.OnlineContrastiveLoss(model)
        case "contrastive":
            return losses.ContrastiveLoss(model)
        case "mse":
            return losses.MSELoss(model)
        case "margin-mse":
            return losses.MarginMSELoss(model, similarity_fct=pairwise_cos_sim)
        case "kl":
            return losses.DistillKLDivLoss(model, similarity_fct=pairwise_cos_sim, temperature=TEACHER_TEMPERATURE)
        case _:
            return SharedPassagesLoss(model, recipe.scale, **cached)


def is_row_wise(recipe: Recipe) -> bool:
    """Return whether the loss is a mean over rows, so that the gradients of parts of a batch can be added up."""
    return recipe.loss in ("triplet", "cosine", "contrastive", "mse", "margin-mse", "kl")


def has_in_batch_negatives(recipe: Recipe) -> bool:
    """Return whether the passages of other rows are negatives, so that a batch can contain false negatives."""
    return recipe.loss in (None, "mnr", "gist")


def shares_passages(recipe: Recipe, examples: Sequence[TrainingExample]) -> bool:
    """Return whether a passage is encoded once for all of its queries in a batch. Negatives prevent that."""
    return recipe.loss in (None, "mnr") and not examples[0].negatives


def check_dimensions(model: SentenceTransformer, recipe: Recipe) -> None:
    """Raise an `InputError` if the recipe has more dimensions than the model."""
    full = model.get_embedding_dimension() or 0
    if recipe.dimensions and max(recipe.dimensions) > full:
        raise InputError(
            f"dimensions are {list(recipe.dimensions)}, but the model's vectors have {full}: use smaller numbers"
        )


def check_shape(loss: Loss, facts: DataFacts, mined: bool) -> None:
    """Check that a loss can learn from the data.

    Args:
        loss: the name of the loss.
        facts: the properties of the data.
        mined: whether hard negatives will be mined.

    Raises:
        InputError: if it cannot.
    """
    shape = SHAPE[loss]
    if shape in ("vectors", "rankings") and not facts.teacher:
        raise InputError(f"the loss {loss!r} learns from another model: choose one with --teacher")
    if facts.teacher and shape not in ("vectors", "rankings"):
        fitting = ", ".join(name for name in SHAPE if SHAPE[name] in ("vectors", "rankings"))
        raise InputError(f"the loss {loss!r} does not learn from a teacher: choose one of {fitting}")
    if shape in ("scored", "binary") and not facts.scores:
        raise InputError(f"the loss {loss!r} learns from scored pairs, and the dataset has no scored_pairs.jsonl")
    if shape == "triplets" and not mined and not facts.has_negatives:
        raise InputError(f"the loss {loss!r} needs negatives, and the dataset has none: mine them (--mine dense)")
