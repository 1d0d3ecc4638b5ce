"""Generate questions about passages: with an LLM, from the passages themselves, or from questions that people asked.

`generate_qa_dataset` takes LlamaIndex nodes and returns a `QADataset`. It collects questions from all sources, filters
them with a reason for each dropped one, and assembles the splits. LLM responses are stored in a journal, so a killed
run resumes without paying twice.
"""

import lazy_loader

# The stub beside this file lists the public names. A module is loaded when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
