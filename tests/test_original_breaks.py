"""Where the original breaks and ours works: each row of docs/original.toml is run on both.

A probe fails if the Adadelta it is given breaks. The original must break in the versions that the row names, and in no
other; ours must never.
"""

import copy
import pickle
import tomllib
from importlib.metadata import version
from pathlib import Path

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import saiunit as u

import braintools_adadelta

ROWS = tomllib.loads((Path(__file__).parent.parent / "docs/original.toml").read_text("utf-8"))
INSTALLED = version("braintools")
PROBES = {}
for_loop = brainstate.transform.for_loop


def probe(function):
    PROBES[function.__name__] = function
    return function


def state(*values, dtype=None):
    return brainstate.ParamState(jnp.array(values, dtype))


def made(Adadelta, states, **options):
    optimizer = Adadelta(**options)
    optimizer.register_trainable_weights(states)
    return optimizer


def refuses(act, *kinds):
    with pytest.raises(kinds or (TypeError, ValueError)):
        act()


def first(g, **options):
    """Return the parameter 0 after ours has taken one step."""
    w = state(0.0)
    made(braintools_adadelta.Adadelta, {"w": w}, **options).update({"w": jnp.array([g])})
    return float(w.value[0])


@probe
def group_adam(Adadelta):
    w, v = state(0.0), state(0.0)
    optimizer = made(Adadelta, {"w": w})
    optimizer.add_param_group({"v": v}, lr=1.0)
    optimizer.update({"w": jnp.ones(1), "v": jnp.ones(1)})
    np.testing.assert_allclose(v.value, w.value, rtol=1e-6)


@probe
def group_norm(Adadelta):
    w, v = state(0.0), state(0.0)
    optimizer = made(Adadelta, {"w": w}, eps=1.0, grad_clip_norm=1.0)
    optimizer.add_param_group({"v": v}, lr=1.0)
    optimizer.update({"w": jnp.array([3.0]), "v": jnp.array([4.0])})
    np.testing.assert_allclose(w.value, first(0.6, eps=1.0), rtol=1e-6)


@probe
def group_lr(Adadelta):
    scheduler = braintools.optim.StepLR(1.0, step_size=1, gamma=0.5)
    optimizer = made(Adadelta, {"w": state(0.0)}, lr=scheduler)
    optimizer.add_param_group({"v": state(0.0)}, lr=1.0)
    scheduler.step()
    v = optimizer.param_groups[1]["params"]["v"]
    optimizer.update({"w": jnp.ones(1), "v": jnp.ones(1)})
    np.testing.assert_allclose(v.value, first(1.0) / 2, rtol=1e-6)


@probe
def group_nested(Adadelta):
    w = state(0.0)
    optimizer = made(Adadelta, {"w": state(0.0)})
    optimizer.add_param_group({"layer": {"v": w}}, lr=1.0)
    optimizer.update({"w": jnp.ones(1), "layer": {"v": jnp.ones(1)}})
    assert w.value != 0


@probe
def group_register(Adadelta):
    w, v, x = state(0.0), state(0.0), state(0.0)
    optimizer = made(Adadelta, {"w": w})
    optimizer.add_param_group({"v": v}, lr=1.0)
    optimizer.register_trainable_weights({"x": x})
    optimizer.update({"w": jnp.ones(1), "v": jnp.ones(1), "x": jnp.ones(1)})
    assert w.value != 0 and v.value != 0 and x.value != 0


@probe
def group_move(Adadelta):
    w, v = state(0.0), state(0.0)
    optimizer, grads = made(Adadelta, {"w": w, "v": v}), {"w": jnp.ones(1), "v": jnp.ones(1)}
    optimizer.update(grads)
    optimizer.add_param_group({"v": v}, lr=1.0)
    optimizer.update(grads)
    np.testing.assert_allclose(v.value, w.value, rtol=1e-6)


@probe
def register_again(Adadelta):
    w = state(0.0)
    optimizer = made(Adadelta, {"w": w})
    optimizer.update({"w": jnp.ones(1)})
    before, kept = optimizer.opt_state, jax.tree.map(np.array, optimizer.opt_state.value)
    optimizer.register_trainable_weights({"w": w})
    assert optimizer.opt_state is before
    jax.tree.map(np.testing.assert_array_equal, optimizer.opt_state.value, kept)


@probe
def two_under_one_key(Adadelta):
    optimizer = made(Adadelta, {"w": state(0.0)})
    refuses(lambda: optimizer.register_trainable_weights({"w": state(0.0)}))


@probe
def gradient_shape(Adadelta):
    w = brainstate.ParamState(jnp.ones(2))
    optimizer = made(Adadelta, {"w": w})
    refuses(lambda: optimizer.update({"w": jnp.ones((3, 2))}))
    assert w.value.shape == (2,)


@probe
def gradient_missing(Adadelta):
    optimizer = made(Adadelta, {"weight": state(0.0)})
    for grads in ({}, {"weight": None}):
        with pytest.raises(ValueError, match="gradient (for|of).*weight"):
            optimizer.update(grads)


@probe
def nothing_registered(Adadelta):
    refuses(lambda: Adadelta().register_trainable_weights(None))
    refuses(lambda: Adadelta().register_trainable_weights({}))


@probe
def domain(Adadelta):
    for options in ({"rho": 1.5}, {"rho": -0.1}, {"eps": -1.0}, {"lr": float("nan")}, {"weight_decay": float("nan")}):
        refuses(lambda options=options: Adadelta(**options))


@probe
def overflow(Adadelta):
    w = state(0.0)
    optimizer = made(Adadelta, {"w": w}, rho=0.5)
    optimizer.update({"w": jnp.array([1e20])})
    moved = float(w.value[0])
    for _ in range(200):
        optimizer.update({"w": jnp.ones(1)})
    assert moved != 0 and w.value != moved


@probe
def narrow(Adadelta):
    w = state(0.0, dtype=jnp.float16)
    optimizer = made(Adadelta, {"w": w}, eps=1e-8)
    optimizer.update({"w": jnp.zeros(1, jnp.float16)})
    optimizer.update({"w": jnp.full(1, 300, jnp.float16)})
    assert np.isfinite(w.value).all() and w.value != 0


@probe
def eps_zero(Adadelta):
    refuses(lambda: Adadelta(eps=0.0))


@probe
def mixed_dtypes(Adadelta):
    w = state(0.0, dtype=jnp.bfloat16)
    optimizer = made(Adadelta, {"w": w})
    for_loop(lambda _: optimizer.update({"w": jnp.ones(1, jnp.float32)}), jnp.arange(3))
    assert w.value.dtype == jnp.bfloat16


@probe
def nan_skipped(Adadelta):
    w, v = state(0.0), state(0.0)
    optimizer = made(Adadelta, {"w": w, "v": v}, grad_clip_norm=1.0)
    if hasattr(optimizer, "nonfinite"):
        optimizer.nonfinite = "skip"
    optimizer.update({"w": jnp.array([jnp.nan]), "v": jnp.ones(1)})
    assert np.isfinite(v.value).all()


@probe
def norm_overflow(Adadelta):
    w, v = state(0.0), state(0.0)
    optimizer = made(Adadelta, {"w": w, "v": v}, grad_clip_norm=1.0, eps=1.0)
    optimizer.update({"w": jnp.array([3e30]), "v": jnp.array([4e30])})
    np.testing.assert_allclose(w.value, first(0.6, eps=1.0), rtol=1e-6)


@probe
def complex_square(Adadelta):
    w = brainstate.ParamState(jnp.array([0j]))
    made(Adadelta, {"w": w}).update({"w": jnp.array([3.0 + 4.0j])})
    np.testing.assert_allclose([w.value[0].real, -w.value[0].imag], [first(3.0), first(4.0)], rtol=1e-6)


@probe
def integers(Adadelta):
    refuses(lambda: made(Adadelta, {"n": brainstate.ParamState(jnp.arange(3))}))
    optimizer = made(Adadelta, {"w": state(0.0)})
    refuses(lambda: optimizer.update({"w": jnp.array([1j])}))


@probe
def units(Adadelta):
    w = brainstate.ParamState(jnp.ones(2) * u.mV)
    made(Adadelta, {"w": w}).update({"w": jnp.ones(2) / u.mV})
    assert u.get_unit(w.value) == u.mV


@probe
def wrong_state(Adadelta):
    optimizer = made(Adadelta, {"w": state(0.0)})
    other = made(Adadelta, {"w": brainstate.ParamState(jnp.ones((2, 3)))}).state_dict()
    refuses(lambda: optimizer.load_state_dict(other))


@probe
def msgpack(Adadelta):
    w = state(0.0)
    optimizer = made(Adadelta, {"w": w})
    optimizer.update({"w": jnp.ones(1)})
    saved = braintools.file.msgpack_to_state_dict(optimizer.state_dict())
    optimizer.load_state_dict(jax.tree.map(lambda x: x, saved))
    optimizer.update({"w": jnp.ones(1)})


@probe
def schedule_forgotten(Adadelta):
    def run():
        scheduler = braintools.optim.StepLR(1.0, step_size=2, gamma=0.5)
        return scheduler, made(Adadelta, {"w": state(0.0)}, lr=scheduler)

    (scheduler, before), (_, after) = run(), run()
    scheduler.step()
    after.load_state_dict(before.state_dict())
    scheduler.step(), after.lr_scheduler.step()
    assert after.current_lr == before.current_lr == 0.5


@probe
def copies(Adadelta):
    optimizer = made(Adadelta, {"w": state(0.0)})
    twin = copy.deepcopy(optimizer)
    twin.update({"w": jnp.ones(1)})
    again = pickle.loads(pickle.dumps(optimizer))
    again.update({"w": jnp.ones(1)})
    (w,) = jax.tree.leaves(optimizer.param_groups[0]["params"], is_leaf=lambda x: isinstance(x, brainstate.State))
    assert w.value == 0


@probe
def count_wraps(Adadelta):
    optimizer = made(Adadelta, {"w": state(0.0)})
    optimizer.step_count.value = jnp.asarray(2**31 - 1, jnp.int32)
    brainstate.transform.jit(lambda: optimizer.update({"w": jnp.ones(1)}))()
    assert optimizer.step_count.value > 0


@probe
def live_options(Adadelta):
    w = state(0.0)
    optimizer = made(Adadelta, {"w": w})
    optimizer.eps = 1.0
    optimizer.update({"w": jnp.ones(1)})
    np.testing.assert_allclose(w.value, first(1.0, eps=1.0), rtol=1e-6)


@probe
def functions(Adadelta):
    w = state(0.0)
    made(Adadelta, {"w": w}, lr=lambda step: 0.5).update({"w": jnp.ones(1)})
    np.testing.assert_allclose(w.value, first(1.0) / 2, rtol=1e-6)


def test_every_row_has_a_probe():
    assert list(ROWS) == list(PROBES)


@pytest.mark.parametrize("row", PROBES)
def test_ours_works(row):
    PROBES[row](braintools_adadelta.Adadelta)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("row", PROBES)
def test_the_original_breaks_where_its_row_says_so(row):
    breaks = ROWS[row]["breaks"]
    if INSTALLED not in {"0.3.0", "0.4.0"}:
        pytest.skip(f"docs/original.toml does not know braintools {INSTALLED}")
    try:
        PROBES[row](braintools.optim.Adadelta)
    except (Exception, pytest.fail.Exception):
        assert INSTALLED in breaks
    else:
        assert INSTALLED not in breaks
