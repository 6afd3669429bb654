"""Classes with the interface of ``braintools.optim.Adadelta``, seen through numpy."""

from contextlib import nullcontext

import brainstate
import jax
import jax.numpy as jnp
import numpy as np


class BrainstateAdadelta:
    """The implementation that the class `cls` is. Its accumulators are shown if its opt_state has them."""

    supports = {"weight_decay", "grad_clip_norm", "grad_clip_value", "float64"}

    def __init__(self, name, cls, more=()):
        self.name, self.cls, self.supports = name, cls, self.supports | set(more)

    def start(self, params, **options):
        wide = any(x.dtype.name in ("float64", "complex128") for x in params.values())
        with precision(wide):
            states = {name: brainstate.ParamState(jnp.asarray(x)) for name, x in params.items()}
            optimizer = self.cls(**options)
            optimizer.register_trainable_weights(states)
        return optimizer, states, wide

    def step(self, handle, grads):
        optimizer, _, wide = handle
        with precision(wide):
            optimizer.update({name: jnp.asarray(g) for name, g in grads.items()})
        return handle

    def params(self, handle):
        return {name: np.asarray(state.value) for name, state in handle[1].items()}

    def accumulators(self, handle):
        pair = memory(getattr(handle[0].opt_state, "value", None))
        return pair and tuple({name: np.asarray(x) for name, x in tree.items()} for tree in pair)

    def set_lr(self, handle, lr):
        handle[0].current_lr = lr
        return handle


def precision(wide):
    """Return a context in which JAX computes in 64 bits if `wide`."""
    return jax.enable_x64(True) if wide else nullcontext()


def memory(state):
    """Return (e_g2, e_delta2) from an opt_state: a record with one of these pairs of fields, or a chain with one."""
    for names in (("e_g2", "e_delta2"), ("e_g", "e_x")):
        if all(hasattr(state, name) for name in names):
            return tuple(getattr(state, name) for name in names)
    parts = state if isinstance(state, tuple | list) else ()
    return next((pair for pair in map(memory, parts) if pair), None)


def ours():
    from braintools_adadelta import Adadelta

    return BrainstateAdadelta("braintools_adadelta", Adadelta, ["float16", "bfloat16", "complex64", "complex128"])


def original():
    from braintools.optim import Adadelta

    return BrainstateAdadelta("braintools", Adadelta, ["float16", "bfloat16", "complex64", "complex128"])
