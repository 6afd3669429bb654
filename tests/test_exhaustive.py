"""Every float16 and every bfloat16 gradient, from a set of states: the whole update, as the optimizer takes it."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from braintools_adadelta.leaf import enter, leave
from braintools_adadelta.oracle.bounds import (
    PLAIN,
    average_bound,
    delta_bounds,
    gamma,
    machine,
    square_bound,
    theta_bound,
)
from braintools_adadelta.oracle.exact import largest_root
from braintools_adadelta.oracle.ulp import FORMATS, float32
from braintools_adadelta.transform import Accumulators, Options, step

DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
# theta, E[g2], E[Delta2], rho, eps, lr
STATES = {
    "first": (0.0, 0.0, 0.0, 0.9, 1e-6, 1.0),
    "settled": (-1.5, 0.73, 3.1e-5, 0.9, 1e-6, 1.0),
    "faded": (0.02, 1.3e-7, 2.9e-7, 0.95, 1e-6, 0.5),
    "large_eps": (7.0, 3.0, 2.0, 0.625, 1.0, 2.0),
    "no_memory": (0.0, 5.0, 0.1, 0.0, 0.01, 0.1),
    "after_an_outlier": (1.0, 3e38, 1e-3, 0.999, 1e-8, 1.0),
    "a_hair_over": (-355 / 256, 129370784.0, 30.5295925, 0.9, 64.0, 1.0),  # 1.00016 ulps in float16
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", DTYPES)
def test_every_16_bit_gradient(name, state):
    """All 2^16: within the bound for float32, theta rounded once more. The reference is in double precision.

    A square of a 16-bit number is exact in a double and everything that follows is too, to 2^-50.
    """
    theta, e_g2, e_delta2, rho, eps, lr = STATES[state]
    bits = np.arange(2**16, dtype=np.uint16).view(DTYPES[name])
    theta = np.full(2**16, theta, DTYPES[name])
    before = Accumulators(*(np.full(2**16, x, np.float32) for x in (e_g2, e_delta2)))

    @jax.jit
    def update(theta, g, before):
        after = step(enter(theta), enter(g), before, lr, Options(rho, eps))
        return after.e_g2, after.delta, after.e_delta2, leave(after.theta, theta)

    with np.errstate(invalid="ignore"):  # among the NaNs are signalling ones
        got = [np.asarray(x).astype(np.float64) for x in update(jnp.asarray(theta), jnp.asarray(bits), before)]
        signed = bits.astype(np.float64)
    finite = np.isfinite(signed)
    g, largest = np.abs(signed[finite]), float(largest_root(float32))
    g, sign, theta = np.minimum(g, largest), np.sign(signed[finite]), theta[finite].astype(np.float64)
    e_g2, e_delta2 = float(np.float32(e_g2)), float(np.float32(e_delta2))

    g2 = g * g
    new_g2 = (1 - rho) * g2 + rho * e_g2
    r = (e_delta2 + eps) / (new_g2 + eps)
    truth = new_g2, -sign * np.sqrt(r) * g, (1 - rho) * r * g2 + rho * e_delta2
    m = machine(float32, number=float)
    # float32 holds the subnormal numbers of float16 as normal ones, and the conversion keeps them.
    stored = machine(FORMATS[name], flush=name == "bfloat16", number=float)
    options = {"rho": rho, "m": m, "form": PLAIN}
    b_g2 = average_bound(e_g2, g2, 0.0, square_bound(g, 0.0, m), **options)
    b, b2 = delta_bounds(g, new_g2, e_delta2, 0.0, (0.0, b_g2), eps=eps, m=m, form=PLAIN)
    bounds = b_g2, b, average_bound(e_delta2, r * g2, 0.0, b2, **options)
    for field, x, y, bound in zip(("e_g2", "delta", "e_delta2"), got[:3], truth, bounds, strict=True):
        share = np.abs(x[finite] - y) / bound
        assert share.max() <= 1, f"{field} at g = {bits[finite][share.argmax()]}: {share.max():.2f} of the bound"

    new = theta + lr * truth[1]
    bound = theta_bound(new, truth[1], 0.0, b, lr=lr, m=m, stored=stored)
    error = np.abs(got[3][finite] - new)
    assert (error <= bound).all()

    # Within an ulp of the larger of |theta| and |lr Delta|, ten roundings of float32, and what a flush loses.
    size = np.maximum(np.abs(theta), np.abs(lr * truth[1]))
    ulp = np.exp2(np.maximum(np.floor(np.log2(np.maximum(size, 1e-300))), FORMATS[name].emin) - FORMATS[name].p + 1)
    assert (error <= (1 + gamma(10, m.u) / stored.u) * ulp + stored.eta).all()

    for x in got[1:]:
        assert np.isnan(x[~finite]).all()
    assert (np.isnan(got[0]) == np.isnan(signed)).all() and (got[0] == np.inf)[np.isinf(signed)].all()
