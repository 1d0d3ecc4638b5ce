"""Reports of a comparison: one HTML file, Markdown for a pull request, and a table of every question.

All take a `Comparison` and, for single questions, its dataset. `inspection_table` prints an inspection on the
terminal; the terminal's table of a comparison is in `rag_ft.evaluation`.
"""

import lazy_loader

# The stub beside this file lists the public names. A module is loaded when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
