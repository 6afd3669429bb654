"""What must hold of the step whatever the numbers are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from braintools_adadelta.equations import adadelta
from braintools_adadelta.oracle.bounds import gamma
from braintools_adadelta.transform import Accumulators, Options, start, step

U, TINY, MAX = 2.0**-24, 2.0**-126, float(np.finfo(np.float32).max)
update = jax.jit(adadelta)  # rho and eps are traced: any pair of them is one program


def run(g, e_g2, e_delta2, rho, eps):
    """One float32 step; its results as doubles."""
    return [float(x) for x in update(*map(np.float32, (g, e_g2, e_delta2, rho, eps)))]


finite = st.floats(-MAX, MAX, width=32, allow_subnormal=False)
ordinary = st.floats(2.0**-20, 2.0**20, width=32)
average = st.floats(0, 2.0**60, width=32, allow_subnormal=False)
rhos = st.floats(0, 1 - 2.0**-10, width=32, allow_subnormal=False)
epss = st.floats(2.0**-102, 1, width=32)


@given(finite, average, average, rhos, epss)
def test_sign_symmetry(g, e_g2, e_delta2, rho, eps):
    one, other = run(g, e_g2, e_delta2, rho, eps), run(-g, e_g2, e_delta2, rho, eps)
    assert one[0] == other[0] and one[1] == -other[1] and one[2] == other[2]
    assert one[1] * g <= 0


@given(finite, average, average, rhos, epss)
def test_accumulators_are_never_negative_and_never_leave_their_range(g, e_g2, e_delta2, rho, eps):
    """An average lies between what it averages, but for three roundings; and nothing here overflows."""
    new_g2, delta, new_delta2 = run(g, e_g2, e_delta2, rho, eps)
    square = min(abs(g), 1.8446743e19) ** 2
    assert 0 <= new_g2 <= max(e_g2, square) * (1 + gamma(4, U))
    assert 0 <= new_delta2 <= max(e_delta2, delta**2) * (1 + gamma(13, U)) + 4 * TINY
    assert new_g2 >= rho * e_g2 * (1 - gamma(3, U)) - 2 * TINY


@given(finite, average, average, rhos, epss)
def test_delta_is_bounded(g, e_g2, e_delta2, rho, eps):
    """|Delta| <= sqrt(a / (1 - rho)), as E[g2] holds (1 - rho) g^2, and <= |g| sqrt(a / eps); a = E[Delta2] + eps."""
    _, delta, _ = run(g, e_g2, e_delta2, rho, eps)
    root = np.sqrt(np.float64(np.float32(e_delta2)) + eps)
    flushed = np.sqrt(TINY / eps)  # relative, on E[g2]
    assert abs(delta) <= root / np.sqrt(1 - rho) * (1 + gamma(8, U) + flushed)
    assert abs(delta) <= abs(g) * root / np.sqrt(eps) * (1 + gamma(8, U))


@given(ordinary, ordinary, ordinary, rhos, st.integers(-15, 15))
def test_scaling_all_squares_alike_changes_no_bit(g, e_g2, e_delta2, rho, k):
    """Another unit for theta's loss and theta alike: g, Delta times 2^k and both averages and eps times 4^k."""
    one = run(g, e_g2, e_delta2, rho, 2.0**-10)
    other = run(g * 2.0**k, e_g2 * 4.0**k, e_delta2 * 4.0**k, rho, 2.0**-10 * 4.0**k)
    assert other == [one[0] * 4.0**k, one[1] * 2.0**k, one[2] * 4.0**k]


@given(ordinary, ordinary, average, rhos, epss, st.integers(1, 20))
def test_scale_equivariance_up_to_eps(g, e_g2, e_delta2, rho, eps, k):
    """A loss 2^k times as large: |Delta| grows, but by no more than sqrt((E[g2] + eps) / E[g2])."""
    new_g2, delta, _ = run(g, e_g2, e_delta2, rho, eps)
    scaled_g2, scaled, _ = run(g * 2.0**k, e_g2 * 4.0**k, e_delta2, rho, eps)
    assert scaled_g2 == new_g2 * 4.0**k
    slack = 1 + gamma(12, U)
    assert abs(delta) <= abs(scaled) * slack <= abs(delta) * np.sqrt((new_g2 + eps) / new_g2) * slack**2


by_jit = jax.jit(step, static_argnums=4)


@pytest.mark.parametrize("take", [step, by_jit], ids=["eager", "jit"])
@pytest.mark.parametrize(("count", "cut"), [(2, 1), (33, 16), (100, 99)])
@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
def test_permuting_and_splitting_leaves_changes_nothing(take, count, cut, seed):
    """Bit by bit, compiled or not."""
    rng = np.random.default_rng(seed)
    theta, g, e_g2, e_delta2 = (np.float32(rng.normal(size=count)) for _ in range(4))
    e_g2, e_delta2, options = e_g2**2, e_delta2**2, Options(grad_clip_value=1.0, weight_decay=0.1)
    whole = take([theta], [g], Accumulators([e_g2], [e_delta2]), 0.5, options)
    order = rng.permutation(count)
    parts = lambda x: {"b": x[order][:cut], "a": [x[order][cut:]]}
    apart = take(parts(theta), parts(g), Accumulators(parts(e_g2), parts(e_delta2)), 0.5, options)
    for field in ("e_g2", "delta", "e_delta2", "theta"):
        (want,), got = getattr(whole, field), getattr(apart, field)
        np.testing.assert_array_equal(np.concatenate([got["b"], got["a"][0]]), np.asarray(want)[order])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_zero_gradients_move_nothing_and_averages_fade(dtype):
    theta = {"w": jnp.ones(4, dtype)}
    before = Accumulators(*(jax.tree.map(lambda x: x.astype(jnp.float32) + 1, start(theta)).e_g2 for _ in range(2)))
    after = step({"w": jnp.ones(4)}, {"w": jnp.zeros(4)}, before, 1.0, Options(rho=0.5))
    assert (after.theta["w"] == 1).all() and (after.e_g2["w"] == 0.5).all() and (after.e_delta2["w"] == 0.5).all()


@given(ordinary, ordinary)
def test_the_first_step_lies_between_its_limits(g, eps):
    """|Delta_1| <= min(|g|, sqrt(eps / (1 - rho))), and at least that over the root of two."""
    assume(eps <= 1)
    delta = abs(run(g, 0, 0, 0.9, eps)[1])
    limit = min(g, np.sqrt(eps / (1 - float(np.float32(0.9)))))
    assert limit / np.sqrt(2) * (1 - gamma(6, U)) <= delta <= limit * (1 + gamma(6, U))
