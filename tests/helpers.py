"""What the tests of the class use: States, optimizers for them, and comparisons.

With OPTIONS a gradient of 8 gives E[g2] + eps = 25, so its first steps can be checked by hand.
"""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
from compare_with_oracle import assert_near_exact

from braintools_adadelta import Adadelta
from braintools_adadelta.oracle.bounds import PLAIN

OPTIONS = {"rho": 5 / 8, "eps": 1.0}
OPTIONS_ON = {"rho": 0.5, "eps": 0.25, "weight_decay": 0.5, "grad_clip_norm": 0.5, "grad_clip_value": 0.5}

# Gradients: for one number, for what made() registers, and two steps of them for two().
ONE = jnp.array([1.0])
GRADS_OF_W = {"w": jnp.ones(2)}
G = [{"a": jnp.array([8.0, 1.0]), "b": jnp.array([3.0])}, {"a": jnp.array([6.0, -2.0]), "b": jnp.array([-3.0])}]


def state(*values, dtype=None, cls=brainstate.ParamState):
    return cls(jnp.array(values, dtype))


def two():
    return state(4.0, 2.0), state(1.0)


def optimizer(states, **options):
    """Return ours for `states`, with OPTIONS where no others are given."""
    return Adadelta(**(OPTIONS | options)).register_trainable_weights(states)


def default_optimizer(states, **options):
    """Return ours for `states`, with its own defaults where no others are given."""
    return made(Adadelta, states, **options)


def made(cls, states=None, **options):
    """Return an optimizer of the class `cls`, ours or the original, for `states` or for one of two numbers."""
    optimizer = cls(**options)
    optimizer.register_trainable_weights({"w": state(1.0, 2.0)} if states is None else states)
    return optimizer


def everything(ours):
    """Return a copy of all that an optimizer and its parameters hold."""
    values = {name: s.value for name, s in ours.param_states.items()}
    return jax.tree.map(np.array, (values, ours.state_dict(), [group["lr"].value for group in ours.param_groups]))


def same(got, want):
    jax.tree.map(np.testing.assert_array_equal, got, want)


def near(got, start, grads, **options):
    """Say that `got` is where ours with OPTIONS leads from `start`, within the bound for its order of operations."""
    assert_near_exact(got, start, grads, form=PLAIN, **(OPTIONS | options))


def near_after_ones(got, steps, start=1.0, lr=1.0, **options):
    """Say that `got` is where so many gradients of 1 lead, with the defaults of rho and eps."""
    assert_near_exact(got, [start], [[1.0]] * steps, lr=lr, rho=0.9, eps=1e-6, **options)
