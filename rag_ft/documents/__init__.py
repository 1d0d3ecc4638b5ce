"""Files to LlamaIndex documents, and documents to nodes.

`read_documents` reads a folder or a file; `reader.py` maps each suffix to the function that reads it. Front matter and
template tags are left out, titles are kept. `cut_into_nodes` cuts the documents at sentence ends, and
`passages_from_nodes` turns nodes (these or an app's own) into the passages of a dataset.
"""

import lazy_loader

# The public names stand in the stub beside this file, once; each module is loaded when one of them is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
