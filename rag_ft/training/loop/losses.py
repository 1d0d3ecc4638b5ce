"""Which loss teaches a model: by the shape of the data, or by name. All but one are sentence-transformers'."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from rag_ft.dataset.qa_dataset import QADataset
from rag_ft.errors import InputError
from rag_ft.training.examples.pairs import TrainingExample
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
"""Loss -> the shape of data that it learns from; `vectors` and `rankings` are a teacher's."""

TEACHER_TEMPERATURE = 0.05
"""Of the softmax over a teacher's cosines: 1 / the scale of the contrastive losses."""


def loss_that_fits(dataset: QADataset, teacher: bool = False, same_space: bool = True) -> Loss:
    """The loss that the data asks for.

    | data | loss |
    |---|---|
    | questions with their passages, with negatives or without | `mnr` |
    | pairs with scores, and no questions to train on | `cosent` |
    | pairs with yes and no, and no questions to train on | `online-contrastive` |
    | a teacher whose vectors are as long as the student's, or longer | `mse` |
    | any other teacher | `kl` |
    """
    if teacher:
        return "mse" if same_space else "kl"
    if dataset.qrels.get("train") or not dataset.scored_pairs:
        return "mnr"
    return "online-contrastive" if {pair.score for pair in dataset.scored_pairs} <= {0.0, 1.0} else "cosent"


def loss_for(model: SentenceTransformer, recipe: Recipe) -> nn.Module:
    """The loss of a recipe.

    | loss | learns from | what it does | source |
    |---|---|---|---|
    | `mnr` | pairs, also with negatives | every other passage of the batch is a negative, in both directions \
| Henderson et al. 2017 |
    | `gist` | pairs, also with negatives | one direction, without negatives that the base model finds nearer than \
the right one | Solatorio 2024 |
    | `triplet` | pairs with a negative | the passage nearer than its negative by a margin | Schroff et al. 2015 |
    | `cosent` | scored pairs | pairs in the order of their scores | Su 2022 |
    | `cosine` | scored pairs | the cosine is the score | Reimers and Gurevych 2019 |
    | `online-contrastive` | binary pairs | near or far by a margin, the hard ones only | Hadsell et al. 2006 |
    | `contrastive` | binary pairs | near or far by a margin | Hadsell et al. 2006 |
    | `mse` | a teacher's vectors | the student's vectors become the teacher's | Reimers and Gurevych 2020 |
    | `margin-mse` | a teacher's scores | as far between passage and negative as the teacher | Hofstätter et al. 2020 |
    | `kl` | a teacher's scores | the teacher's distribution over passage and negatives | Lin et al. 2020 |

    For `mnr` and `gist`, batches larger than `inner_batch` are cached (Gao et al. 2021): the gradients are those of
    the whole batch, memory is that of the inner one. With `dimensions`, the loss is the sum over vectors that are cut
    to each of them (Kusupati et al. 2022).

    Args:
        model: the model to be trained; `gist` takes a copy of it as its guide.
        recipe: its `loss` (`mnr` where None), `scale`, `batch_size`, `inner_batch` and `dimensions`.

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

    # The texts of a model of word vectors alone come in one row, which is not cut; it needs hardly any memory.
    whole = recipe.batch_size <= recipe.inner_batch or has_static_embedding_input(model)
    cached: dict[str, Any] = {} if whole else {"mini_batch_size": recipe.inner_batch}
    match recipe.loss:
        case "gist":
            guide = copy.deepcopy(model).eval().requires_grad_(False)
            gist = losses.CachedGISTEmbedLoss if cached else losses.GISTEmbedLoss
            return gist(model, guide, temperature=1 / recipe.scale, **cached)
        case "triplet":
            return losses.TripletLoss(model, losses.TripletDistanceMetric.COSINE, triplet_margin=0.2)
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


def by_row(recipe: Recipe) -> bool:
    """Whether each row has a loss of its own, so that a batch may come in parts whose gradients are added up."""
    return recipe.loss in ("triplet", "cosine", "contrastive", "mse", "margin-mse", "kl")


def in_batch(recipe: Recipe) -> bool:
    """Whether the passages of other rows are negatives, so that batches must be made with care."""
    return recipe.loss in (None, "mnr", "gist")


def passages_are_shared(recipe: Recipe, pairs: Sequence[TrainingExample]) -> bool:
    """Whether a passage is read once for all of a batch's questions on it: with negatives a row shows more than it."""
    return recipe.loss in (None, "mnr") and not pairs[0].negatives


def check_dimensions(model: SentenceTransformer, recipe: Recipe) -> None:
    """Make sure that a model has as many dimensions as it is to be cut to.

    Raises:
        InputError: where it has fewer.
    """
    full = model.get_embedding_dimension() or 0
    if recipe.dimensions and max(recipe.dimensions) > full:
        raise InputError(f"dimensions are {list(recipe.dimensions)}: the model's vectors have {full}")


def check_shape(loss: Loss, dataset: QADataset, teacher: bool, mined: bool) -> None:
    """Make sure that a loss finds in the data what it learns from.

    Raises:
        InputError: where it does not, with what to give.
    """
    shape = SHAPE[loss]
    if shape in ("vectors", "rankings") and not teacher:
        raise InputError(f"the loss {loss!r} learns from another model: give --teacher")
    if teacher and shape not in ("vectors", "rankings"):
        fitting = ", ".join(name for name in SHAPE if SHAPE[name] in ("vectors", "rankings"))
        raise InputError(f"the loss {loss!r} does not learn from a teacher: give one of {fitting}")
    if shape in ("scored", "binary") and not dataset.scored_pairs:
        raise InputError(f"the loss {loss!r} learns from pairs with scores, and the dataset has no scored_pairs.jsonl")
    if shape == "triplets" and not mined and not _any_negatives(dataset.qrels.get("train", {}), dataset):
        raise InputError(f"the loss {loss!r} needs negatives, and the dataset has none: mine some (--mine dense)")


def _any_negatives(queries: Sequence[str] | dict[str, Any], dataset: QADataset) -> bool:
    return any(dataset.negatives.get(query) for query in queries)
