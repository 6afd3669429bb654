"""The derivatives of a loss after ten steps with respect to lr, rho and eps, against exact ones and within a bound."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from braintools_adadelta.oracle.exact import CONTEXT as mp
from braintools_adadelta.oracle.exact import exact, step
from braintools_adadelta.transform import scale_by_adadelta

CURVATURE, START, STEPS = (1.0, 3.0, 0.01), (-1.0, 0.5, 3.0), 10


class Rounded(NamedTuple):
    """A number, and how far in u a program that rounds each operation once may be from it, to first order."""

    x: Any
    m: Any = mp.zero

    def __add__(self, other):
        y, n = rounded(other)
        return Rounded(self.x + y, self.m + n + abs(self.x + y))

    def __mul__(self, other):
        y, n = rounded(other)
        return Rounded(self.x * y, self.m * abs(y) + abs(self.x) * n + abs(self.x * y))

    def __truediv__(self, other):
        y, n = rounded(other)
        return Rounded(self.x / y, (self.m + abs(self.x / y) * n) / abs(y) + abs(self.x / y))

    def __neg__(self):
        return Rounded(-self.x, self.m)

    def sqrt(self):
        root = mp.sqrt(self.x)
        return Rounded(root, self.m / (2 * root) + root)


def rounded(x):
    return x if isinstance(x, Rounded) else Rounded(mp.mpf(x))


class Dual:
    """A number and its derivative. Zeros are left out: no program computes with them."""

    def __init__(self, value, slope=None):
        self.value, self.slope = rounded(value), slope

    def __add__(self, other):
        other = dual(other)
        slopes = [s for s in (self.slope, other.slope) if s is not None]
        return Dual(
            self.value + other.value, slopes[0] + slopes[1] if len(slopes) == 2 else slopes[0] if slopes else None
        )

    def __mul__(self, other):
        other = dual(other)
        of = lambda slope, by: None if slope is None else Dual(slope * by)
        parts = [p for p in (of(self.slope, other.value), of(other.slope, self.value)) if p is not None]
        slope = parts[0].value + parts[1].value if len(parts) == 2 else parts[0].value if parts else None
        return Dual(self.value * other.value, slope)

    def __truediv__(self, other):
        other = dual(other)
        one = Dual(1) if other.slope is None else None
        if one:
            return Dual(self.value / other.value, None if self.slope is None else self.slope / other.value)
        inverse = Dual(Rounded(mp.one) / other.value, -(other.slope / (other.value * other.value)))
        return self * inverse

    def __neg__(self):
        return Dual(-self.value, None if self.slope is None else -self.slope)

    def __sub__(self, other):
        return self + -dual(other)

    def __rsub__(self, other):
        return dual(other) + -self

    __radd__, __rmul__ = __add__, __mul__

    def sqrt(self):
        root = self.value.sqrt()
        return Dual(root, None if self.slope is None else self.slope / (root * 2))


def dual(x):
    return x if isinstance(x, Dual) else Dual(x)


def loss(lr, rho, eps):
    """A badly scaled bowl, ten steps down."""
    tx, theta, curvature = scale_by_adadelta(rho, eps), jnp.array(START), jnp.array(CURVATURE)
    state = tx.init(theta)
    for _ in range(STEPS):
        minus, state = tx.update(curvature * theta, state)
        theta = theta - lr * minus
    return (curvature * theta**2).sum() / 2


def generic(lr, rho, eps, lift, sqrt=None):
    """The same in another kind of number, by the oracle's step."""
    curvature, theta = ([lift(x) for x in xs] for xs in (CURVATURE, START))
    e_g2, e_delta2 = ([lift(0)] * 3 for _ in range(2))
    for _ in range(STEPS):
        g = [c * t for c, t in zip(curvature, theta, strict=True)]
        taken = step(theta, g, e_g2, e_delta2, lr=lr, rho=rho, eps=eps, sqrt=sqrt)
        theta, e_g2, e_delta2 = taken.theta, taken.e_g2, taken.e_delta2
    a, b, c = (c * (t * t) for c, t in zip(curvature, theta, strict=True))
    return (a + b + c) / 2


def central_difference(at, k):
    """With h = 2^-100 in 400 bits: right to 2^-190."""
    h = mp.ldexp(at[k], -100)
    low, high = (generic(*(x + s * h * (i == k) for i, x in enumerate(at)), lift=mp.mpf) for s in (-1, 1))
    return (high - low) / (2 * h)


@pytest.mark.parametrize("at", [(1.0, 0.9, 1e-6), (0.5, 0.625, 0.01), (2.0, 0.99, 1e-4)], ids=str)
def test_derivatives_through_ten_steps(at):
    """Forward mode in exact numbers carries a bound along; jax.grad adds the same products up in another order."""
    with jax.enable_x64(True):
        got = exact([np.asarray(x) for x in jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*map(jnp.float64, at))])
    for k, name in enumerate(("lr", "rho", "eps")):
        inputs = [Dual(mp.mpf(x), Rounded(mp.one) if i == k else None) for i, x in enumerate(at)]
        slope = generic(*inputs, lift=Dual, sqrt=lambda x: x.sqrt()).slope
        truth = central_difference([mp.mpf(x) for x in at], k)
        assert abs(truth - slope.x) <= mp.ldexp(abs(truth), -150), name  # two ways to the exact derivative
        assert abs(got[k] - truth) <= slope.m * mp.ldexp(1, -53), name
        assert slope.m < 2**20 * abs(truth), name  # six digits and more of a float64 are decided
