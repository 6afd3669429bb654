__version__ = "0.1.0"

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from braintools_adadelta.optimizer import Adadelta
    from braintools_adadelta.schedule import LRScheduler
    from braintools_adadelta.transform import scale_by_adadelta

# Loaded when first asked for, so that the oracle and the conformance kit can be imported where there is no jax.
_HOME = {"Adadelta": "optimizer", "LRScheduler": "schedule", "scale_by_adadelta": "transform"}
__all__ = ["Adadelta", "LRScheduler", "scale_by_adadelta"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
