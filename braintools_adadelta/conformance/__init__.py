"""Judge any implementation of Adadelta, clause by clause, against the exact answer.

An implementation is an object with these members, all in numpy::

    class MyAdadelta:
        name = "mine"
        supports = {"weight_decay", "grad_clip_norm", "grad_clip_value", "float64"}   # optional: what it offers

        def start(self, params, **options): ...  # -> handle; params: dict[str, ndarray]; options: lr, rho, eps, ...
        def step(self, handle, grads): ...       # -> handle; grads: dict[str, ndarray]
        def params(self, handle): ...            # -> dict[str, ndarray]
        def accumulators(self, handle): ...      # optional -> (e_g2, e_delta2), two such dicts, or None
        def set_lr(self, handle, lr): ...        # optional -> handle

The kit itself imports neither jax nor brainstate. The adapters of their implementations do, when they are loaded.
"""

from collections.abc import Callable
from typing import Any, Protocol


class Implementation(Protocol):
    """What is judged, to a type checker: the three members that every implementation has."""

    @property
    def start(self) -> Callable[..., Any]: ...

    @property
    def step(self) -> Callable[..., Any]: ...

    @property
    def params(self) -> Callable[..., Any]: ...
