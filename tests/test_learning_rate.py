"""The lr: a number, a function of the step count, a scheduler of ours or of braintools."""

import dataclasses
import json

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare_with_oracle import assert_near_exact
from helpers import GRADS_OF_W, ONE, OPTIONS, default_optimizer, made, near, near_after_ones, optimizer, state
from schedules import SCHEDULERS, SCHEDULES

from braintools_adadelta import Adadelta, LRScheduler
from braintools_adadelta.oracle.bounds import PLAIN

LR = braintools.optim
jit = brainstate.transform.jit


def lrs_used(ours, w, steps, between=lambda t: None):
    """Return the lr of each of `steps` updates, measured: for rho = 0 and E[Delta2] tiny, theta moves by lr * Delta."""
    used = []
    for t in range(steps):
        before, e_delta2 = w.value, ours.opt_state.value.e_delta2["w"]
        ours.update({"w": jnp.ones(1)})
        delta = -jnp.sqrt(e_delta2 + ours.eps) / jnp.sqrt(ours.opt_state.value.e_g2["w"] + ours.eps)
        used.append(round(float(((w.value - before) / delta)[0]), 4))
        between(t)
    return used


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_the_lr_in_force(kind, compiled):
    make, expected = SCHEDULES[kind]
    w = state(4.0)
    ours = optimizer({"w": w}, lr=make(), **OPTIONS)
    traces = []
    if compiled:

        def update(g):
            traces.append(1)
            Adadelta.update(ours, g)

        ours.update = brainstate.transform.jit(update)
    reported = []

    def between(t):
        if t == 1:
            ours.lr_scheduler.step()
        reported.append(round(float(ours.current_lr), 4))
        assert ours.param_groups[0]["lr"].value == ours.current_lr and ours.get_last_lr() == [ours.current_lr]

    assert lrs_used(ours, w, 4, between) == expected
    assert reported[:-1] == expected[1:]
    # a braintools scheduler turns its lr from a float into an array when it first steps
    assert len(traces) <= 1 + (kind == "braintools' scheduler")


@pytest.mark.parametrize("kind", SCHEDULES)
def test_setting_the_lr_takes_effect_at_once(kind):
    w = state(4.0)
    ours = optimizer({"w": w}, lr=SCHEDULES[kind][0](), **OPTIONS)
    ours.current_lr = 0.125
    assert ours.current_lr == 0.125 and ours.param_groups[0]["lr"].value == 0.125
    assert lrs_used(ours, w, 3) == [0.125] * 3
    ours.lr_scheduler.step()
    # it holds until the scheduler's next step; for a function, for good
    after = {"number": 0.5, "function": 0.125, "optax": 0.125}.get(kind, 0.5)
    assert lrs_used(ours, w, 1) == [after]


def test_a_changed_lr_is_seen_inside_a_compiled_loop():
    w, traces = state(4.0), []
    ours = optimizer({"w": w}, **OPTIONS)

    @brainstate.transform.jit
    def train(g):
        traces.append(1)
        brainstate.transform.for_loop(lambda g: ours.update({"w": g}), g)

    for lr in (1.0, 0.5, 0.0):
        ours.current_lr = lr
        train(jnp.ones((2, 1)))
    ends = [1.0, 1.0, 0.5, 0.5, 0.0, 0.0]
    assert_near_exact(w.value, [4.0], [[1.0]] * 6, lrs=ends, form=PLAIN, **OPTIONS)
    assert len(traces) <= 2  # brainstate traces a function once to find its States and once to compile it


def test_the_lr_may_be_set_inside_a_trace():
    w = state(4.0)
    ours = optimizer({"w": w})

    def train(lr):
        ours.current_lr = lr
        ours.update({"w": jnp.array([8.0])})

    brainstate.transform.for_loop(train, jnp.array([1.0, 0.5]))
    near(w.value, [4.0], [[8.0], [8.0]], lrs=[1.0, 0.5])
    assert ours.current_lr == 0.5


def test_an_lr_may_be_traced():
    def train(lr):
        w = state(1.0)
        ours = default_optimizer({"w": w}, lr=lr)
        for _ in range(2):
            ours.update({"w": ONE})
        return w.value

    for lr, w in zip((1.0, 0.5), jax.vmap(train)(jnp.array([1.0, 0.5])), strict=True):
        near_after_ones(w, 2, lr=lr)
        near_after_ones(jax.jit(train)(lr), 2, lr=lr)


def test_lr_apply_and_schedulers():
    ours = default_optimizer({"w": state(4.0)}, lr=0.5)
    ours.lr_apply(lambda lr: lr / 4)
    assert ours.current_lr == 0.125 and ours.base_lr == 0.5 and ours.lr is ours.lr_scheduler
    another = LRScheduler(0.75)
    ours.add_scheduler(another)
    assert ours.schedulers == [another] and ours.get_last_lr() == [0.75]


def test_lr_is_the_scheduler_and_is_not_set():
    ours = optimizer({"a": state(1.0)})
    with pytest.raises(AttributeError, match="lr is the scheduler and cannot be set: set current_lr = 0.1"):
        ours.lr = 0.1
    assert ours.lr is ours.lr_scheduler and ours.current_lr == 1.0


def test_an_lr_that_was_set_is_a_plain_number():
    ours = made(Adadelta, lr=0.3)
    for value in (0.25, np.float32(0.25), jnp.float32(0.25), jnp.array(0.25)):
        ours.current_lr = value
        json.dumps([ours.current_lr, ours.base_lr, ours.get_last_lr(), ours.param_groups[0]["lr"].value])
        assert ours.current_lr == 0.25 and type(ours.current_lr) is float
    ours = made(Adadelta, lr=lambda step: 0.5**step)
    ours.update(GRADS_OF_W)
    assert json.dumps(ours.current_lr) == "0.5"


@pytest.mark.parametrize("make", [lambda: 0.5, lambda: lambda step: 0.5**step, lambda: braintools.optim.StepLR(1.0, 1)])
def test_the_lr_can_be_logged_and_plotted(make):
    ours, log = optimizer({"w": state(4.0)}, lr=make()), []
    for _ in range(3):
        ours.update({"w": jnp.array([8.0])})
        ours.lr_scheduler.step()
        log.append(ours.current_lr)
        f"{ours.current_lr:.3f}"
    assert np.asarray(log).dtype == float and len(log) == 3


# ----------------------------------------------------------------------------------------------------------- mistakes

SETTING = {
    "current_lr": lambda ours, lr: setattr(ours, "current_lr", lr),
    "lr_apply": lambda ours, lr: ours.lr_apply(lambda _: lr),
    "put": lambda ours, lr: ours.lr_scheduler.put(0, lr),
    "group": lambda ours, lr: ours.param_groups[0].__setitem__("lr", lr),
}


@pytest.mark.parametrize("how", SETTING)
@pytest.mark.parametrize("bad", [float("nan"), -1.0, "x", None, jnp.float32(jnp.nan), jnp.float32(-1)], ids=repr)
def test_a_bad_lr_is_refused_and_changes_nothing(how, bad):
    ours = default_optimizer({"w": state(4.0)}, lr=0.5)
    with pytest.raises(ValueError, match="^lr = "):
        SETTING[how](ours, bad)
    assert ours.current_lr == 0.5


@pytest.mark.parametrize("bad", [float("nan"), -1.0, "x", None, jnp.array(jnp.nan), jnp.array(-1.0), 1j], ids=repr)
@pytest.mark.parametrize("scheduler", [lambda: 1.0, lambda: LR.StepLR(1.0, 9)], ids=["a number", "StepLR"])
def test_an_lr_that_is_refused_is_not_in_force(scheduler, bad):
    w = state(1.0)
    ours = default_optimizer({"w": w}, lr=scheduler())
    with pytest.raises(ValueError, match="^lr = .* is not allowed: it must be a finite number"):
        ours.lr_apply(lambda lr: bad)
    with pytest.raises(ValueError, match="^lr = .* is not allowed: it must be a finite number"):
        ours.param_groups[0]["lr"] = bad
    ours.update({"w": ONE})
    assert ours.current_lr == ours.lr_scheduler.get_last_lr()[0] == 1.0
    near_after_ones(w.value, 1)


@pytest.mark.parametrize(("lr", "message"), [(jnp.ones(3), "must be a scalar"), (LRScheduler, "is a class")])
def test_an_lr_that_is_none(lr, message):
    w = brainstate.ParamState(jnp.ones(3))
    with pytest.raises((ValueError, TypeError), match=message):
        if message == "is a class":
            Adadelta(lr=lr)
        ours = Adadelta().register_trainable_weights({"w": w})
        brainstate.transform.jit(lambda lr: setattr(ours, "current_lr", lr))(lr)


# ---------------------------------------------------------------------------------------------------------- functions


def test_a_function_that_cannot_be_traced_is_refused_with_the_reason():
    with pytest.raises(TypeError, match="cannot be traced by JAX .*: a schedule is called with a traced step count"):
        Adadelta(lr=lambda step: 1.0 if step < 10 else 0.1)
    with pytest.raises(TypeError, match="must give a real scalar"):
        Adadelta(lr=lambda step: jnp.ones(3))


@dataclasses.dataclass(frozen=True)
class Table:
    """A schedule that looks hashable and is not."""

    values: jax.Array

    def __call__(self, count):
        return self.values[jnp.minimum(count, 2)]


def test_a_schedule_may_hold_an_array():
    w = state(1.0)
    ours = default_optimizer({"w": w}, lr=Table(jnp.array([0.5, 0.25, 0.125])))
    for _ in range(2):
        ours.update({"w": ONE})
    assert ours.current_lr == 0.125
    assert_near_exact(w.value, [1.0], [[1.0]] * 2, lrs=[0.5, 0.25], rho=0.9, eps=1e-6)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_a_schedule_may_read_a_state(compiled):
    factor, w = brainstate.ShortTermState(jnp.array(1.0)), state(1.0)
    ours = default_optimizer({"w": w}, lr=lambda count: factor.value / (1 + count))
    step = lambda: ours.update({"w": ONE})
    step = brainstate.transform.jit(step) if compiled else step
    step()
    factor.value = jnp.array(0.5)
    step()
    assert_near_exact(w.value, [1.0], [[1.0]] * 2, lrs=[1.0, 0.25], rho=0.9, eps=1e-6)


# ------------------------------------------------------------------------------------------------------ our scheduler


@pytest.mark.parametrize("bad", [-1, float("nan"), "x", None, True], ids=repr)
def test_epochs_that_are_none(bad):
    with pytest.raises(ValueError, match="^last_epoch = .* is not allowed: it must be a finite number >= 0"):
        LRScheduler(0.5, last_epoch=bad)
    scheduler = LRScheduler(lambda epoch: 0.5**epoch)
    with pytest.raises(ValueError, match="^epoch = .* is not allowed"):
        scheduler.step("x" if bad is None else bad)
    assert scheduler.last_epoch.value == 0


def test_an_epoch_without_an_lr_is_not_entered():
    scheduler = LRScheduler(lambda epoch: 1.0 - epoch)
    scheduler.step()
    with pytest.raises(ValueError, match="^lr = .*-1.* is not allowed"):
        scheduler.step()
    assert scheduler.last_epoch.value == 1 and scheduler.get_last_lr() == [0.0]


# --------------------------------------------------------------------------------------------- braintools' schedulers


def trained(make, how, steps=6):
    """Step optimizer and scheduler; return the parameter, the lrs in force at each step, and the optimizer."""
    w, scheduler = state(4.0), make()
    ours = optimizer({"w": w}, lr=scheduler)
    arguments = (jnp.float32(1.0),) if isinstance(scheduler, LR.ReduceLROnPlateau) else ()

    def one(_):
        lr = jnp.asarray(scheduler.get_last_lr()[0], jnp.float32)
        ours.update({"w": jnp.ones(1)})
        scheduler.step(*arguments)
        return lr

    f = {"eager": one, "jit": jit(one)}.get(how)
    lrs = [f(0) for _ in range(steps)] if f else brainstate.transform.for_loop(one, jnp.arange(steps))
    return w, [float(lr) for lr in lrs], ours


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("how", ["eager", "jit", "for_loop"])
def test_schedulers_of_braintools(name, how):
    alone = SCHEDULERS[name]()
    arguments = (1.0,) if name == "ReduceLROnPlateau" else ()
    expected = []
    for _ in range(6):
        expected.append(float(alone.get_last_lr()[0]))
        alone.step(*arguments)
    if name == "SequentialLR" and how != "eager":
        with pytest.raises(TypeError, match="SequentialLR cannot be stepped inside jit, for_loop or scan: .* outside"):
            trained(SCHEDULERS[name], how)
        return
    w, lrs, ours = trained(SCHEDULERS[name], how)
    np.testing.assert_allclose(lrs, expected, rtol=1e-5, atol=1e-6)  # XLA's powers and cosines, compiled or not
    near(w.value, [4.0], [[1.0]] * 6, lrs=lrs)
    assert ours.current_lr == ours.param_groups[0]["lr"].value == ours.lr.get_last_lr()[0]
    assert float(Adadelta(lr=SCHEDULERS[name]()).current_lr) == lrs[0]  # what is in force is shown from the start
    assert len(set(expected)) > 1


def test_a_refused_trace_leaves_the_optimizer_usable():
    w = state(4.0)
    ours = optimizer({"w": w}, lr=SCHEDULERS["SequentialLR"]())
    with pytest.raises(TypeError, match="SequentialLR cannot be stepped"):
        jit(ours.lr_scheduler.step)()
    ours.update({"w": jnp.ones(1)})
    near(w.value, [4.0], [[1.0]], lrs=[0.5])


def test_a_scheduler_has_base_lrs_that_may_be_lrs():
    with pytest.raises(ValueError, match="^lr = -1.0 is not allowed"):
        Adadelta(lr=braintools.optim.StepLR(-1.0))


@pytest.mark.parametrize("make", [lambda: braintools.optim.StepLR(1.0, 2), LRScheduler], ids=["StepLR", "LRScheduler"])
def test_a_scheduler_has_one_optimizer(make):
    scheduler = make()
    first = made(Adadelta, lr=scheduler)
    with pytest.raises(ValueError, match="is that of another optimizer, .* make one for each"):
        Adadelta(lr=scheduler)
    scheduler.step(), scheduler.step()
    assert scheduler.optimizer is first and first.current_lr == scheduler.get_last_lr()[0]
