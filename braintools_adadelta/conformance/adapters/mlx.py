"""mlx.optimizers.AdaDelta, on the CPU, behind mlx's own clip_grad_norm."""

import mlx.core as mx
import mlx.optimizers
import numpy as np

mx.set_default_device(mx.cpu)


class Mlx:
    """``apply_gradients``. mlx has no clipping by value and no weight decay for AdaDelta."""

    name = "mlx"
    defaults = {"rho": 0.9, "eps": 1e-6}
    supports = {"grad_clip_norm", "float16", "float64"}

    def start(self, params, *, lr, rho, eps, grad_clip_norm):
        tree = arrays(params)
        optimizer = mlx.optimizers.AdaDelta(learning_rate=lr, rho=rho, eps=eps)
        optimizer.init(tree)
        return optimizer, tree, grad_clip_norm

    def step(self, handle, grads):
        optimizer, tree, norm = handle
        grads = arrays(grads)
        if norm is not None:
            grads, _ = mlx.optimizers.clip_grad_norm(grads, norm)
        return optimizer, optimizer.apply_gradients(grads, tree), norm

    def params(self, handle):
        return {name: np.array(x) for name, x in handle[1].items()}

    def accumulators(self, handle):
        optimizer, tree, _ = handle
        return tuple({name: np.array(optimizer.state[name][key]) for name in tree} for key in ("v", "u"))

    def set_lr(self, handle, lr):
        handle[0].learning_rate = lr
        return handle


def arrays(tree):
    """Return arrays of mlx, which makes float32 of float64 unless it is told otherwise."""
    return {name: mx.array(x, getattr(mx, x.dtype.name)) for name, x in tree.items()}
