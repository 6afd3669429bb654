"""A step from many random states at once: by us and in the order of operations of others, and the errors in ulps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from braintools_adadelta.equations import adadelta

RHO, EPS = 0.9, 1e-6
FIELDS = "e_g2", "delta", "e_delta2"
STATES = ("settled", "first")


def states(kind, count, dtype=np.float32):
    """Draw g, E[g2] and E[Delta2] in the ordinary region: over eight decades each, or the first step."""
    rng = np.random.default_rng(0)
    g = rng.choice([-1, 1], count) * 10.0 ** rng.uniform(-2.5, 5.5, count)
    e_g2, e_delta2 = 10.0 ** rng.uniform(-6, 6, count), 10.0 ** rng.uniform(-10, 0, count)
    return [np.asarray(x if kind == "settled" or x is g else 0 * x, dtype) for x in (g, e_g2, e_delta2)]


def ours(g, e_g2, e_delta2):
    return adadelta(g, e_g2, e_delta2, RHO, EPS)


def by_optax(g, e_g2, e_delta2):
    """braintools' class is made of this transformation, too."""
    updates, after = optax.scale_by_adadelta(RHO, EPS).update(g, optax.ScaleByAdaDeltaState(e_g2, e_delta2))
    return after.e_g, -updates, after.e_x


def by_torch(g, e_g2, e_delta2):
    """The order of operations in torch.optim.Adadelta, each rounded once: mul_, addcmul_, add, sqrt_, div_, mul_."""
    rho, rest, eps = (g.dtype.type(x) for x in (RHO, 1 - RHO, EPS))
    e_g2 = e_g2 * rho + rest * g * g
    delta = np.sqrt(e_delta2 + eps) / np.sqrt(e_g2 + eps) * g
    return e_g2, -delta, e_delta2 * rho + rest * delta * delta


STEPS = {"ours": jax.jit(ours), "optax": jax.jit(by_optax), "torch's order": by_torch}


def errors(step, state, number=np.float64):
    """Return the errors of one step in ulps of the exact result, {field: array}. `number` is wider than the state."""
    g, e_g2, e_delta2 = (x.astype(number) for x in state)
    rho, eps = number(RHO), number(EPS)
    new_g2 = rho * e_g2 + (1 - rho) * (g * g)
    r = (e_delta2 + eps) / (new_g2 + eps)
    truth = new_g2, -np.sqrt(r) * g, rho * e_delta2 + (1 - rho) * (r * g * g)
    digits, found = np.finfo(state[0].dtype).nmant, {}
    got = step(*(jnp.asarray(x) for x in state)) if step is not by_torch else step(*state)
    for field, x, y in zip(FIELDS, got, truth, strict=True):
        found[field] = abs(np.asarray(x).astype(number) - y) / np.ldexp(number(1), np.frexp(y)[1] - 1 - digits)
    return found
