"""Accumulators are reused in place unless somebody holds them; a failure or Ctrl-C leaves nothing half done."""

import sys

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import saiunit as u
from helpers import ONE, default_optimizer, near, optimizer, same, state

from braintools_adadelta import Adadelta, states

# These run with every braintools that is supported, though none names it.
pytestmark = pytest.mark.original


# -------------------------------------------------------------------------------- buffers that somebody else may hold


def test_accumulators_are_reused_in_place_unless_they_were_seen():
    ours = default_optimizer({"w": state(1.0, 2.0)})
    g = {"w": jnp.ones(2)}
    places = lambda: {x.unsafe_buffer_pointer() for x in jax.tree.leaves(ours.opt_state.peek())}
    ours.update(g)
    before = places()
    ours.update(g)
    assert places() == before
    seen = ours.opt_state.value
    copy = jax.tree.map(np.asarray, seen)
    ours.update(g)
    jax.tree.map(np.testing.assert_array_equal, seen, copy)
    assert not w_deleted(ours) and places() != before
    before = places()  # a look costs one copy
    ours.update(g)
    assert places() == before


@pytest.mark.parametrize(
    ("count", "options"),
    [(1, {}), (1, {"nonfinite": "skip", "grad_clip_norm": 1.0}), (1, {"lr": lambda step: 1 / (1 + step)}), (40, {})],
    ids=["plain", "skip", "schedule", "many"],
)
def test_step_binds_no_accumulators_to_a_local_before_it_donates_them(count, options, monkeypatch):
    """References are counted there. With one more every step would copy the accumulators, without a word."""
    shared, is_shared = [], states.AccumulatorState.is_shared
    asked = lambda self: shared.append(is_shared(self)) or shared[-1]
    monkeypatch.setattr(states.AccumulatorState, "is_shared", asked)
    ours = default_optimizer({f"w{k}": state(1.0, 2.0) for k in range(count)}, **options)
    for _ in range(3):
        ours.update({name: jnp.ones(2) for name in ours.param_states})
    assert shared == [False] * 3, "a local of step(), or of what it calls, holds the accumulators"


def w_deleted(ours):
    return any(s.value.is_deleted() for s in ours.param_states.values())


def test_the_caller_keeps_parameters_and_gradients():
    w = state(1.0, 2.0)
    ours, held, g = default_optimizer({"w": w}), w.value, jnp.ones(2)
    ours.update({"w": g})
    assert held.tolist() == [1.0, 2.0] and g.tolist() == [1.0, 1.0]


DONATED = {
    "float32": lambda x: x,
    "bfloat16": lambda x: x.astype(jnp.bfloat16),
    "complex64": lambda x: x.astype(jnp.complex64),
    "units": lambda x: x * u.volt,
}


@pytest.mark.parametrize("size", [3, 2**21])  # one that is updated in blocks, where that is done
@pytest.mark.parametrize("kind", DONATED)
def test_donated_parameters_too_are_reused_in_place(kind, size):
    def trained(donate):
        made = {name: brainstate.ParamState(DONATED[kind](jnp.ones(size) * k)) for k, name in enumerate(("v", "w"))}
        ours, places = default_optimizer(made), []
        arrays = lambda: jax.tree.leaves((ours.opt_state.peek(), [s.value for s in made.values()]))
        for _ in range(3):
            ours.update({name: DONATED[kind](jnp.ones(size)) for name in made}, donate=donate)
            places.append([x.unsafe_buffer_pointer() for x in arrays()])
        return places, arrays()

    (_, before, after), arrays = trained(True)
    assert before == after
    jax.tree.map(np.testing.assert_array_equal, arrays, trained(False)[1])


def test_what_is_donated_is_gone_for_others_and_inside_jit_it_is_not_donated():
    w = state(1.0, 2.0)
    ours, held = default_optimizer({"w": w}), w.value
    brainstate.transform.jit(ours.update)({"w": jnp.ones(2)}, donate=True)
    assert held.tolist() == [1.0, 2.0]
    held = w.value
    ours.update({"w": jnp.ones(2)}, donate=True)
    assert held.is_deleted() and w.value.tolist() != [1.0, 2.0]


def test_what_shares_its_memory_is_not_donated(capfd):
    shared = jnp.ones(2)
    pairs = {
        "the parameter 'v' and the parameter 'w'": (shared, jax.device_put(shared, jax.devices()[0]), jnp.zeros(2)),
        "the parameter 'w' and the gradient 'v'": (jnp.zeros(2), shared, shared),
    }
    for places, (v, w, g) in pairs.items():
        made = {"v": brainstate.ParamState(v), "w": brainstate.ParamState(w)}
        ours = default_optimizer(made)
        with pytest.raises(ValueError, match=f"{places} are in the same memory"):
            ours.update({"v": g, "w": g}, donate=True)
        assert ours.step_count.value == 0 and made["w"].value.tolist() == w.tolist() and not w_deleted(ours)
        ours.update({"v": g, "w": g})


HOLDERS = {  # how accumulators get into other hands
    "opt_state.value": lambda ours: jax.tree.leaves(ours.opt_state.value),
    "the tuple": lambda ours: ours.opt_state.value,
    "one dictionary": lambda ours: ours.opt_state.value.e_g2,
    "state_dict": lambda ours: ours.state_dict()["opt_state"],
    "copy": lambda ours: ours.opt_state.copy().value,
    "treefy_states": lambda ours: brainstate.graph.treefy_states(ours),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_accumulators_in_other_hands_live_on(holder):
    w = brainstate.ParamState(jnp.ones(3))
    ours = Adadelta().register_trainable_weights({"w": w})
    ours.update({"w": jnp.ones(3)})
    held = HOLDERS[holder](ours)
    before = [np.array(x) for x in jax.tree.leaves(held)]
    ours.update({"w": jnp.ones(3)})
    for now, then in zip(jax.tree.leaves(held), before, strict=True):
        np.testing.assert_array_equal(now, then)


def by_device_put(tree):
    return jax.device_put(tree, jax.devices()[0])


def test_arrays_of_the_same_buffer_live_on():
    """jax.device_put makes them, and no count of references shows it."""
    ours = default_optimizer({"w": state(1.0)})
    ours.update({"w": ONE})
    saved = by_device_put(ours.state_dict()["opt_state"])
    ours.update({"w": ONE})
    assert saved["e_g2"]["w"] == np.float32(0.1)
    best = by_device_put(ours.opt_state.value)
    ours.opt_state.value = by_device_put(best)
    want = float(best.e_g2["w"][0])
    ours.update({"w": ONE})
    assert best.e_g2["w"] == np.float32(want)


# --------------------------------------------------------------------------------------------------- reference counts

COUNTS = {"constant": lambda x: 1, "random": lambda x: 10**9 + id(x) % 7, "missing": None}


@pytest.mark.parametrize("kind", COUNTS)
def test_where_reference_counts_do_not_tell_accumulators_are_copied(kind, monkeypatch):
    """Other Pythons count otherwise, or not at all."""
    assert states.COUNTS_TELL and states.do_counts_tell()
    if COUNTS[kind] is None:
        monkeypatch.delattr(sys, "getrefcount")
    else:
        monkeypatch.setattr(sys, "getrefcount", COUNTS[kind])
    assert not states.do_counts_tell()
    monkeypatch.setattr(states, "COUNTS_TELL", states.do_counts_tell())
    ours = Adadelta().register_trainable_weights({"w": brainstate.ParamState(jnp.ones(3))})
    for _ in range(2):  # from the second on, nobody has asked for them, so they would be donated
        held = ours.opt_state.peek().e_g2["w"]
        ours.update({"w": jnp.ones(3)})
        assert not held.is_deleted()
    assert "accumulators copied at every step" in repr(ours)


# ----------------------------------------------------------------------------------------------------------- failures


def by_grad(ours, w):
    jax.grad(lambda x: (ours.update({"w": x}), w.value.sum())[1])(jnp.ones(3))


def by_vmap(ours, w):
    brainstate.transform.vmap(lambda x: ours.update({"w": x}))(jnp.ones((2, 3)))


@pytest.mark.parametrize("transform", [by_grad, by_vmap])
def test_a_transform_that_fails_loses_nothing(transform):
    w = brainstate.ParamState(jnp.ones(3))
    ours = Adadelta().register_trainable_weights({"w": w})
    ours.update({"w": jnp.ones(3)})
    before = jax.tree.map(np.array, ours.state_dict())
    with pytest.raises(Exception, match="TRACER|tracer|batched"):
        transform(ours, w)
    jax.tree.map(np.testing.assert_array_equal, ours.state_dict(), before)
    ours.update({"w": jnp.ones(3)})


def interrupted(f, line):
    """Call `f()`, which is interrupted before it runs its Python line number `line`; say whether it has that many."""
    left, before = [line], sys.gettrace()

    def trace(frame, event, arg):
        left[0] -= event == "line"
        if not left[0] and event == "line":
            raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        f()
    except KeyboardInterrupt:
        return True
    except ValueError as error:  # which JAX makes of an interruption in its cache
        assert "KeyboardInterrupt" in str(error)
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("unit", [1, u.mV], ids=str)
def test_an_interruption_leaves_a_whole_step_or_none(unit):
    """Wherever Ctrl-C strikes: a signal is handled between two lines of Python."""
    v, w, z = state(4.0), brainstate.ParamState(jnp.ones(3) * unit), state(1 + 2j)
    ours = Adadelta(lr=lambda step: 1 / (1 + step), nonfinite="skip").register_trainable_weights(
        {"v": v, "w": w, "z": z}
    )
    g, line, taken = {"v": jnp.ones(1), "w": jnp.ones(3) * unit, "z": jnp.ones(1) + 0j}, 1, []
    ours.update(g)  # compiles
    steps = int(ours.step_count.value)
    states = (v, w, z, ours.opt_state, ours.step_count)
    peek = lambda s: s.peek() if s is ours.opt_state else s.value  # what nobody asked for is not copied
    while True:
        before = [jax.tree.map(np.array, jax.tree.leaves(peek(s))) for s in states]
        if not interrupted(lambda: ours.update(g), line):
            break
        after = [jax.tree.map(np.array, jax.tree.leaves(peek(s))) for s in states]
        moved = {any((x != y).any() for x, y in zip(*pair, strict=True)) for pair in zip(before, after, strict=True)}
        assert len(moved) == 1, line
        taken.append(moved.pop())
        line += 1
    assert int(ours.step_count.value) == steps + sum(taken) + 1
    assert taken == sorted(taken) and len(set(taken)) == 2  # interrupted early there is no step, late a whole one


class Refusing(brainstate.ParamState):
    """A State that refuses its next values, `refused` of them."""

    refused = 0

    @property
    def value(self):
        return brainstate.ParamState.value.fget(self)

    @value.setter
    def value(self, value):
        if self.refused:
            self.refused -= 1
            raise RuntimeError("refused")
        brainstate.ParamState.value.fset(self, value)


@pytest.mark.parametrize("times", [1, 99])
def test_a_state_that_refuses_its_value_is_alone(times):
    """The accumulators are reused, so there is no way back: all else takes the step."""
    a, b, c = state(4.0), Refusing(jnp.array([4.0])), state(4.0)
    ours, g = optimizer({"a": a, "b": b, "c": c}), {k: jnp.array([8.0]) for k in "abc"}
    b.refused = times
    with pytest.raises(RuntimeError, match="refused"):
        ours.update(g)
    b.refused = 0
    near(a.value, [4.0], [[8.0]])
    same(c.value, a.value)
    same(b.value, a.value if times == 1 else [4.0])
    assert ours.step_count.value == 1
    ours.update(g)
    near(a.value, [4.0], [[8.0]] * 2)
