"""Every arrow of the step over a tree, G1 to E4, against the oracle and within the bounds for our own order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from braintools_adadelta.arithmetic import norm, ratio, three_scales
from braintools_adadelta.equations import clip_norm
from braintools_adadelta.oracle.bounds import PLAIN, bounds
from braintools_adadelta.oracle.exact import Step, exact, largest_root
from braintools_adadelta.oracle.exact import step as exact_step
from braintools_adadelta.oracle.ulp import FORMATS, float32, fraction, ulps
from braintools_adadelta.transform import Accumulators, Options, step

OPTIONS = {
    "none": {},
    "norm": {"grad_clip_norm": 1.5},
    "norm_not_reached": {"grad_clip_norm": 1e30},
    "tiny_norm": {"grad_clip_norm": 1e-25},
    "value": {"grad_clip_value": 0.75},
    "decay": {"weight_decay": 0.25},
    "all": {"grad_clip_norm": 3.0, "grad_clip_value": 0.75, "weight_decay": 0.25},
}
GRADS = {
    "mixed": ([3.0, -1.0, 0.5, 0.0, -0.25], [2.0, 1e-3]),
    "zero": ([0.0] * 5, [0.0] * 2),
    "huge": ([3e38, -1e30, 1.0, 0.0, 2e19], [-3e38, 1e25]),
    "apart": ([1e-30, 0.0, 2e-30, 1e-31, -1e-30], [3e38, 1.0]),
    "tiny": ([1e-30, -3e-37, 0.0, 1e-30, 1e-25], [1e-20, 2e-30]),
}
components = lambda tree: [x for leaf in jax.tree.leaves(tree) for x in np.ravel(np.asarray(leaf))]


@pytest.mark.parametrize("grads", GRADS)
@pytest.mark.parametrize("name", OPTIONS)
def test_every_arrow(name, grads):
    rng, options = np.random.default_rng(1), {"rho": 0.9, "eps": 1e-6, **OPTIONS[name]}
    tree = lambda a, b: {"a": jnp.asarray(a, jnp.float32), "b": [jnp.asarray(b, jnp.float32)]}
    theta, e_g2, e_delta2 = (tree(rng.normal(size=5), rng.normal(size=2)) for _ in range(3))
    e_g2, e_delta2 = jax.tree.map(jnp.square, (e_g2, e_delta2))
    g, lr = tree(*GRADS[grads]), 0.5
    got = jax.jit(step, static_argnums=4)(theta, g, Accumulators(e_g2, e_delta2), lr, Options(**options))
    options |= {"lr": lr, "largest": largest_root(float32)}
    state = components(theta), components(e_g2), components(e_delta2)
    truth = exact_step(state[0], components(g), *state[1:], **options)
    allowed = bounds(truth, *state, fmt=float32, form=PLAIN, **options)
    for field in Step._fields:
        rows = zip(exact(components(getattr(got, field))), getattr(truth, field), getattr(allowed, field), strict=True)
        for k, (x, y, bound) in enumerate(rows):
            assert abs(x - y) <= bound, (
                f"{field}, number {k}: {float(x)!r}, exactly {float(y)!r} up to {float(bound):.2g}"
            )


@pytest.mark.parametrize("wrong", [jnp.inf, jnp.nan])
def test_what_is_not_finite_passes_the_clip_by_norm_as_in_ieee_arithmetic(wrong):
    """An infinite norm wipes out what is finite, an undefined one everything; neither becomes a number."""
    g = [jnp.array([wrong, 1.0])]
    after = step([jnp.ones(2)], g, Accumulators([jnp.zeros(2)], [jnp.zeros(2)]), 1.0, Options(grad_clip_norm=1.0))
    clipped = after.clipped_norm[0]
    assert jnp.isnan(clipped[0]) and (clipped[1] == 0 if wrong == jnp.inf else jnp.isnan(clipped[1]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_ratio_is_rounded_once_and_its_power_of_two_not_at_all(dtype):
    """r s^2 is a / b, correctly rounded, for all a and b from 2^-102 to the end of the range; b s^2 is near one."""
    fmt, rng = FORMATS[dtype], np.random.default_rng(0)
    a, b = (np.exp2(rng.uniform(-102, fmt.emax, 200)).astype(dtype) for _ in range(2))
    a[:2], b[:2] = (2.0**-102, fmt.max), (fmt.max, 2.0**-102)
    with jax.enable_x64(dtype == "float64"):
        r, s = (np.asarray(x) for x in jax.jit(ratio)(jnp.asarray(a), jnp.asarray(b)))
    assert (np.frexp(s)[0] == 0.5).all()
    for numbers in zip(r, s, a, b, strict=True):
        r, s, a, b = map(fraction, numbers)
        assert fmt.tiny <= r <= fmt.max and ulps(r, a / b / s**2, fmt) <= 0.5
        assert 1 <= b * s**2 < 4


@pytest.mark.usefixtures("strict")
def test_one_norm_over_leaves_of_several_dtypes():
    """(3, 4) in two dtypes has norm 5; each leaf keeps its own."""
    clipped = clip_norm([jnp.array([3.0], jnp.bfloat16), jnp.array([4.0], jnp.float16)], 2.5)
    assert [(x.dtype.name, x.tolist()) for x in clipped] == [("bfloat16", [1.5]), ("float16", [2.0])]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_of_the_three_scales_suits_any_numbers_fewer_than_2_to_the_32(dtype):
    """At the largest no square of a normal number underflows, at the smallest no sum overflows, and they overlap."""
    fmt, count = FORMATS[dtype], 2**32 - 1
    with jax.enable_x64(dtype == "float64"):
        scales = np.array(three_scales(np.dtype(dtype)))
    assert (np.frexp(scales)[0] == 0.5).all()
    large, usual, small = map(fraction, scales)
    assert (fmt.tiny * large) ** 2 >= fmt.tiny and count * (fmt.max * small) ** 2 <= fmt.max
    for above, here in ((large, usual), (usual, small)):  # what is lost here is a small part of what overflowed above
        assert fmt.max / above**2 * here**2 > count * fmt.tiny / fmt.u


def test_the_scale_of_the_norm_comes_from_the_largest_leaf():
    """Of three: at the scale of a smaller one the largest would overflow."""
    clipped = clip_norm([jnp.full(1, x, jnp.float32) for x in (1.0, 2e30, 1e5)], 1e30)
    np.testing.assert_allclose([float(x[0]) for x in clipped], [0.5, 1e30, 0.5e5], rtol=1e-6)


def test_the_scale_of_the_norm_is_a_power_of_two_and_so_is_its_inverse():
    """Then a product with it does not round."""
    for x in (0.0, 1e-40, 3e-38, 1.75, 7.0, 1.7e38, float(float32.max)):
        n, s = (float(y) for y in norm([jnp.full(2, x, jnp.float32)]))
        assert np.frexp(s)[0] == 0.5 and float32.tiny <= s <= 1 / float32.tiny
        assert x < 2e-38 or n / s == pytest.approx(2**0.5 * x, rel=1e-6)
