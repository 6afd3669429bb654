"""optax.adadelta behind optax's own clipping. Updates are computed eagerly."""

from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import optax


class Optax:
    """``optax.chain(clip_by_global_norm, clip, adadelta)`` and ``apply_updates``."""

    name = "optax"
    defaults = {"rho": 0.9, "eps": 1e-6, "weight_decay": 0.0}
    supports = {"weight_decay", "grad_clip_norm", "grad_clip_value", "float16", "bfloat16", "float64", "complex64"}

    def start(self, params, *, lr, rho, eps, weight_decay, grad_clip_norm, grad_clip_value):
        parts = [] if grad_clip_norm is None else [optax.clip_by_global_norm(grad_clip_norm)]
        parts += [] if grad_clip_value is None else [optax.clip(grad_clip_value)]
        # optax.adadelta adds its own decay after the equations. The spec wants it before them.
        parts += [optax.add_decayed_weights(weight_decay)] if weight_decay else []
        make = optax.inject_hyperparams(lambda learning_rate: optax.adadelta(learning_rate, rho, eps))
        with precision(params):
            tree = {name: jnp.asarray(x) for name, x in params.items()}
            chain = optax.chain(*parts, make(learning_rate=lr))
            return chain, tree, chain.init(tree)

    def step(self, handle, grads):
        chain, params, state = handle
        with precision(grads):
            updates, state = chain.update({name: jnp.asarray(g) for name, g in grads.items()}, state, params)
            return chain, optax.apply_updates(params, updates), state

    def params(self, handle):
        return {name: np.asarray(x) for name, x in handle[1].items()}

    def accumulators(self, handle):
        scale = next(part for part in handle[2][-1].inner_state if hasattr(part, "e_g"))
        return tuple({name: np.asarray(x) for name, x in tree.items()} for tree in (scale.e_g, scale.e_x))

    def set_lr(self, handle, lr):
        with precision(handle[1]):
            handle[2][-1].hyperparams["learning_rate"] = jnp.asarray(lr)
        return handle


def precision(tree):
    """Return a context in which JAX computes in 64 bits if there are any in `tree`."""
    wide = any(x.dtype.name in ("float64", "complex128") for x in tree.values())
    return jax.enable_x64(True) if wide else nullcontext()
