__version__ = "0.1.0"

from importlib import import_module

# Loaded when first asked for, so that the oracle and the conformance kit can be imported where there is no jax.
_HOME = {"Adadelta": "optimizer", "LRScheduler": "schedule", "scale_by_adadelta": "transform"}
__all__ = ["Adadelta", "LRScheduler", "scale_by_adadelta"]


def __getattr__(name):
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
