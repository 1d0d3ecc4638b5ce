"""Compare retrievers on the same held-out questions: metrics, confidence intervals, a verdict, and rank changes.

`compare` searches a `QADataset` with each retriever and returns a `Comparison`, which you can print, save and load. Its
rankings give the rank change of each question, with likely causes, and the dataset of the next round.
"""

import lazy_loader

# The stub beside this file lists the public names. A module is loaded when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
