"""keras.optimizers.Adadelta on the jax backend."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np


class Keras:
    """``apply_gradients`` on keras variables; clipping is the optimizer's own (`global_clipnorm`, `clipvalue`)."""

    name = "keras"
    defaults = {"lr": 0.001, "rho": 0.95, "eps": 1e-7, "weight_decay": 0.0}
    supports = {"weight_decay", "grad_clip_norm", "grad_clip_value"}

    def start(self, params, *, lr, rho, eps, weight_decay, grad_clip_norm, grad_clip_value):
        variables = {name: keras.Variable(x, dtype=x.dtype.name, name=name) for name, x in params.items()}
        # keras accepts only one clip. A second one is applied by hand, in the order of the spec.
        one = {"clipvalue": grad_clip_value} if grad_clip_norm is None else {"global_clipnorm": grad_clip_norm}
        optimizer = keras.optimizers.Adadelta(
            learning_rate=lr, rho=rho, epsilon=eps, weight_decay=weight_decay or None, **one
        )
        optimizer.build(list(variables.values()))
        if grad_clip_norm is not None and grad_clip_value is not None:
            optimizer.clipvalue_after = grad_clip_value
        return optimizer, variables

    def step(self, handle, grads):
        optimizer, variables = handle
        pairs = [(keras.ops.convert_to_tensor(grads[name]), v) for name, v in variables.items()]
        if hasattr(optimizer, "clipvalue_after"):
            v, names = optimizer.clipvalue_after, list(variables.values())
            clipped = optimizer._clip_gradients([g for g, _ in pairs])
            optimizer.global_clipnorm, keep = None, optimizer.global_clipnorm
            optimizer.apply_gradients([(keras.ops.clip(g, -v, v), x) for g, x in zip(clipped, names, strict=True)])
            optimizer.global_clipnorm = keep
        else:
            optimizer.apply_gradients(pairs)
        return handle

    def params(self, handle):
        return {name: np.asarray(v.value) for name, v in handle[1].items()}

    def accumulators(self, handle):
        optimizer, variables = handle
        return tuple(
            {name: np.asarray(v.value) for name, v in zip(variables, rows, strict=True)}
            for rows in (optimizer._accumulated_grads, optimizer._accumulated_delta_vars)
        )

    def set_lr(self, handle, lr):
        handle[0].learning_rate = lr
        return handle
