"""Training examples: what a loss learns from, and how it comes into batches.

In go the train split or the scored pairs of a `QADataset`, and perhaps a teacher. Out come `TrainingExample`s: pairs
with hard negatives, scored pairs, or rows labelled by the teacher. The batch sampler keeps false negatives out of a
batch.
"""

import lazy_loader

# The stub beside this file lists the public names; each module is loaded when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
