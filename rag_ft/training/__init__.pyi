from .examples.hard_negatives import mine_negatives as mine_negatives
from .recipe import Recipe as Recipe
from .train import TrainedModel as TrainedModel
from .train import train_model as train_model
