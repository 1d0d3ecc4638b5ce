from .checkpoints import Checkpoints as Checkpoints
from .fit_result import FitResult as FitResult
from .losses import loss_for as loss_for
from .tracking import Tracking as Tracking
from .trainer import run_trainer as run_trainer
