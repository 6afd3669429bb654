"""pytorch_optimizer.AdaDelta, with torch's own clipping before each step."""

import pytorch_optimizer
import torch

from .torch import Torch


class PytorchOptimizer(Torch):
    """Weight decay is its own, coupled with the gradient (weight_decouple=False)."""

    name = "pytorch_optimizer"

    def start(self, params, *, lr, rho, eps, weight_decay, grad_clip_norm, grad_clip_value):
        named = {name: torch.nn.Parameter(torch.from_numpy(x.copy())) for name, x in params.items()}
        optimizer = pytorch_optimizer.AdaDelta(named.values(), lr=lr, rho=rho, eps=eps, weight_decay=weight_decay)
        return optimizer, named, grad_clip_norm, grad_clip_value
