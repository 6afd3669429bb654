"""Parameters of 16 bits, complex ones and ones with units; wider or narrower accumulators; strict dtypes."""

import copy
import subprocess
import sys

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import saiunit as u
from helpers import GRADS_OF_W, ONE, default_optimizer, everything, made, near, near_after_ones, optimizer, same, state

from braintools_adadelta import Adadelta, LRScheduler, interop, scale_by_adadelta

LR = braintools.optim
jit = brainstate.transform.jit


# ------------------------------------------------------------------------------------------------------------ 16 bits

HUGE = {jnp.float16: [300.0, 6e4], jnp.bfloat16: [300.0, 1e30], jnp.float32: [1e20, 3e38]}


@pytest.mark.parametrize("dtype", HUGE)
def test_a_huge_gradient_moves_the_weight_and_it_goes_on_learning(dtype):
    for g in HUGE[dtype]:
        w = state(0.0, dtype=dtype)
        ours = Adadelta().register_trainable_weights({"w": w})
        ours.update({"w": jnp.array([g], dtype)})
        first = float(w.value[0])
        # sqrt(eps / (1 - rho)), within what two roots, a quotient and two products may add to the rounding of theta
        np.testing.assert_allclose(first, -np.sqrt(1e-6 / (1 - 0.9)), rtol=4 * float(jnp.finfo(dtype).eps))
        train = lambda _, ours=ours: ours.update({"w": jnp.ones(1, dtype)})
        brainstate.transform.for_loop(train, jnp.arange(2000))  # the memory of it fades
        assert w.value[0] < first and np.isfinite(jax.tree.leaves(ours.opt_state.value)).all()


def test_sixteen_bit_parameters_are_rounded_once():
    """X2: accumulators in float32; theta is the float32 result, rounded."""
    g = jax.random.normal(jax.random.key(0), (5, 64)) * 10
    for dtype in (jnp.bfloat16, jnp.float16):
        narrow, wide = brainstate.ParamState(jnp.ones(64, dtype)), brainstate.ParamState(jnp.ones(64))
        ours, exact = default_optimizer({"w": narrow}, lr=30.0), default_optimizer({"w": wide}, lr=30.0)
        for row in g:
            wide.value = narrow.value.astype(jnp.float32)
            ours.update({"w": row})
            exact.update({"w": row})
            assert narrow.value.dtype == dtype
            np.testing.assert_array_equal(narrow.value, wide.value.astype(dtype))
            jax.tree.map(np.testing.assert_array_equal, ours.opt_state.value, exact.opt_state.value)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_clip_by_norm_takes_narrow_parameters_where_float64_is_enabled(dtype):
    """And moves them as it does elsewhere."""
    results = []
    for wide in (False, True):
        with jax.enable_x64(wide):
            w = state(1.0, 2.0, dtype=dtype)
            g = jnp.array([3.0, 4.0], dtype)
            Adadelta(grad_clip_norm=1.0).register_trainable_weights({"w": w}).update({"w": g})
            assert w.value.dtype == dtype
            results.append(np.asarray(w.value, np.float32))
    np.testing.assert_array_equal(*results)


# ------------------------------------------------------------------------------------------------------- accumulators


@pytest.mark.parametrize("stored", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_accumulators_are_stored_as_chosen(dtype, stored):
    w = state(0.0, 0.0, dtype=dtype)
    ours = Adadelta(accumulator_dtype=stored).register_trainable_weights({"w": w})
    brainstate.transform.for_loop(lambda _: ours.update({"w": jnp.array([300.0, 1e4], jnp.float32)}), jnp.arange(5))
    assert {x.dtype for x in jax.tree.leaves(ours.opt_state.value)} == {jnp.dtype(stored)} and w.value.dtype == dtype
    assert (w.value < 0).all() and np.isfinite(ours.opt_state.value.e_g2["w"].astype(jnp.float32)).all()


def test_what_is_not_finite_stays_so_in_narrower_accumulators():
    w = state(0.0, 0.0, 0.0)
    ours = Adadelta(accumulator_dtype=jnp.float16).register_trainable_weights({"w": w})
    ours.update({"w": jnp.array([jnp.inf, -jnp.inf, jnp.nan])})
    assert str(ours.opt_state.value.e_g2["w"].tolist()) == "[inf, inf, nan]"


def test_wider_accumulators_make_the_arithmetic_wide():
    with jax.enable_x64(True):
        w = state(4.0, dtype=jnp.float32)
        ours = optimizer({"w": w}, accumulator_dtype=jnp.float64, rho=0.9)
        ours.update({"w": jnp.array([1.1], jnp.float32)})
        assert w.value.dtype == jnp.float32
        assert ours.opt_state.value.e_g2["w"][0] == (1 - 0.9) * float(np.float32(1.1)) ** 2


@pytest.mark.parametrize(
    "value", [int, "x", jnp.int32, jnp.complex64, 3, np.ones(2), "float64", "float8_e5m2"], ids=repr
)
def test_accumulators_are_floating_point(value):
    with pytest.raises(ValueError, match="^accumulator_dtype = .* is not allowed: .*(one of float16, |jax_enable_x64)"):
        Adadelta(accumulator_dtype=value)


# ------------------------------------------------------------------------------------------------------------ 64 bits


def test_float32_parameters_with_x64_stay_float32():
    with jax.enable_x64(True):
        w, v = state(4.0, dtype=jnp.float32), state(4.0, dtype=jnp.float64)
        ours = optimizer({"w": w, "v": v}, lr=optax.exponential_decay(1.0, 2, 0.5))
        for _ in range(2):
            brainstate.transform.for_loop(lambda _: ours.update({"w": np.ones(1), "v": np.ones(1)}), jnp.arange(2))
        memory = ours.opt_state.value
        assert {k: x.dtype.name for k, x in memory.e_g2.items()} == {"w": "float32", "v": "float64"}
        assert w.value.dtype == jnp.float32 and v.value.dtype == jnp.float64


def test_wider_gradients_saturate_and_do_not_become_infinite():
    with jax.enable_x64(True):
        w = brainstate.ParamState(jnp.ones(2, jnp.float32))
        ours = Adadelta().register_trainable_weights({"w": w})
        ours.update({"w": jnp.array([1e200, -1e200])})
    first = 1e-3 / np.sqrt(0.1)  # sqrt(eps / (1 - rho)), as for every large gradient
    np.testing.assert_allclose(w.value, [1 - first, 1 + first], rtol=1e-6)


RATES = {
    "function": lambda: lambda step: 0.5**step,
    "LRScheduler": lambda: LRScheduler(lambda epoch: 0.5**epoch),
    "number": lambda: 0.5,
}


@pytest.mark.parametrize("lr", RATES)
def test_double_precision_may_be_turned_off_again(lr):
    with jax.enable_x64(True):
        ours = made(Adadelta, {"w": state(1.0, 2.0, dtype="float32")}, lr=RATES[lr]())
        ours.update({"w": np.ones(2, np.float32)})

    def step(_):
        ours.update(GRADS_OF_W)
        ours.lr_scheduler.step()

    brainstate.transform.for_loop(step, jnp.arange(2))
    brainstate.transform.scan(lambda carry, x: (carry, step(x)), 0, jnp.arange(2))
    brainstate.transform.while_loop(lambda k: k < 2, lambda k: (step(k), k + 1)[1], jnp.int32(0))
    assert ours.step_count.value == 7


# ------------------------------------------------------------------------------------------------------ strict dtypes

DTYPES = ["float32", "float16", "bfloat16", "complex64"]


ON = {"weight_decay": 0.1, "grad_clip_norm": 1.0, "grad_clip_value": 0.5, "nonfinite": "skip"}


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("accumulator_dtype", [None, "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, ON], ids=["plain", "all"])
def test_strict_promotion_in_every_dtype(dtype, accumulator_dtype, options):
    w = brainstate.ParamState(jnp.ones(2, dtype))
    ours = made(Adadelta, {"w": w}, accumulator_dtype=accumulator_dtype, **options)
    for g in (jnp.ones(2, dtype), np.ones(2, np.float32)):
        ours.update({"w": g})
        brainstate.transform.jit(lambda g=g: ours.update({"w": g}))()
    ours.load_state_dict(ours.state_dict())
    assert w.value.dtype == dtype and ours.step_count.value == 4


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("dtype", DTYPES)
def test_strict_promotion_in_the_transformation(dtype):
    init, update = scale_by_adadelta()
    params = {"w": jnp.ones(2, dtype)}
    assert jax.jit(update)(params, init(params))[0]["w"].dtype == dtype


# ------------------------------------------------------------------------------------------------------------ complex


@pytest.mark.parametrize(
    "options", [{}, {"grad_clip_norm": 1.0}, {"grad_clip_value": 0.5}, {"weight_decay": 0.1}], ids=str
)
def test_a_complex_parameter_is_two_real_ones(options):
    """X3, with the gradients that brainstate gives; bit by bit."""
    z, x, y = state(3 + 4j, 1 - 2j), state(3.0, 1.0), state(4.0, -2.0)
    ours, real = optimizer({"z": z}, **options), optimizer({"x": x, "y": y}, **options)
    target = jnp.array([1 + 1j, 2.0])
    loss = lambda: jnp.sum(jnp.abs(z.value - target) ** 2)
    first = loss()
    for _ in range(5):
        g = brainstate.transform.grad(loss, {"z": z})()
        ours.update(g)
        real.update({"x": g["z"].real, "y": -g["z"].imag})
        same((z.value.real, z.value.imag), (x.value, y.value))
    assert loss() < first and z.value.dtype == jnp.complex64
    assert ours.opt_state.value.e_g2["z"]["imag"].dtype == jnp.float32


def test_a_real_gradient_for_a_complex_parameter_has_no_imaginary_part():
    z = state(3 + 4j)
    optimizer({"z": z}).update({"z": jnp.array([8.0])})
    near([z.value.real, z.value.imag], [[3.0], [4.0]], [[[8.0], [0.0]]])


# -------------------------------------------------------------------------------------------------------------- units


@pytest.mark.parametrize("unit_aware", [False, True])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_parameters_with_units(unit_aware, compiled):
    v, w = brainstate.ParamState(jnp.array([-65.0, -70.0]) * u.mV), state(-65.0, -70.0)
    g, h = brainstate.ParamState(jnp.array(3.0) * u.nS), state(3.0)
    ours, plain = optimizer({"v": v, "g": g}), optimizer({"w": w, "h": h})

    def train():
        loss = lambda: u.math.sum((v.value / u.mV + 60) ** 2) + (g.value / u.nS - 1) ** 2
        ours.update(brainstate.transform.grad(loss, {"v": v, "g": g}, **({"unit_aware": True} if unit_aware else {}))())

    def train_plain():
        loss = lambda: jnp.sum((w.value + 60) ** 2) + (h.value[0] - 1) ** 2
        plain.update(brainstate.transform.grad(loss, {"w": w, "h": h})())

    if compiled:
        train, train_plain = jit(train), jit(train_plain)
    for _ in range(4):
        train(), train_plain()
    assert v.value.unit == u.mV and g.value.unit == u.nS
    np.testing.assert_allclose((v.value / u.mV), w.value, rtol=1e-6)
    np.testing.assert_allclose((g.value / u.nS), h.value[0], rtol=1e-6)


UNITS = {  # (unit of the parameter, of its gradient) for two parameters, what the gradients are as mantissas
    "JAX's": ([(u.mV, u.mV), (u.nS, u.nS)], [1, 1]),
    "true": ([(u.mV, 1 / u.mV), (u.nS, 1 / u.nS)], [1, 1]),
    "true, another scale": ([(u.mV, 1 / u.volt), (u.nS, 1 / u.nS)], [1e-3, 1]),
    "loss in mV2": ([(u.mV, u.mV), (u.nS, u.mV**2 / u.nS)], [1, 1]),
    "loss in mV2, another scale": ([(u.mV, u.mV), (u.nS, u.volt**2 / u.nS)], [1, 1e6]),
    "loss in mV2, a plain parameter": ([(u.mV, u.mV), (None, u.mV**2)], [1, 1]),
    "a plain parameter": ([(u.mV, 1 / u.mV), (None, None)], [1, 1]),
    "a plain parameter, a pure gradient": ([(u.mV, 1 / u.mV), (None, u.mV / u.volt)], [1, 1e-3]),
    "plain gradient": ([(u.mV, None), (None, None)], "'a' has no unit and the parameter is in mV: pass a Quantity"),
    "two losses": ([(u.mV, 1 / u.mV), (u.nS, 1 / u.mV)], "'b' is in (?!nS).*that of 'a' says"),
    "mixed labels": ([(u.mV, 1 / u.mV), (u.nS, u.nS)], "'b' is in nS, as if the loss were in .*: pass the gradients"),
    "unit for a plain one": ([(None, u.mV), (None, None)], "'b' is in None, as if the loss were in None"),
}


@pytest.mark.parametrize("kind", UNITS)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_the_unit_of_a_gradient(kind, compiled):
    pairs, expected = UNITS[kind]
    times = lambda x, unit: x if unit is None else x * unit
    states = {k: brainstate.ParamState(times(jnp.array(4.0), unit)) for k, (unit, _) in zip("ab", pairs, strict=True)}
    grads = {k: times(jnp.array(2.0), unit) for k, (_, unit) in zip("ab", pairs, strict=True)}
    ours = optimizer(states)
    update = jit(ours.update) if compiled else ours.update
    if isinstance(expected, str):
        before = everything(ours)[1:]
        with pytest.raises(TypeError, match=expected):
            update(grads)
        same(everything(ours)[1:], before)
        return
    update(grads)
    got = [float(x) for x in ours.opt_state.value.e_g2.values()]
    np.testing.assert_allclose(got, [3 / 8 * (2 * x) ** 2 for x in expected], rtol=1e-5)


@pytest.mark.parametrize("now", [ONE * u.volt, ONE], ids=str)
def test_a_parameter_keeps_its_unit(now):
    """Accumulators are in mV^2."""
    w = brainstate.ParamState(ONE * u.mV)
    ours = default_optimizer({"w": w})
    w.value = now
    with pytest.raises(ValueError, match="'w' is in (V|None), and when it was registered it was in mV"):
        ours.update({"w": now})
    with pytest.raises(ValueError, match="parameter 'w' has the shapes and units"):
        copy.deepcopy(default_optimizer({"w": brainstate.ParamState(ONE * u.mV)})).register_trainable_weights({"w": w})


def test_a_state_of_braintools_with_units_loads_and_goes_back():
    w = brainstate.ParamState(ONE * u.mV)
    theirs, ours = LR.Adadelta(), default_optimizer({"w": w})
    theirs.register_trainable_weights({"w": w})
    theirs.update({"w": ONE * u.mV})
    ours.load_state_dict(theirs.state_dict())
    ours.update({"w": ONE * u.mV})
    near_after_ones(w.value / u.mV, 2)
    theirs.load_state_dict(interop.to_braintools(ours, theirs.state_dict()))
    theirs.update({"w": ONE * u.mV})
    near_after_ones(w.value / u.mV, 3)


def test_units_are_not_imported():
    code = "import sys, braintools_adadelta.leaf as leaf; assert not hasattr(leaf, 'u')"
    subprocess.run([sys.executable, "-c", code], check=True)
