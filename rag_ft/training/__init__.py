"""A `QADataset` to a tuned model folder: prepare, plan, fit, select, save.

`train_model` is the entry. `examples/` makes what a loss learns from, `loop/` runs the steps, and `selection/` decides
on dev questions which weights are shipped.
"""

import lazy_loader

# The public names stand in the stub beside this file, once; each module is loaded when one of them is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
