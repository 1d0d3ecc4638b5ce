"""The training loop: the SentenceTransformers Trainer with losses, LoRA, checkpoints, dev scores and a time limit.

The input is a model, training examples and a recipe. The output is a `FitResult`: the weights with the best dev score,
the scores and the losses. A killed training resumes from its checkpoints.
"""

import lazy_loader

# The stub beside this file lists the public names. A module is loaded when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
