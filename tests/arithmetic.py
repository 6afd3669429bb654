"""What the arithmetic of this machine does, measured: eager, compiled, and vmapped."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

WAYS = {"eager": lambda f: f, "jit": jax.jit, "vmap": lambda f: jax.jit(jax.vmap(f))}
SIZE = 1024  # whole vectors, and not what a compiler can fold


def full(x):
    return jnp.full(SIZE, x, jnp.float32)


def flushes(way):
    """Say whether a product below the normal range becomes zero."""
    return bool((WAYS[way](jnp.multiply)(full(2.0**-100), full(2.0**-30)) == 0).all())


def fused(way):
    """Say which products of a b + c d enter the sum unrounded: "first", "second" or "none"."""
    x, square = 1 + 2.0**-12, 1 + 2.0**-11  # x * x is square + 2^-24, which rounds to square
    f = WAYS[way](lambda a, b, c, d: a * b + c * d)
    if (f(full(x), full(x), full(-square), full(1)) != 0).any():
        return "first"
    return "second" if (f(full(-square), full(1), full(x), full(x)) != 0).any() else "none"


def worst(way, op):
    """Return the largest error in ulps of "divide" or "sqrt" among a million results."""
    rng = np.random.default_rng(0)
    x, y = (rng.uniform(1, 4, 2**19).astype(np.float32) for _ in range(2))
    args = (x, y) if op == "divide" else (x,)
    got = np.asarray(WAYS[way](getattr(jnp, op))(*map(jnp.asarray, args)), np.float64)
    truth = getattr(np, op)(*(a.astype(np.float64) for a in args))
    return float((np.abs(got - truth) / np.spacing(truth.astype(np.float32)).astype(np.float64)).max())


@cache
def measured():
    """Return {way: (flushes, fused, worst division, worst root)}."""
    return {way: (flushes(way), fused(way), worst(way, "divide"), worst(way, "sqrt")) for way in WAYS}


def lines():
    """Describe the arithmetic in a line for each way."""
    for way, (flush, fma, division, root) in measured().items():
        yield (
            f"float32, {way}: {'flushes to zero' if flush else 'subnormal results'}, fused product of a b + c d: {fma},"
            f" division and root within {division:.2f} and {root:.2f} ulps"
        )
