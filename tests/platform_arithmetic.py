"""What the arithmetic of this machine does, measured: eager, compiled, and vmapped."""

import os
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from braintools_adadelta.oracle.bounds import machine_of

IEEE = "-nvptx-prec-divf32=2", "__CUDA_PREC_SQRT=1"  # flags that make XLA round division and root on a GPU correctly
WAYS = {"eager": lambda f: f, "jit": jax.jit, "vmap": lambda f: jax.jit(jax.vmap(f))}
SIZE = 1024  # whole vectors, and not what a compiler can fold


def platform():
    """Return the name of this platform in :data:`braintools_adadelta.oracle.bounds.PLATFORMS`, or JAX's name for it."""
    kind, name = jax.devices()[0].device_kind, jax.default_backend()
    if name == "gpu" and "NVIDIA" in kind.upper():
        return "nvidia_ieee" if all(flag in os.environ.get("XLA_FLAGS", "") for flag in IEEE) else "nvidia"
    return name


def machine_here(fmt):
    """Return what is known of this platform; where nothing is, there is no bound, and the test that asks is skipped."""
    try:
        return machine_of(platform(), fmt)
    except LookupError as unknown:
        pytest.skip(str(unknown))


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


def errors(got, truth):
    """Return the largest error of float32 numbers in ulps of the truth, in double precision, and in u of it."""
    got, truth = np.asarray(got, np.float64), np.asarray(truth)
    error = np.abs(got - truth)
    ulps = error / np.spacing(truth.astype(np.float32)).astype(np.float64)
    return float(ulps.max()), float((error / truth).max() * 2**24)


def worst(way, op, by_scalars=False):
    """Return the largest :func:`errors` of "divide" or "sqrt" among half a million results.

    `by_scalars`: each number divides a whole array, which XLA multiplies by the inverse.
    """
    rng = np.random.default_rng(0)
    x, y = (rng.uniform(1, 4, 2**19).astype(np.float32) for _ in range(2))
    args = (x, y) if op == "divide" else (x,)
    if by_scalars:
        x, y = args = x.reshape(-1, SIZE), y[: len(x) // SIZE]
    f, wide = WAYS[way](getattr(jnp, op)), [a.astype(np.float64) for a in args]
    if by_scalars and way != "vmap":
        got = np.stack([f(*map(jnp.asarray, pair)) for pair in zip(x, y, strict=True)])
    else:
        got = f(*map(jnp.asarray, args))
    return errors(got, getattr(np, op)(wide[0], wide[1][:, None]) if by_scalars else getattr(np, op)(*wide))


@cache
def measured():
    """Return {way: (flushes, fused, errors of division, of the root, of an array divided by a scalar)}."""
    found = lambda way: (worst(way, "divide"), worst(way, "sqrt"), worst(way, "divide", by_scalars=True))
    return {way: (flushes(way), fused(way), *found(way)) for way in WAYS}


def lines():
    """Describe the arithmetic in a line for each way."""
    for way, (flush, fma, *found) in measured().items():
        division, root, scalar = (ulps for ulps, _ in found)
        yield (
            f"float32, {way}: {'flushes to zero' if flush else 'subnormal results'}, fused product of a b + c d: {fma},"
            f" division and root within {division:.2f} and {root:.2f} ulps, an array divided by a scalar {scalar:.2f}"
        )


def of_many(pairs=2**28, at_once=2**24):
    """Return the :func:`errors` of the roots of all numbers in [1, 4), and of quotients of random `pairs` in [1, 2)."""
    low, high = (int(np.float32(x).view(np.int32)) for x in (1, 4))
    x, rng, quotients = np.arange(low, high, dtype=np.int32).view(np.float32), np.random.default_rng(1), (0, 0)
    roots = errors(jax.jit(jnp.sqrt)(x), np.sqrt(x.astype(np.float64)))
    for _ in range(0, pairs, at_once):
        x, y = ((1 + rng.integers(0, 2**23, at_once) * 2.0**-23).astype(np.float32) for _ in range(2))
        quotients = np.maximum(quotients, errors(jax.jit(jnp.divide)(x, y), x.astype(np.float64) / y))
    return {"the roots of all numbers in [1, 4)": roots, f"{pairs} quotients of numbers in [1, 2)": quotients}


if __name__ == "__main__":
    print(platform(), *lines(), sep="\n")
    for what, (ulps, relative) in of_many().items():
        print(f"{what}: within {ulps:.4f} ulps, {relative:.4f} u of the exact ones")
