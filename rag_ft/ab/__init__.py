"""A/B tests of two retrievers or query engines, called variants a (in use) and b (its possible replacement).

`ABRetriever` and `ABQueryEngine` combine two variants in an app, `rag-ft ab` shows both on a local page, and
`judge_answers` has an LLM judge their answers. What was shown and how people reacted goes into a vote log
(`rag_ft.feedback`); `decide_from_votes` turns its tally into a verdict on b.
"""

import lazy_loader

# The stub beside this file lists the public names. A module is loaded when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
