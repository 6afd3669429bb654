"""Living beside braintools without importing it: the only module that names it."""

import sys


def adopt(cls):
    """Make `cls` a virtual subclass of braintools' optimizers, if braintools is loaded.

    Its schedulers and its trainer ask ``isinstance(optimizer, OptaxOptimizer)``; nothing else of that class is needed.
    """
    base = getattr(sys.modules.get("braintools.optim"), "OptaxOptimizer", None)
    if base is not None and not issubclass(cls, base):
        base.register(cls)
