"""paddle.optimizer.Adadelta, on the CPU, with paddle's own clipping and weight decay."""

import paddle
from paddle.nn import ClipGradByGlobalNorm, ClipGradByValue
from paddle.nn.initializer import Assign

paddle.set_device("cpu")


class Paddle:
    """In dygraph mode. A second clip, by value, is applied to the gradients after the first."""

    name = "paddle"
    defaults = {"lr": 0.001, "rho": 0.95, "eps": 1e-6}
    supports = {"weight_decay", "grad_clip_norm", "grad_clip_value", "float64"}

    def start(self, params, *, lr, rho, eps, weight_decay, grad_clip_norm, grad_clip_value):
        named = {
            name: paddle.create_parameter(list(x.shape), x.dtype.name, default_initializer=Assign(x))
            for name, x in params.items()
        }
        clip = None if grad_clip_norm is None else ClipGradByGlobalNorm(grad_clip_norm)
        after = None if grad_clip_value is None else ClipGradByValue(grad_clip_value)
        optimizer = paddle.optimizer.Adadelta(
            learning_rate=lr, rho=rho, epsilon=eps, parameters=list(named.values()), weight_decay=weight_decay or None
        )
        return optimizer, named, [one for one in (clip, after) if one]

    def step(self, handle, grads):
        optimizer, named, clips = handle
        pairs = [(named[name], paddle.to_tensor(g)) for name, g in grads.items()]
        for clip in clips:
            pairs = clip(pairs)
        for p, g in pairs:
            p.grad = g
        optimizer.step()
        return handle

    def params(self, handle):
        return {name: p.numpy() for name, p in handle[1].items()}

    def accumulators(self, handle):
        optimizer, named, _ = handle
        rows = [optimizer._accumulators.get(key, {}) for key in ("_avg_squared_grad", "_avg_squared_update")]
        return tuple(
            {name: row[p.name].numpy() if p.name in row else 0 * p.numpy() for name, p in named.items()} for row in rows
        )

    def set_lr(self, handle, lr):
        handle[0].set_lr(lr)
        return handle
