"""Training examples, and how they are put into batches.

The input is the train split or the scored pairs of a `QADataset`, and optionally a teacher. The output is a list of
`TrainingExample`s: pairs with hard negatives, scored pairs, or rows labelled by the teacher. The batch sampler keeps
false negatives out of a batch.
"""

import lazy_loader

# The stub beside this file lists the public names. A module is loaded when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
