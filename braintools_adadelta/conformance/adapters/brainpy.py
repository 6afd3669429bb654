"""brainpy.optim.Adadelta: its own weight decay, no clipping."""

import brainpy
import brainpy.math as bm
import jax.numpy as jnp
import numpy as np


class Brainpy:
    """``optimizer.update(grads)`` on variables of brainpy.math."""

    name = "brainpy"
    defaults = {"lr": 1.0, "rho": 0.95, "eps": 1e-6}
    supports = {"weight_decay"}

    def start(self, params, *, lr, rho, eps, weight_decay):
        variables = {name: bm.TrainVar(jnp.asarray(x)) for name, x in params.items()}
        optimizer = brainpy.optim.Adadelta(
            lr=lr, rho=rho, epsilon=eps, weight_decay=weight_decay or None, train_vars=variables
        )
        return optimizer, variables

    def step(self, handle, grads):
        handle[0].update({name: jnp.asarray(g) for name, g in grads.items()})
        return handle

    def params(self, handle):
        return {name: np.asarray(x.value) for name, x in handle[1].items()}

    def accumulators(self, handle):
        optimizer, variables = handle
        kept = optimizer.implicit_vars
        return tuple({name: np.asarray(kept[name + key].value) for name in variables} for key in ("_cache", "_delta"))

    def set_lr(self, handle, lr):
        handle[0].lr.lr = lr
        return handle
