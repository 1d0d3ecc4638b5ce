"""The dataset: passages, questions, which passage answers which question, and the splits.

`QADataset` is the value that everything after generation works on. `formats/` reads and writes it (BEIR folders,
LlamaIndex's JSON, tables of pairs). It can be split, merged, inspected and reviewed here. `text/` has what is computed
from texts alone: languages, sentences, words, near-duplicates.
"""

import lazy_loader

# The public names stand in the stub beside this file, once; each module is loaded when one of them is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
