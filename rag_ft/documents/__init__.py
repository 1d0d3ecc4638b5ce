"""Read files as LlamaIndex documents and cut documents into nodes.

`read_documents` reads a folder or a file; `reader.py` maps each suffix to the function that reads it. Front matter and
template tags are removed, titles are kept. `cut_into_nodes` cuts the documents at sentence ends, and
`passages_from_nodes` turns nodes (these or those of an app) into the passages of a dataset.
"""

import lazy_loader

# The stub beside this file lists the public names. A module is loaded when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
