"""A program with types, as a user writes one who checks with ``mypy --strict``: all that is public, called once.

It also runs: ``python examples/typed.py``.
"""

from typing import Any, assert_type

import brainstate
import jax
import jax.numpy as jnp
import numpy as np

from braintools_adadelta import Adadelta, LRScheduler, scale_by_adadelta
from braintools_adadelta.conformance import vectors
from braintools_adadelta.conformance.command import main
from braintools_adadelta.conformance.judge import FIELDS, STORED, Case, Run, explain, misses
from braintools_adadelta.interop import from_optax, to_optax
from braintools_adadelta.oracle import bounds, exact, ulp
from braintools_adadelta.transform import Accumulators, Options


def trained(steps: int) -> Adadelta:
    """Fit a line, with a schedule, and return the optimizer."""
    theta = brainstate.ParamState(jnp.zeros(2))
    optimizer = Adadelta(lambda count: 1.0 / (1 + count), rho=0.95, grad_clip_norm=1.0, nonfinite="skip")
    assert_type(optimizer.register_trainable_weights({"theta": theta}), Adadelta)
    x = jnp.linspace(-1.0, 1.0, 16)

    def loss(theta: jax.Array) -> jax.Array:
        return jnp.mean((theta[0] + theta[1] * x - 3 * x) ** 2)

    for _ in range(steps):
        optimizer.update({"theta": jax.grad(loss)(theta.value)})
    return optimizer


def settings(optimizer: Adadelta) -> None:
    """Read hyperparameters, and set them to the kinds of numbers that there are."""
    assert_type(optimizer.rho, float)
    assert_type(optimizer.eps, float)
    assert_type(optimizer.weight_decay, float)
    assert_type(optimizer.grad_clip_norm, float | None)
    assert_type(optimizer.nonfinite, str)
    assert_type(optimizer.options, Options)
    assert_type(optimizer.current_lr, float)
    assert_type(optimizer.base_lr, float)
    assert_type(optimizer.get_last_lr(), list[float])
    optimizer.rho, optimizer.eps, optimizer.grad_clip_norm = 0.5, np.float32(1e-6), None
    optimizer.weight_decay = jnp.float32(0.1)
    optimizer.current_lr = 0.5
    optimizer.lr_apply(lambda lr: lr / 2)
    optimizer.add_param_group({"bias": brainstate.ParamState(jnp.zeros(2))}, lr=0.1, weight_decay=0.0)


def saved(optimizer: Adadelta) -> int:
    """Save and load; return how many steps were taken."""
    state: dict[str, Any] = optimizer.state_dict()
    optimizer.load_state_dict(state)
    from_optax(optimizer, to_optax(optimizer), step_count=3)
    return int(optimizer.step_count.value) + int(optimizer.skipped_steps.value)


def scheduled() -> list[float]:
    """Return the lr after an epoch."""
    scheduler = LRScheduler(lambda epoch: 0.5**epoch, last_epoch=1)
    scheduler.step()
    scheduler.load_state_dict(scheduler.state_dict())
    return scheduler.get_last_lr()


def transformed(g: jax.Array) -> jax.Array:
    """Return the change of theta by the pure transformation."""
    init, update = scale_by_adadelta(rho=0.9, eps=1e-6)
    memory = init(g)
    assert_type(memory, Accumulators)
    updates, memory = update(g, memory)
    return jnp.negative(updates)


def judged(delta: float) -> float:
    """Return the error of a first step for g = 8, in ulps, and hold it against its bound."""
    taken = exact.step(4.0, 8.0, 0.0, 0.0, rho=0.625, eps=1.0)
    allowed = bounds.bounds(taken, [4.0], [0.0], [0.0], fmt=ulp.float32, rho=0.625, eps=1.0)
    error = ulp.ulps(delta, taken.delta[0], ulp.float32)
    assert error * ulp.ulp(taken.delta[0], ulp.float32) <= ulp.fraction(allowed.delta[0])
    return float(error)


class Mine:
    """An implementation to be judged."""

    def start(self, params: dict[str, np.ndarray], *, lr: float, rho: float, eps: float) -> Adadelta:
        optimizer = Adadelta(lr, rho, eps)
        states = {name: brainstate.ParamState(jnp.array(x)) for name, x in params.items()}
        return optimizer.register_trainable_weights(states)

    def step(self, optimizer: Adadelta, grads: dict[str, np.ndarray]) -> Adadelta:
        optimizer.update({name: jnp.array(g) for name, g in grads.items()})
        return optimizer

    def params(self, optimizer: Adadelta) -> dict[str, np.ndarray]:
        return {name: np.asarray(state.value) for name, state in optimizer.param_states.items()}

    def accumulators(self, optimizer: Adadelta) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        e_g2, e_delta2 = optimizer.opt_state.value
        return {name: np.asarray(x) for name, x in e_g2.items()}, {name: np.asarray(x) for name, x in e_delta2.items()}


if __name__ == "__main__":
    optimizer = trained(steps=3)
    settings(optimizer)
    ones = np.ones(2, np.float32)
    case = Case({"w": ones}, [{"w": ones}], {"lr": 1.0, "rho": 0.9, "eps": 1e-6})
    found = explain(Run(Mine(), case).finish(), STORED, FIELDS, "any", 1)
    assert found.misses == misses(Mine(), case) == []
    assert vectors.case(vectors.load()[0]).params
    assert main(["--clauses"]) == 0
    print(f"{saved(optimizer)} steps, lr {scheduled()}, Delta {transformed(jnp.ones(1))}, {judged(-1.6):.2f} ulps off")
