"""tf.raw_ops.ResourceApplyAdadelta, the kernel beneath TensorFlow's Adadelta."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf


class Tensorflow:
    """One call of the kernel for each variable; clipping by tf.clip_by_global_norm and tf.clip_by_value."""

    name = "tensorflow"
    defaults = {"lr": 0.001, "rho": 0.95, "eps": 1e-7}
    supports = {"grad_clip_norm", "grad_clip_value", "float16", "float64"}

    def start(self, params, *, lr, rho, eps, grad_clip_norm, grad_clip_value):
        variables = {
            name: tuple(tf.Variable(y, dtype=x.dtype) for y in (x, np.zeros_like(x), np.zeros_like(x)))
            for name, x in params.items()
        }
        return {"v": variables, "lr": lr, "rho": rho, "eps": eps, "norm": grad_clip_norm, "value": grad_clip_value}

    def step(self, h, grads):
        names = list(h["v"])
        gs = [tf.constant(grads[name]) for name in names]
        if h["norm"] is not None:
            gs, _ = tf.clip_by_global_norm(gs, h["norm"])
        if h["value"] is not None:
            gs = [tf.clip_by_value(g, -h["value"], h["value"]) for g in gs]
        for name, g in zip(names, gs, strict=True):
            x, e_g2, e_delta2 = h["v"][name]
            lr, rho, eps = (tf.constant(h[key], g.dtype) for key in ("lr", "rho", "eps"))
            tf.raw_ops.ResourceApplyAdadelta(
                var=x.handle, accum=e_g2.handle, accum_update=e_delta2.handle, lr=lr, rho=rho, epsilon=eps, grad=g
            )
        return h

    def params(self, h):
        return {name: v[0].numpy() for name, v in h["v"].items()}

    def accumulators(self, h):
        return tuple({name: v[k].numpy() for name, v in h["v"].items()} for k in (1, 2))

    def set_lr(self, h, lr):
        return h | {"lr": lr}
