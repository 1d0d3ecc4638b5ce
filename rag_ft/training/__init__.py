"""A `QADataset` to a tuned model folder: prepare, plan, fit, select, save.

`train_model` is the entry point. `examples/` makes the training examples, `loop/` runs the training steps, and
`selection/` decides on dev questions which weights are shipped.
"""

import lazy_loader

# The stub beside this file lists the public names. A module is loaded when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
