"""pymc.variational.updates.adadelta: symbolic updates, compiled once for each start."""

import numpy as np
import pymc.variational.updates
import pytensor


class Pymc:
    """The gradients are inputs of the compiled function; lr is a shared variable, so that it can be set."""

    name = "pymc"
    defaults = {"lr": 1.0, "rho": 0.95, "eps": 1e-6}
    supports = {"float64"}

    def start(self, params, *, lr, rho, eps):
        dtype = next(iter(params.values())).dtype.name
        number = lambda x: np.asarray(x, dtype)
        shared = {name: pytensor.shared(x.copy(), name=name) for name, x in params.items()}
        inputs = {name: x.type(f"g {name}") for name, x in shared.items()}
        rate = pytensor.shared(number(lr))
        updates = pymc.variational.updates.adadelta(
            list(inputs.values()), list(shared.values()), learning_rate=rate, rho=number(rho), epsilon=number(eps)
        )
        kept = [x for x in updates if x not in shared.values()]
        function = pytensor.function(list(inputs.values()), updates=updates, mode="FAST_COMPILE")
        return {"function": function, "shared": shared, "kept": kept, "rate": rate}

    def step(self, h, grads):
        h["function"](*(grads[name] for name in h["shared"]))
        return h

    def params(self, h):
        return {name: x.get_value() for name, x in h["shared"].items()}

    def accumulators(self, h):
        pairs = zip(h["shared"], h["kept"][::2], h["kept"][1::2], strict=True)
        rows = [(name, e_g2.get_value(), e_delta2.get_value()) for name, e_g2, e_delta2 in pairs]
        return {name: x for name, x, _ in rows}, {name: x for name, _, x in rows}

    def set_lr(self, h, lr):
        h["rate"].set_value(np.asarray(lr, h["rate"].dtype))
        return h
