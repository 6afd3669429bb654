"""An adapter for adadelta-conformance: replace what is between the lines of dashes by calls of your framework."""

import numpy as np


class Adadelta:
    """A correct Adadelta in numpy."""

    name = "mine"
    # versions = {"myframework": myframework.__version__}
    defaults = {"lr": 1.0, "rho": 0.9, "eps": 1e-6}
    # What it offers beyond the four equations in float32: weight_decay, grad_clip_norm, grad_clip_value, float16,
    # bfloat16, float64, complex64, complex128. These are judged, and these options are passed to start().
    supports = {"float64", "grad_clip_value"}
    # What it does not have: lr, scalars (parameters without axes), empty (parameters without elements).
    lacks = set()

    def start(self, params, *, lr, rho, eps, grad_clip_value):
        # ------------------------------------------------------------------------------------------------------
        zeros = lambda: {name: np.zeros_like(x) for name, x in params.items()}
        theta = {name: x.copy() for name, x in params.items()}
        return {"theta": theta, "e_g2": zeros(), "e_delta2": zeros(), "lr": lr, "rho": rho, "eps": eps,
                "clip": grad_clip_value}  # fmt: skip
        # ------------------------------------------------------------------------------------------------------

    def step(self, handle, grads):
        # ------------------------------------------------------------------------------------------------------
        h, rho, eps = handle, handle["rho"], handle["eps"]
        for name, g in grads.items():
            g = g if h["clip"] is None else np.clip(g, -h["clip"], h["clip"])
            h["e_g2"][name] = rho * h["e_g2"][name] + (1 - rho) * g * g
            delta = -np.sqrt(h["e_delta2"][name] + eps) / np.sqrt(h["e_g2"][name] + eps) * g
            h["e_delta2"][name] = rho * h["e_delta2"][name] + (1 - rho) * delta * delta
            h["theta"][name] = h["theta"][name] + h["lr"] * delta
        return h
        # ------------------------------------------------------------------------------------------------------

    def params(self, handle):
        return handle["theta"]

    def accumulators(self, handle):  # optional: without it, E1 and E3 are judged through the parameters
        return handle["e_g2"], handle["e_delta2"]

    def set_lr(self, handle, lr):  # optional
        handle["lr"] = lr
        return handle
