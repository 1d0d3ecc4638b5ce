from .recipe import AdapterRecipe as AdapterRecipe
from .train import TrainedAdapter as TrainedAdapter
from .train import train_adapter as train_adapter
