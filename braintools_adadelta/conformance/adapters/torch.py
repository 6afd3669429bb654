"""torch.optim.Adadelta, with torch's own clipping before each step."""

import numpy as np
import torch


class Torch:
    """The foreach implementation."""

    name, foreach = "torch", True
    defaults = {"lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.0}
    supports = {"weight_decay", "grad_clip_norm", "grad_clip_value", "float16", "float64", "complex64"}

    def start(self, params, *, lr, rho, eps, weight_decay, grad_clip_norm, grad_clip_value):
        named = {name: torch.nn.Parameter(torch.from_numpy(x.copy())) for name, x in params.items()}
        options = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "foreach": self.foreach}
        return torch.optim.Adadelta(list(named.values()), **options), named, grad_clip_norm, grad_clip_value

    def step(self, handle, grads):
        optimizer, named, norm, value = handle
        for name, g in grads.items():
            named[name].grad = torch.from_numpy(g.copy())
        if norm is not None:
            torch.nn.utils.clip_grad_norm_(named.values(), norm, foreach=self.foreach)
        if value is not None:
            torch.nn.utils.clip_grad_value_(named.values(), value, foreach=self.foreach)
        optimizer.step()
        return handle

    def params(self, handle):
        return {name: x.detach().numpy() for name, x in handle[1].items()}

    def accumulators(self, handle):
        optimizer, named, *_ = handle
        zero = {name: np.zeros(x.shape) for name, x in named.items()}
        found = {name: optimizer.state.get(x, {}) for name, x in named.items()}
        return tuple(
            {name: s[key].numpy() if key in s else zero[name] for name, s in found.items()}
            for key in ("square_avg", "acc_delta")
        )

    def set_lr(self, handle, lr):
        for group in handle[0].param_groups:
            group["lr"] = lr
        return handle


class TorchLoop(Torch):
    """The loop over parameters."""

    name, foreach = "torch-loop", False
