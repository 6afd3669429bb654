"""Classes with the interface of ``braintools.optim.Adadelta``, seen through numpy."""

from contextlib import nullcontext

import brainstate
import jax
import jax.numpy as jnp
import numpy as np


class BrainstateAdadelta:
    """The implementation given by the class `cls`; `memory` finds (e_g2, e_delta2) in the value of its opt_state."""

    supports = {"weight_decay", "grad_clip_norm", "grad_clip_value", "float64"}

    def __init__(self, name, cls, memory):
        self.name, self.cls, self.memory = name, cls, memory

    def start(self, params, **options):
        wide = any(x.dtype == np.float64 for x in params.values())
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
        return tuple(
            {name: np.asarray(x) for name, x in tree.items()} for tree in self.memory(handle[0].opt_state.value)
        )

    def set_lr(self, handle, lr):
        handle[0].current_lr = lr
        return handle


def precision(wide):
    """Return a context in which JAX computes in 64 bits if `wide`."""
    return jax.enable_x64(True) if wide else nullcontext()


def ours():
    from braintools_adadelta import Adadelta

    return BrainstateAdadelta("braintools_adadelta", Adadelta, lambda value: (value.e_g2, value.e_delta2))


def original():
    from braintools.optim import Adadelta

    def memory(chain):
        part = next(part for part in chain if hasattr(part, "e_g"))
        return part.e_g, part.e_x

    return BrainstateAdadelta("braintools", Adadelta, memory)
