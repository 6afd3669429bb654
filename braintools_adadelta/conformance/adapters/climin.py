"""climin.Adadelta, a minimiser that owns the loop: it asks for gradients, and its iterator takes one step each time."""

import climin.adadelta
import numpy as np


class Climin:
    """All parameters are parts of one vector. The gradient that it asks for is the one that the judge gave."""

    name = "climin"
    defaults = {"lr": 1.0, "rho": 0.9, "eps": 1e-4}
    supports = {"float64"}

    def start(self, params, *, lr, rho, eps):
        vector = np.concatenate([np.ravel(x) for x in params.values()])
        h = {"vector": vector, "shapes": {name: x.shape for name, x in params.items()}}
        it = climin.adadelta.Adadelta(vector, lambda *_: h["g"], step_rate=lr, decay=rho, offset=eps)
        return h | {"it": it, "steps": iter(it), "set": h}

    def step(self, h, grads):
        h["set"]["g"] = np.concatenate([np.ravel(grads[name]) for name in h["shapes"]])
        next(h["steps"])
        return h

    def parts(self, h, vector):
        sizes = np.cumsum([np.prod(shape, dtype=int) for shape in h["shapes"].values()])
        rows = np.split(vector, sizes[:-1])
        return {name: x.reshape(shape) for (name, shape), x in zip(h["shapes"].items(), rows, strict=True)}

    def params(self, h):
        return self.parts(h, h["vector"])

    def accumulators(self, h):
        zero = np.zeros_like(h["vector"])
        return tuple(self.parts(h, zero + x) for x in (h["it"].gms, h["it"].sms))

    def set_lr(self, h, lr):
        h["it"].step_rate = lr
        return h
