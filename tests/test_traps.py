"""What somebody runs into who combines things: copies and groups, names with dots, schedules and States, subclasses."""

import copy
import dataclasses
import pickle
from typing import NamedTuple

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import saiunit as u
from compare_with_oracle import assert_near_exact

from braintools_adadelta import Adadelta, interop

LR = braintools.optim
jit = brainstate.transform.jit
ONE = jnp.array([1.0])


def state(*values):
    return brainstate.ParamState(jnp.array(values))


def optimizer(states, **options):
    return Adadelta(**options).register_trainable_weights(states)


def near(got, steps, start=1.0, lr=1.0, **options):
    """Say that `got` is where so many gradients of 1 lead."""
    assert_near_exact(got, [start], [[1.0]] * steps, lr=lr, rho=0.9, eps=1e-6, **options)


# -------------------------------------------------------------------------------------------------- the learning rate


@pytest.mark.parametrize("bad", [float("nan"), -1.0, "x", None, jnp.array(jnp.nan), jnp.array(-1.0), 1j], ids=repr)
@pytest.mark.parametrize("scheduler", [lambda: 1.0, lambda: LR.StepLR(1.0, 9)], ids=["a number", "StepLR"])
def test_an_lr_that_is_refused_is_not_in_force(scheduler, bad):
    w = state(1.0)
    ours = optimizer({"w": w}, lr=scheduler())
    with pytest.raises(ValueError, match="^lr = .* is not allowed: it must be a finite number"):
        ours.lr_apply(lambda lr: bad)
    with pytest.raises(ValueError, match="^lr = .* is not allowed: it must be a finite number"):
        ours.param_groups[0]["lr"] = bad
    ours.update({"w": ONE})
    assert ours.current_lr == ours.lr_scheduler.get_last_lr()[0] == 1.0
    near(w.value, 1)


def test_a_function_is_read_at_the_step_count_that_was_loaded():
    """Also after a state that says nothing of the schedule: that of braintools, of optax, or one without it."""
    w, falling = state(1.0), lambda count: 1 / (1 + count)
    theirs = LR.Adadelta(lr=0.5)
    theirs.register_trainable_weights({"w": w})
    theirs.update({"w": ONE})
    ours = optimizer({"w": w}, lr=falling)
    ours.current_lr = 0.125  # forgotten, too
    ours.load_state_dict(theirs.state_dict())
    lrs = []
    for _ in range(3):
        lrs.append(float(ours.current_lr))
        ours.update({"w": ONE})
    np.testing.assert_allclose(lrs, [1 / 2, 1 / 3, 1 / 4], rtol=1e-6)
    interop.from_optax(ours, interop.to_optax(ours), step_count=7)
    assert ours.current_lr == 1 / 8


def test_a_function_that_gives_no_lr_at_the_step_count_that_is_loaded():
    ours = optimizer({"w": state(1.0)}, lr=lambda count: 1.0 - count)
    saved = jax.tree.map(np.array, ours.state_dict())
    del saved["lr_scheduler"]
    with pytest.raises(ValueError, match="^lr = .*-4.* is not allowed"):
        ours.load_state_dict(saved | {"step_count": 5})
    assert ours.step_count.value == 0 and ours.current_lr == 1.0


@dataclasses.dataclass(frozen=True)
class Table:
    """A schedule that looks hashable and is not."""

    values: jax.Array

    def __call__(self, count):
        return self.values[jnp.minimum(count, 2)]


def test_a_schedule_may_hold_an_array():
    w = state(1.0)
    ours = optimizer({"w": w}, lr=Table(jnp.array([0.5, 0.25, 0.125])))
    for _ in range(2):
        ours.update({"w": ONE})
    assert ours.current_lr == 0.125
    assert_near_exact(w.value, [1.0], [[1.0]] * 2, lrs=[0.5, 0.25], rho=0.9, eps=1e-6)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_a_schedule_may_read_a_state(compiled):
    factor, w = brainstate.ShortTermState(jnp.array(1.0)), state(1.0)
    ours = optimizer({"w": w}, lr=lambda count: factor.value / (1 + count))
    step = lambda: ours.update({"w": ONE})
    step = brainstate.transform.jit(step) if compiled else step
    step()
    factor.value = jnp.array(0.5)
    step()
    assert_near_exact(w.value, [1.0], [[1.0]] * 2, lrs=[1.0, 0.25], rho=0.9, eps=1e-6)


def test_an_lr_may_be_traced():
    def train(lr):
        w = state(1.0)
        ours = optimizer({"w": w}, lr=lr)
        for _ in range(2):
            ours.update({"w": ONE})
        return w.value

    for lr, w in zip((1.0, 0.5), jax.vmap(train)(jnp.array([1.0, 0.5])), strict=True):
        near(w, 2, lr=lr)
        near(jax.jit(train)(lr), 2, lr=lr)


class Remembering(LR.LRScheduler):
    """A user's scheduler, whose state grows and may refuse what it is given."""

    def __init__(self, lr):
        self.best, self.seen = None, []
        super().__init__(lr)

    def get_lr(self):
        return list(self.base_lrs)

    def state_dict(self):
        return {**super().state_dict(), "best": self.best, "seen": list(self.seen)}

    def load_state_dict(self, state):
        self.seen = state["seen"]
        if state["best"] == "bad":
            raise ValueError("bad")
        self.best = state["best"]
        super().load_state_dict(state)


def by_msgpack(x, folder):
    braintools.file.msgpack_save(str(folder / "state"), x, verbose=False)
    return braintools.file.msgpack_load(str(folder / "state"), verbose=False)


@pytest.mark.parametrize("carry", [lambda x, folder: x, by_msgpack], ids=["memory", "msgpack"])
def test_the_state_of_a_users_scheduler_is_its_own_affair(carry, tmp_path):
    ours = optimizer({"w": state(1.0)}, lr=Remembering(1.0))
    ours.lr_scheduler.best, ours.lr_scheduler.seen = 0.5, [1.0, 2.0]
    saved, new = ours.state_dict(), optimizer({"w": state(1.0)}, lr=Remembering(1.0))
    new.load_state_dict(carry(saved, tmp_path))
    assert (new.lr_scheduler.best, new.lr_scheduler.seen) == (0.5, [1.0, 2.0])
    saved["lr_scheduler"]["Remembering"] |= {"best": "bad", "seen": [3.0]}
    with pytest.raises(ValueError, match="bad"):
        new.load_state_dict(saved)
    assert (new.lr_scheduler.best, new.lr_scheduler.seen) == (0.5, [1.0, 2.0])


def test_the_lr_of_a_state_takes_effect():
    w = state(1.0)
    ours = optimizer({"w": w})
    ours.load_state_dict(ours.state_dict() | {"lr": 0.5})
    ours.update({"w": ONE})
    near(w.value, 1, lr=0.5)
    with pytest.raises(ValueError, match="^lr = .* is not allowed: it must be a finite number"):
        ours.load_state_dict(ours.state_dict() | {"lr": "x"})


# ---------------------------------------------------------------------------------------------------- groups and copies


@pytest.mark.parametrize("scheduler", [lambda: LR.StepLR([1.0, 0.0], 99), lambda: 1.0], ids=["base lrs", "a number"])
def test_a_compiled_step_sees_that_a_parameter_moved(scheduler):
    a, b = state(1.0), state(1.0)
    ours = optimizer({"a": a, "b": b}, lr=scheduler())
    train = jit(lambda: ours.update({"a": ONE, "b": ONE}))
    train()
    ours.add_param_group({"b": b}, lr=0.0)
    before = b.value
    train()
    assert b.value == before
    near(a.value, 2)


def test_a_compiled_step_of_a_copy_sees_the_model_that_it_is_linked_to():
    twin = copy.deepcopy(optimizer({"w": state(1.0)}))
    train = jit(lambda: twin.update({"w": ONE}))
    train()
    w = state(5.0)
    twin.register_trainable_weights({"w": w})
    train()
    assert 4.99 < w.value < 5.0


def test_a_copy_links_a_parameter_to_a_new_group():
    twin = copy.deepcopy(optimizer({"a": state(1.0), "b": state(1.0)}))
    a, b = state(1.0), state(1.0)
    twin.register_trainable_weights({"a": a})
    twin.add_param_group({"b": b}, lr=0.0)
    twin.update({"a": ONE, "b": ONE})
    assert b.value == 1.0 and [list(group["params"]) for group in twin.param_groups] == [["a"], ["b"]]
    near(a.value, 1)


def test_a_shallow_copy_trains_the_same_model():
    w = state(1.0)
    ours = optimizer({"w": w})
    copy.copy(ours).update({"w": ONE})
    ours.update({"w": ONE})
    near(w.value, 2)


class Clamped(brainstate.ParamState):
    """A State with an attribute of its own."""

    def __init__(self, value, least):
        self.least = least
        super().__init__(value)

    @property
    def value(self):
        return brainstate.ParamState.value.fget(self)

    @value.setter
    def value(self, value):
        brainstate.ParamState.value.fset(self, jnp.maximum(value, self.least))


@pytest.mark.parametrize("how", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_the_states_of_a_copy_keep_their_attributes(how):
    twin = how(optimizer({"w": Clamped(ONE, 0.999)}))
    twin.update({"w": ONE})
    assert twin.param_states["w"].value[0] == np.float32(0.999)


def test_a_group_keeps_what_it_is_given_and_checks_what_it_uses():
    a, b = state(1.0), state(1.0)
    ours = optimizer({"a": a})
    ours.add_param_group(params={"b": b}, lr=0.5, name="head")
    group = ours.param_groups[1]
    group.update(weight_decay=0.25, lr=0.125)
    group |= {"note": "kept"}
    assert (group["name"], group["note"], group["lr"].value) == ("head", "kept", 0.125)
    assert copy.deepcopy(ours).param_groups[1]["name"] == "head"
    ours.update({"a": ONE, "b": ONE})
    near(b.value, 1, lr=0.125, weight_decay=0.25)
    for bad in ({"lr": float("nan")}, {"weight_decay": -1.0}):
        with pytest.raises(ValueError, match=f"^{next(iter(bad))} = .* is not allowed"):
            group.update(bad)
    ours.lr_apply(apply_fn=lambda lr: lr / 2)
    assert ours.current_lr == 0.5


def test_an_lr_that_a_chained_scheduler_divides_by_is_refused():
    ours = optimizer({"a": state(1.0)}, lr=LR.ChainedScheduler([LR.StepLR(1.0, 1), LR.ExponentialLR(1.0, 0.5)]))
    before = repr(jax.tree.map(float, ours.lr_scheduler.state_dict()))
    with pytest.raises(ValueError, match="lr = 0.0 is not allowed beside ChainedScheduler, which divides by it"):
        ours.add_param_group({"b": state(1.0)}, lr=0.0)
    assert repr(jax.tree.map(float, ours.lr_scheduler.state_dict())) == before and len(ours.param_groups) == 1
    ours.add_param_group({"b": state(1.0)}, lr=0.5)


class ByUpdate(Adadelta):
    def update(self, grads, **extra):
        return self.step(grads)


class ByStep(Adadelta):
    def step(self, grads, **extra):
        return super().step({name: 0 * g for name, g in grads.items()})


def test_update_calls_step_as_in_the_original():
    w, v = state(1.0), state(1.0)
    ByUpdate().register_trainable_weights({"w": w}).update({"w": ONE})
    near(w.value, 1)
    ByStep().register_trainable_weights({"w": v}).update({"w": ONE})
    assert v.value == 1.0


# ------------------------------------------------------------------------------------------------- names, trees, units


def test_two_arrays_of_one_name_are_refused():
    nested = brainstate.ParamState({"a": {"b": ONE}, "a.b": ONE})
    with pytest.raises(ValueError, match=r"in the value of 'w' two arrays have one name, of \['w.a.b'\]: use keys wit"):
        Adadelta().register_trainable_weights({"w": nested})
    with pytest.raises(ValueError, match="two States are named 'a.real'"):
        Adadelta().register_trainable_weights({"a": state(1j), "a.real": state(1.0)})


def test_a_name_that_looks_like_a_number():
    ours = optimizer({"(0)": state(1.0)})
    ours.load_state_dict(ours.state_dict())
    assert set(ours.opt_state.value.e_g2) == {"(0)"}


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Record:
    w: jax.Array


class Pair(NamedTuple):
    w: object


def test_records_of_the_users():
    record, w = brainstate.ParamState(Record(ONE)), state(1.0)
    ours = optimizer({"p": record})
    ours.update({"p": Record(ONE)})
    saved = ours.state_dict()
    ours.update({"p": Record(ONE)})
    ours.load_state_dict(saved)
    assert ours.step_count.value == 1
    optimizer(Pair(w)).update(Pair(ONE))
    near(w.value, 1)


@pytest.mark.parametrize("now", [ONE * u.volt, ONE], ids=str)
def test_a_parameter_keeps_its_unit(now):
    """Accumulators are in mV^2."""
    w = brainstate.ParamState(ONE * u.mV)
    ours = optimizer({"w": w})
    w.value = now
    with pytest.raises(ValueError, match="'w' is in (V|None), and when it was registered it was in mV"):
        ours.update({"w": now})
    with pytest.raises(ValueError, match="parameter 'w' has the shapes and units"):
        copy.deepcopy(optimizer({"w": brainstate.ParamState(ONE * u.mV)})).register_trainable_weights({"w": w})


def test_a_state_of_braintools_with_units_loads_and_goes_back():
    w = brainstate.ParamState(ONE * u.mV)
    theirs, ours = LR.Adadelta(), optimizer({"w": w})
    theirs.register_trainable_weights({"w": w})
    theirs.update({"w": ONE * u.mV})
    ours.load_state_dict(theirs.state_dict())
    ours.update({"w": ONE * u.mV})
    near(w.value / u.mV, 2)
    theirs.load_state_dict(interop.to_braintools(ours, theirs.state_dict()))
    theirs.update({"w": ONE * u.mV})
    near(w.value / u.mV, 3)


# ----------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize("what", [jnp.ones(2), np.ones(2)], ids=["jax", "numpy"])
def test_an_array_is_not_registered(what):
    with pytest.raises(TypeError, match="^got .*: pass a dict or list of States"):
        Adadelta().register_trainable_weights(what)


def test_a_number_that_jax_cannot_hold():
    ours = optimizer({"w": brainstate.ParamState(jnp.array(1.0))})
    with pytest.raises(TypeError, match="the gradient of 'w' is 1099511627776: it must be an array of numbers"):
        ours.update({"w": 2**40})


def test_a_decay_beyond_the_precision_of_a_parameter():
    with pytest.raises(ValueError, match=r"weight_decay = 1e\+300 is infinite in float32, the precision of 'w'"):
        optimizer({"w": state(1.0)}, weight_decay=1e300)


def test_a_key_among_the_accumulators():
    ours = optimizer({"w": state(1.0)})
    saved = ours.state_dict()
    saved["opt_state"]["e_g2"]["w"] = jax.random.key(0)
    with pytest.raises(ValueError, match=r"the accumulators of \['e_g2.w'\] do not fit"):
        ours.load_state_dict(saved)


def test_a_step_count_set_by_hand():
    """The original starts with a plain 0."""

    def train(x):
        w = brainstate.ParamState(x)
        ours = optimizer({"w": w})
        ours.step_count.value = 0
        ours.update({"w": x})
        return w.value

    near(jax.vmap(train)(jnp.ones((2, 1)))[0], 1)


def by_device_put(tree):
    return jax.device_put(tree, jax.devices()[0])


def test_arrays_of_the_same_buffer_live_on():
    """jax.device_put makes them, and no count of references shows it."""
    ours = optimizer({"w": state(1.0)})
    ours.update({"w": ONE})
    saved = by_device_put(ours.state_dict()["opt_state"])
    ours.update({"w": ONE})
    assert saved["e_g2"]["w"] == np.float32(0.1)
    best = by_device_put(ours.opt_state.value)
    ours.opt_state.value = by_device_put(best)
    want = float(best.e_g2["w"][0])
    ours.update({"w": ONE})
    assert best.e_g2["w"] == np.float32(want)
