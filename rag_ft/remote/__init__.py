"""What is sent to a server: retries, deadlines, cost estimates, and the OpenAI Batch API."""

import lazy_loader

# The public names stand in the stub beside this file, once; each module is loaded when one of them is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
