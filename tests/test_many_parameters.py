"""Many parameters: small ones are updated in bundles. What comes of it is what one program for all would give."""

import random
import sys

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import saiunit as u
from compare_with_oracle import assert_near_exact

from braintools_adadelta import Adadelta, update
from braintools_adadelta.oracle.bounds import PLAIN

SHAPES = {f"w{k:02}": [(3,), (2, 2), (), (1, 3)][k % 4] for k in range(40)}
OPTIONS = {
    "plain": {},
    "clips and decay": {"grad_clip_norm": 0.5, "grad_clip_value": 0.25, "weight_decay": 0.125},
    "skip": {"nonfinite": "skip", "grad_clip_norm": 2.0},
}


def draw(seed):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in SHAPES.items()}


def trained(grads, start=None, compiled=False, groups=False, **options):
    states = {name: brainstate.ParamState(x) for name, x in (start or draw(0)).items()}
    ours = Adadelta(rho=5 / 8, eps=1.0, **options).register_trainable_weights(states)
    if groups:
        ours.add_param_group({name: states[name] for name in list(states)[::3]}, lr=0.5, weight_decay=0.25)
    step = brainstate.transform.jit(ours.update) if compiled else ours.update
    for g in grads:
        step(g)
    return {name: s.value for name, s in states.items()}, ours


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", OPTIONS)
def test_many_parameters_are_within_the_bound(name, compiled):
    grads = [draw(1), draw(2)]
    assert len(update.bundles_of(draw(0), [list(SHAPES)])) == 4 * (1 + 10 % update.BUNDLE) + 1
    got, _ = trained(grads, compiled=compiled, **OPTIONS[name])
    judged = {key: x for key, x in OPTIONS[name].items() if key != "nonfinite"}
    assert_near_exact(got, draw(0), grads, form=PLAIN, rho=5 / 8, eps=1.0, **judged)


@pytest.mark.parametrize("groups", [False, True], ids=["one group", "groups"])
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "complex64", "large"])
def test_bundles_are_bit_by_bit_what_one_program_gives(kind, groups, monkeypatch):
    def of_a_kind(tree):
        if kind == "large":
            return tree | {"big": jnp.linspace(-1, 1, update.LARGE + 1), "small": jnp.linspace(-1, 1, update.LARGE)}
        return {name: x.astype(kind) for name, x in tree.items()}

    start, grads = of_a_kind(draw(0)), [of_a_kind(draw(1)), of_a_kind(draw(2))]
    options = {"grad_clip_value": 0.5, "weight_decay": 0.125}
    many, _ = trained(grads, start, groups=groups, **options)
    monkeypatch.setattr(update, "MANY", 1000)
    one, _ = trained(grads, start, groups=groups, **options)
    jax.tree.map(np.testing.assert_array_equal, many, one)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("count", [3, 40])
def test_the_norm_is_as_wide_as_the_parameters_where_accumulators_are_narrow(count, compiled):
    """In float32, 1e60 would be infinite."""
    with jax.enable_x64(True):
        ones = {f"w{k}": jnp.ones(2, jnp.float64) for k in range(count)}
        grads = [{name: 1e60 * x for name, x in ones.items()}]
        options = {"grad_clip_norm": 1.0, "accumulator_dtype": "float32"}
        moved, ours = trained(grads, ones, compiled=compiled, **options)
        np.testing.assert_allclose(ours.opt_state.value.e_g2["w0"], (1 - 5 / 8) / (2 * count), rtol=1e-6)
        assert all((x < 1).all() for x in moved.values())


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_a_step_that_is_not_finite_is_skipped_as_a_whole(compiled):
    bad = draw(1) | {"w39": jnp.full((1, 3), jnp.nan)}
    got, ours = trained([bad], compiled=compiled, nonfinite="skip")
    jax.tree.map(np.testing.assert_array_equal, got, draw(0))
    assert (int(ours.step_count.value), int(ours.skipped_steps.value)) == (0, 1)


def test_there_are_two_programs_for_each_shape_and_not_one_for_each_parameter():
    programs = lambda: sum(update.compiled_for((), names)._cache_size() for names in (update.COPYING, update.REUSING))
    jax.clear_caches()
    shapes = {f"w{k}": (7, 5) if k % 3 else (11,) for k in range(400)}
    states = {name: brainstate.ParamState(jnp.ones(shape)) for name, shape in shapes.items()}
    ours = Adadelta(grad_clip_norm=1.0).register_trainable_weights(states)
    before = programs()
    for _ in range(2):
        ours.update({name: jnp.ones(shape) for name, shape in shapes.items()})
    assert programs() - before == 5  # and one for the large ones and the counts


def test_large_accumulators_are_reused_in_place():
    start = draw(0) | {"big": jnp.ones(update.LARGE + 1)}
    states = {name: brainstate.ParamState(x) for name, x in start.items()}
    ours = Adadelta().register_trainable_weights(states)
    place = lambda: ours.opt_state.peek().e_g2["big"].unsafe_buffer_pointer()
    ours.update(start)
    before = place()
    ours.update(start)
    assert place() == before


def test_an_interruption_leaves_a_whole_step_or_none():
    """At some forty of the lines of Python that run."""
    start, g = draw(0) | {"big": jnp.ones(update.LARGE + 1)}, draw(1) | {"big": jnp.ones(update.LARGE + 1)}
    states = {name: brainstate.ParamState(x) for name, x in start.items()}
    ours = Adadelta(grad_clip_norm=1.0).register_trainable_weights(states)
    ours.update(g), ours.update(g)
    lines, taken = [0], set()

    def run(stop):
        def trace(frame, event, arg):
            lines[0] += event == "line"
            if lines[0] == stop and event == "line":
                raise KeyboardInterrupt
            return trace

        lines[0], before = 0, sys.gettrace()
        sys.settrace(trace)
        try:
            ours.update(g)
        except (KeyboardInterrupt, ValueError):  # which JAX makes of one in its cache
            pass
        finally:
            sys.settrace(before)

    run(-1)
    total, rng = lines[0], random.Random(0)
    for stop in [*rng.sample(range(1, total), 30), *range(total - 10, total)]:
        steps, before = int(ours.step_count.value), {name: s.value for name, s in states.items()}
        run(stop)
        moved = {bool((s.value != before[name]).any()) for name, s in states.items()}
        assert moved == {int(ours.step_count.value) > steps}
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(ours.opt_state.peek()))
        taken |= moved
    assert taken == {False, True}


def test_units_of_many_gradients_are_compared_with_each_other():
    """One loss in J and in kJ counts in one unit, a gradient without a unit among them is refused, as for two."""

    def moved(count, unit):
        states = {f"w{k}": brainstate.ParamState(jnp.zeros(1)) for k in range(count)}
        grads = {name: jnp.ones(1) * u.joule for name in states} | {"w1": jnp.ones(1) * unit}
        Adadelta(eps=1.0).register_trainable_weights(states).update(grads)
        with pytest.raises(TypeError):
            Adadelta().register_trainable_weights(states).update(grads | {"w0": jnp.ones(1)})
        return float(states["w1"].value[0])

    few, many = ([moved(count, unit) for unit in (u.joule, u.kjoule)] for count in (2, update.MANY + 1))
    assert few == many and few[0] != few[1]
