"""The dataset: passages, questions, which passage answers which question, and the splits.

`QADataset` is the dataset that all later steps use. `formats/` reads and writes it (BEIR folders, LlamaIndex's JSON,
tables of pairs). Other modules split, merge, inspect and review it. `text/` analyses texts: languages, sentences,
words, near-duplicates.
"""

import lazy_loader

# The stub beside this file lists the public names. A module is loaded when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
