"""Schedules that the tests of several subjects go through."""

import braintools
import optax

from braintools_adadelta import LRScheduler

LR = braintools.optim

# One of each kind, and the lrs of four steps; a scheduler steps after the second.
SCHEDULES = {
    "number": (lambda: 0.5, [0.5, 0.5, 0.5, 0.5]),
    "function": (lambda: lambda step: 1 / (1 + step), [1.0, 0.5, 0.3333, 0.25]),
    "optax": (lambda: optax.linear_schedule(1.0, 0.0, 4), [1.0, 0.75, 0.5, 0.25]),
    "our scheduler": (lambda: LRScheduler(lambda epoch: 0.5**epoch), [1.0, 1.0, 0.5, 0.5]),
    "braintools' scheduler": (lambda: braintools.optim.StepLR(1.0, step_size=1, gamma=0.5), [1.0, 1.0, 0.5, 0.5]),
}

# Every scheduler of braintools.
SCHEDULERS = {
    "StepLR": lambda: LR.StepLR(1.0, step_size=2, gamma=0.5),
    "MultiStepLR": lambda: LR.MultiStepLR(1.0, milestones=[2, 4], gamma=0.5),
    "ExponentialLR": lambda: LR.ExponentialLR(1.0, gamma=0.5),
    "ExponentialDecayLR": lambda: LR.ExponentialDecayLR(1.0, decay_steps=2, decay_rate=0.5),
    "CosineAnnealingLR": lambda: LR.CosineAnnealingLR(1.0, T_max=6),
    "PolynomialLR": lambda: LR.PolynomialLR(1.0, total_iters=8),
    "WarmupScheduler": lambda: LR.WarmupScheduler(1.0, warmup_epochs=3),
    "CyclicLR": lambda: LR.CyclicLR(0.1, max_lr=1.0, step_size_up=2),
    "OneCycleLR": lambda: LR.OneCycleLR(max_lr=1.0, total_steps=8),
    "ReduceLROnPlateau": lambda: LR.ReduceLROnPlateau(1.0, patience=1, factor=0.5),
    "LinearLR": lambda: LR.LinearLR(1.0, start_factor=0.25, total_iters=4),
    "ConstantLR": lambda: LR.ConstantLR(1.0, factor=0.5, total_iters=3),
    "ChainedScheduler": lambda: LR.ChainedScheduler([LR.StepLR(1.0, 2, 0.5), LR.ExponentialLR(1.0, gamma=0.9)]),
    "CosineAnnealingWarmRestarts": lambda: LR.CosineAnnealingWarmRestarts(1.0, T_0=3),
    "WarmupCosineSchedule": lambda: LR.WarmupCosineSchedule(1.0, warmup_steps=2, total_steps=6),
    "PiecewiseConstantSchedule": lambda: LR.PiecewiseConstantSchedule(1.0, boundaries=[2, 4], values=[1.0, 0.5, 0.25]),
    "SequentialLR": lambda: LR.SequentialLR(
        [LR.ConstantLR(1.0, factor=0.5, total_iters=9), LR.ExponentialLR(1.0, gamma=0.5)], milestones=[3]
    ),
}
assert (
    len(SCHEDULERS) == len([x for x in vars(LR).values() if isinstance(x, type) and issubclass(x, LR.LRScheduler)]) - 1
)
