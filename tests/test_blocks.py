"""Large parameters on a CPU: block by block, to the same bits, in a cache's worth of memory."""

import inspect

import brainstate
import jax
import jax.numpy as jnp
import lowered
import numpy as np
import pytest

from braintools_adadelta import Adadelta, blocks, update

OPTIONS = {
    "plain": {},
    "clips and decay": {"grad_clip_norm": 0.5, "grad_clip_value": 1e-3, "weight_decay": 0.125},
    "skip": {"nonfinite": "skip"},
    "16-bit averages": {"accumulator_dtype": "bfloat16"},
}
WITH_ARRAYS = "bfloat16, clip by norm", "float32, skip"  # XLA makes arrays of what must be known of all gradients
on_a_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="blocks are for a CPU")


def is_large(theta, g):
    """What goes in blocks here, however many cores and whatever XLA there are."""
    return theta.size > 2 * blocks.BLOCK


def draw(seed, dtype, size=4 * blocks.BLOCK + 7):
    rng = np.random.default_rng(seed)
    large = rng.normal(size=size) + (1j * rng.normal(size=size) if dtype == "complex64" else 0)
    return {"large": jnp.asarray(large).astype(dtype), "small": jnp.ones(3)}


def after_two_steps(dtype, compiled, **options):
    jax.clear_caches()
    states = {name: brainstate.ParamState(x) for name, x in draw(0, dtype).items()}
    ours = Adadelta(**options).register_trainable_weights(states)
    step = brainstate.transform.jit(ours.update) if compiled else ours.update
    for seed in (1, 2):
        step(draw(seed, dtype))
    return [np.asarray(x) for x in jax.tree.leaves(({k: s.value for k, s in states.items()}, ours.opt_state.value))]


@on_a_cpu
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
@pytest.mark.parametrize("name", OPTIONS)
def test_blocks_give_the_bits_of_the_plain_form(name, dtype, compiled, monkeypatch):
    monkeypatch.setattr(update, "is_for_blocks", is_large)
    in_blocks = after_two_steps(dtype, compiled, **OPTIONS[name])
    monkeypatch.setattr(update, "is_for_blocks", lambda theta, g: False)
    plain = after_two_steps(dtype, compiled, **OPTIONS[name])
    jax.clear_caches()
    for x, y in zip(in_blocks, plain, strict=True):
        np.testing.assert_array_equal(x, y)


@on_a_cpu
@pytest.mark.skipif(jax.__version_info__ < (0, 12), reason="XLA makes a function of the loop since JAX 0.12")
def test_the_loop_is_one_function():
    """Else there would be no blocks, and nobody would notice."""
    assert blocks.is_one_function()


def program(case):
    """Return what the update of sixteen million numbers is called with, as keywords."""
    arguments, static = lowered.program(case, 1, (2**24,))
    return dict(zip(inspect.signature(update.update_all).parameters, arguments, strict=False)) | static


@on_a_cpu
@pytest.mark.skipif(not blocks.is_one_function(), reason="this XLA makes no function of the loop, so no blocks")
@pytest.mark.parametrize("name", sorted(lowered.CASES.keys() - {*WITH_ARRAYS, "float32, two groups", "float64"}))
def test_sixteen_million_numbers_take_less_than_a_mebibyte(name, monkeypatch):
    jax.clear_caches()
    monkeypatch.setattr(update, "is_for_blocks", is_large)
    case = lowered.CASES[name]
    parameter = 2**24 * jnp.dtype(case.dtype).itemsize
    averages = 2 * max(parameter, 2**24 * 4)
    for donated, in_place in {update.REUSING: averages, update.IN_PLACE: averages + parameter}.items():
        compiled = update.compiled_for((), donated).lower(**program(case)).compile()
        memory = compiled.memory_analysis()
        assert memory.temp_size_in_bytes < 2**20
        assert memory.alias_size_in_bytes == in_place
        assert compiled.as_text().count('xla_cpu_small_call="true"') == 1  # where short blocks cost little


def test_derivatives_are_those_of_the_plain_form(monkeypatch):
    """Back through blocks, each would need an array of full size."""

    def loss(g, lr):
        states = {"large": brainstate.ParamState(jnp.ones_like(g))}
        ours = Adadelta(lr=lambda step: lr, weight_decay=0.5).register_trainable_weights(states)
        for factor in (1, 2):
            ours.update({"large": factor * g})
        return jnp.sum(states["large"].value ** 2)

    given = draw(0, "float32")["large"], 1.0
    slopes, text = [], []
    for chosen in (is_large, lambda theta, g: False):
        monkeypatch.setattr(update, "is_for_blocks", chosen)
        jax.clear_caches()
        slopes.append(jax.jit(jax.grad(loss, argnums=(0, 1)))(*given))
        text.append(str(jax.make_jaxpr(jax.grad(loss))(*given)))
    jax.clear_caches()
    assert all((x == y).all() and jnp.isfinite(x).all() for x, y in zip(*slopes, strict=True))
    assert "dynamic_slice" not in text[0] and "while" not in text[0] and "scan" not in text[0]


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_other_platforms_have_no_loop(platform, monkeypatch):
    jax.clear_caches()
    monkeypatch.setattr(update, "is_for_blocks", is_large)
    update_all = update.compiled_for((), update.REUSING)
    text = jax.export.export(update_all, platforms=[platform])(**program(lowered.Case())).mlir_module()
    assert "stablehlo.while" not in text and "dynamic_slice" not in text and "stablehlo.divide" in text


@pytest.mark.parametrize(
    ("size", "devices", "cores", "one_function", "expected"),
    [
        (2**16, 1, 2, True, True),
        (2**16 - 1, 1, 2, True, False),
        (2**21, 1, 4, True, True),
        (2**21 - 1, 1, 4, True, False),
        (2**30, 1, 5, True, False),
        (2**31, 1, 2, True, False),
        (2**21, 8, 2, True, False),
        (2**21, 1, 2, False, False),
    ],
    ids=[
        *("large", "small", "beyond the cache", "in the cache of several cores", "many cores"),
        *("no position", "several devices", "XLA goes step by step"),
    ],
)
@on_a_cpu
def test_where_blocks_are_made(size, devices, cores, one_function, expected, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    monkeypatch.setattr(blocks.os, "cpu_count", lambda: cores)
    monkeypatch.setattr(blocks, "is_one_function", lambda: one_function)
    assert blocks.suits(jax.ShapeDtypeStruct((size,), jnp.float32)) == expected
