"""Passages to questions: written by an LLM, taken from the passages without one, or asked by people.

`generate_qa_dataset` turns LlamaIndex nodes into a `QADataset`: it collects questions from every source, filters them
and assembles the splits.
"""

import lazy_loader

# The public names stand in the stub beside this file, once; each module is loaded when one of them is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
