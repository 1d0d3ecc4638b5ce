"""Retrievers on the same held-out questions: runs, metrics, intervals, a verdict, and what changed for each question.

A `QADataset` and retrievers go in. `compare` searches with each of them and returns a `Comparison`, which prints, saves
and loads. From its rankings follow rank changes with likely causes, and the dataset of the next round.
"""

import lazy_loader

# The stub beside this file lists the public names, once. A module is loaded when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
