"""The (init, update) pair: in optax's combinators, with traced hyperparameters, over trees."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compare_with_oracle import assert_near_exact

from braintools_adadelta import scale_by_adadelta
from braintools_adadelta.transform import Accumulators, Options, deltas, start, step

PARAMS = {"a": jnp.array([4.0, -1.0]), "b": {"c": jnp.array(2.0)}}
GRADS = [jax.tree.map(lambda x, k=k: x * 0.5 + k, PARAMS) for k in range(4)]
OPTIONS = Options(rho=5 / 8, eps=1.0)


def by_step(params=PARAMS, grads=GRADS, options=OPTIONS):
    before = start(params)
    for g in grads:
        after = step(params, g, before, 1.0, options)
        params, before = after.theta, before._replace(e_g2=after.e_g2, e_delta2=after.e_delta2)
    return params


def by_optax(tx, params=PARAMS, grads=GRADS):
    state = tx.init(params)
    for g in grads:
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
    return params


def same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(x, y)


def minus(*parts):
    return optax.chain(*parts, scale_by_adadelta(5 / 8, 1.0), optax.scale(-1.0))


def test_chain():
    same(by_optax(minus()), by_step())


def test_chain_with_a_clip_and_decay_in_front_is_G2_and_G3():
    parts = optax.clip(1.5), optax.add_decayed_weights(0.25)
    same(by_optax(minus(*parts)), by_step(options=OPTIONS._replace(grad_clip_value=1.5, weight_decay=0.25)))


def test_masked():
    got = by_optax(optax.masked(minus(), {"a": True, "b": False}))
    same(got["a"], by_step()["a"])
    same(got["b"]["c"], PARAMS["b"]["c"] + sum(g["b"]["c"] for g in GRADS))


def test_multi_steps():
    got = by_optax(optax.MultiSteps(minus(), every_k_schedule=2).gradient_transformation())
    means = [jax.tree.map(lambda x, y: (x + y) / 2, *GRADS[k : k + 2]) for k in (0, 2)]
    assert_near_exact(got, PARAMS, means, rho=5 / 8, eps=1.0)


def test_a_grid_of_traced_rho_and_eps_is_one_program():
    tx = lambda rho, eps: by_optax(optax.chain(scale_by_adadelta(rho, eps), optax.scale(-1.0)))
    rhos, epss = jnp.array([0.5, 0.9]), jnp.array([1.0, 1e-6])
    grid = jax.jit(jax.vmap(jax.vmap(tx, (None, 0)), (0, None)))(rhos, epss)
    for i, rho in enumerate(rhos.tolist()):  # traced: exact means their values in float32
        for j, eps in enumerate(epss.tolist()):
            assert_near_exact(jax.tree.map(lambda x, i=i, j=j: x[i, j], grid), PARAMS, GRADS, rho=rho, eps=eps)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_dtypes_stay_whatever_meets(dtype):
    tx = scale_by_adadelta(jnp.float32(0.9), jnp.float32(1e-6))
    with jax.numpy_dtype_promotion("standard"):
        state = tx.init(jnp.ones(3, dtype))
        updates, after = jax.eval_shape(tx.update, jax.ShapeDtypeStruct((3,), jnp.float32), state)
    assert {x.dtype for x in jax.tree.leaves((state, after))} == {jnp.dtype("float32")}  # X2, for 16 bits
    assert updates.dtype == jnp.float32


@pytest.mark.parametrize(("own", "other"), [("float32", "float64"), ("float64", "float32")])
def test_accumulators_and_delta_each_keep_their_dtype(own, other):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        before = Accumulators(jnp.zeros(3, own), jnp.zeros(3, other))
        delta, after = deltas(jnp.ones(3, other), before, 0.9, 1e-6)
    assert (delta.dtype, after.e_g2.dtype, after.e_delta2.dtype) == (other, own, other)


@pytest.mark.parametrize("rho", [jnp.float16(0.3), np.float32(0.3), np.float64(0.3)], ids=lambda x: x.dtype.name)
@pytest.mark.parametrize("traced", [False, True])
def test_1_minus_rho_is_not_rounded_in_the_dtype_of_rho(rho, traced):
    with jax.enable_x64(True):
        first = lambda rho: scale_by_adadelta(rho).update(jnp.full(1, 3.0), start(jnp.ones(1)))[1].e_g2[0]
        got = float((jax.jit(first) if traced else first)(rho))
    assert got == pytest.approx((1 - float(rho)) * 9, rel=2**-51)


def test_a_decay_of_zero_reads_no_parameter():
    theta, g = {"w": jnp.array([jnp.inf])}, {"w": jnp.ones(1)}
    assert jnp.isfinite(step(theta, g, start(theta), 1.0, Options()).delta["w"]).all()


@pytest.mark.parametrize("tree", [{}, {"empty": jnp.zeros((0, 2))}, (), None], ids=repr)
def test_trees_without_numbers(tree):
    updates, _ = scale_by_adadelta().update(tree, scale_by_adadelta().init(tree))
    assert jax.tree.structure(updates) == jax.tree.structure(tree)


@pytest.mark.parametrize("wrong", [{"rho": 1.0}, {"rho": -0.1}, {"eps": 0.0}, {"eps": jnp.float32(0)}, {"rho": "0.9"}])
def test_wrong_hyperparameters_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"^{name} = .* is not allowed: it must be"):
        scale_by_adadelta(**wrong)


def test_optax_is_not_imported():
    code = "import sys, braintools_adadelta.transform; assert 'optax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
