"""User feedback: the log of votes and picks, its tally, and training questions from picks.

`Votes` stores what was shown for each query, and the votes and picks that followed. `tally_of` counts them for the
verdict of an A/B test, and `questions_from_feedback` turns picks into questions with their passages.
"""

import lazy_loader

# The stub beside this file lists the public names. A module is loaded when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
