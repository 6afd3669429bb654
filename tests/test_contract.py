"""Where braintools' Adadelta breaks and ours does not: groups, schedulers, live options, special parameters, copies."""

import copy
import inspect
import pickle
import subprocess
import sys
from functools import partial

import brainstate
import braintools
import cloudpickle
import dill
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import saiunit as u
from exactly import assert_near_exact

from braintools_adadelta import Adadelta, LRScheduler, scale_by_adadelta
from braintools_adadelta.oracle.bounds import PLAIN
from braintools_adadelta.spec import SIGNATURE

OPTIONS = {"rho": 5 / 8, "eps": 1.0}
LR = braintools.optim
jit = brainstate.transform.jit


def state(*values, dtype=None):
    return brainstate.ParamState(jnp.array(values, dtype))


def optimizer(states, **options):
    return Adadelta(**(OPTIONS | options)).register_trainable_weights(states)


def everything(ours):
    """Return a copy of all that an optimizer and its parameters hold."""
    values = {name: s.value for name, s in ours.param_states.items()}
    return jax.tree.map(np.array, (values, ours.state_dict(), [group["lr"].value for group in ours.param_groups]))


def same(got, want):
    jax.tree.map(np.testing.assert_array_equal, got, want)


def near(got, start, grads, **options):
    assert_near_exact(got, start, grads, form=PLAIN, **(OPTIONS | options))


# ------------------------------------------------------------------------------------------------------------- groups

G = [{"a": jnp.array([8.0, 1.0]), "b": jnp.array([3.0])}, {"a": jnp.array([6.0, -2.0]), "b": jnp.array([-3.0])}]


def two():
    return state(4.0, 2.0), state(1.0)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_each_group_is_stepped_by_adadelta_with_its_own_lr_and_decay(compiled):
    a, b = two()
    ours = optimizer({"a": a}, weight_decay=0.25)
    assert ours.add_param_group({"b": b}, lr=0.5, weight_decay=0.0) is None
    update = jit(ours.update) if compiled else ours.update
    for g in G:
        update(g)
    near(a.value, [4.0, 2.0], [g["a"] for g in G], weight_decay=0.25)
    near(b.value, [1.0], [g["b"] for g in G], lrs=[0.5, 0.5])
    assert [sorted(group["params"]) for group in ours.param_groups] == [["a"], ["b"]]


def test_one_norm_over_all_groups():
    """Groups of equal lr and decay are no groups: the same numbers, bit by bit."""
    (a, b), (c, d) = two(), two()
    options = {"grad_clip_norm": 2.0, "grad_clip_value": 1.5, "weight_decay": 0.1}
    ours, plain = optimizer({"a": a}, **options), optimizer({"a": c, "b": d}, **options)
    ours.add_param_group({"b": b})
    for g in G:
        ours.update(g), plain.update(g)
    same((a.value, b.value), (c.value, d.value))


def test_a_registered_parameter_moves_with_its_accumulators():
    a, b = two()
    ours = optimizer({"a": a, "b": b})
    ours.update(G[0])
    ours.add_param_group({"any name": b}, lr=0.5)
    ours.register_trainable_weights({"a": a, "b": b})  # stays where it is
    ours.update(G[1])
    near(b.value, [1.0], [g["b"] for g in G], lrs=[1.0, 0.5])
    assert [sorted(group["params"]) for group in ours.param_groups] == [["a"], ["b"]]


@pytest.mark.parametrize("bad", [{"lr": -1.0}, {"weight_decay": float("nan")}, {"lr": "x"}, {}], ids=str)
def test_a_group_that_is_refused_changes_nothing(bad):
    (a, b), c = two(), state(1.0)
    ours = optimizer({"a": a})
    ours.add_param_group({"b": b})
    before = everything(ours)
    with pytest.raises(ValueError, match=f"^{next(iter(bad), '')}.* = |parameter 'b' is in an added group already"):
        ours.add_param_group({"c": c} if bad else {"c": c, "b": b}, **bad)
    assert len(ours.param_groups) == 2 and len(ours.lr_scheduler.base_lrs) == 2
    same(everything(ours), before)


def test_nested_groups_and_registering_after_adding_one():
    a, b, c = *two(), state(1.0)
    ours = Adadelta(**OPTIONS)
    with pytest.raises(ValueError, match=r"call register_trainable_weights\(\) before add_param_group"):
        ours.add_param_group({"x": {"b": b}}, lr=0.5)
    ours.register_trainable_weights({"a": a})
    ours.add_param_group({"x": {"b": b}}, lr=0.5)
    ours.register_trainable_weights({"a": a, "c": c})
    ours.update({"a": G[0]["a"], "c": G[0]["b"], "x": {"b": G[0]["b"]}})
    near(b.value, [1.0], [G[0]["b"]], lrs=[0.5])
    near(c.value, [1.0], [G[0]["b"]])


SET = {
    "lr state": lambda group: setattr(group["lr"], "value", 0.25),
    "lr": lambda group: group.__setitem__("lr", 0.25),
}


@pytest.mark.parametrize("how", SET)
@pytest.mark.parametrize("index", [0, 1])
def test_the_lr_of_a_group_is_live(how, index):
    a, b = two()
    ours = optimizer({"a": a})
    ours.add_param_group({"b": b})
    update = jit(ours.update)
    update(G[0])
    SET[how](ours.param_groups[index])
    update(G[1])
    ends = [[1.0, 0.25], [1.0, 1.0]]
    near(a.value, [4.0, 2.0], [g["a"] for g in G], lrs=ends[index])
    near(b.value, [1.0], [g["b"] for g in G], lrs=ends[1 - index])
    assert ours.current_lr == ends[index][1] and ours.param_groups[0]["lr"] is ours._current_lr
    with pytest.raises(ValueError, match="^lr = nan"):
        ours.param_groups[index]["lr"] = float("nan")


def test_the_decay_of_a_group_is_live_in_a_compiled_loop():
    a, b = two()
    ours = optimizer({"a": a})
    ours.add_param_group({"b": b})
    update = jit(ours.update)
    update(G[0])
    ours.param_groups[1]["weight_decay"] = 0.5
    middle, memory = b.value, ours.opt_state.value
    update(G[1])
    again = state(*middle.tolist())
    other = optimizer({"b": again}, weight_decay=0.5)
    other.opt_state.value = type(memory)(*({"b": tree["b"]} for tree in memory))
    other.update(G[1])
    same(b.value, again.value)
    with pytest.raises(ValueError, match="^weight_decay = -1"):
        ours.param_groups[1]["weight_decay"] = -1


SCHEDULED = {  # lr, what add_param_group is given -> lrs of the two groups, before and after a step of the scheduler
    "braintools, base lrs": (lambda: LR.StepLR([1.0, 0.5], step_size=1, gamma=0.5), {}, [1, 0.5], [0.5, 0.25]),
    "braintools, lr": (lambda: LR.StepLR(1.0, step_size=1, gamma=0.5), {"lr": 0.25}, [1, 0.25], [0.5, 0.125]),
    "braintools, neither": (lambda: LR.StepLR(1.0, step_size=1, gamma=0.5), {}, [1, 1], [0.5, 0.5]),
    "chained": (lambda: LR.ChainedScheduler([LR.StepLR(1.0, 1, 0.5)] * 1), {"lr": 0.25}, [1, 0.25], [0.5, 0.125]),
    "a list, and an lr": (
        lambda: LR.StepLR([1.0, 0.5, 0.25], step_size=1, gamma=0.5),
        {"lr": 0.5},
        [1, 0.5],
        [0.5, 0.25],
    ),
    "cyclic, max lrs": (lambda: LR.CyclicLR([0.5, 0.25], [1.0, 0.5], step_size_up=1), {}, [0.5, 0.25], [1, 0.5]),
    "cyclic, max lr": (lambda: LR.CyclicLR(0.5, max_lr=1.0, step_size_up=1), {"lr": 0.5}, [0.5, 0.25], [1, 0.5]),
    "one cycle, max lr": (
        lambda: LR.OneCycleLR(max_lr=1.0, total_steps=4, pct_start=0.25, div_factor=4.0),
        {"lr": 0.5},
        [0.25, 0.125],
        [1, 0.5],
    ),
    "ours": (lambda: LRScheduler(lambda epoch: 0.5**epoch), {}, [1, 1], [0.5, 0.5]),
    "ours, lr": (lambda: LRScheduler(lambda epoch: 0.5**epoch), {"lr": 0.25}, [1, 0.25], [0.5, 0.25]),
    "a number": (lambda: 1.0, {"lr": 0.25}, [1, 0.25], [1, 0.25]),
}


@pytest.mark.parametrize("kind", SCHEDULED)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_every_group_follows_the_schedule(kind, compiled):
    make, given, before, after = SCHEDULED[kind]
    a, b = two()
    ours = optimizer({"a": a}, lr=make())
    ours.add_param_group({"b": b}, **given)
    update, step = (
        (jit(ours.update), jit(ours.lr_scheduler.step)) if compiled else (ours.update, ours.lr_scheduler.step)
    )
    update(G[0]), step(), update(G[1])
    for s, x, k, name in ((a, [4.0, 2.0], 0, "a"), (b, [1.0], 1, "b")):
        near(s.value, x, [g[name] for g in G], lrs=[before[k], after[k]])
    assert [float(group["lr"].value) for group in ours.param_groups] == after


@pytest.mark.parametrize("given", [{}, {"lr": lambda step: 0.5 / (1 + step)}], ids=["the same", "another"])
def test_a_group_follows_a_function_of_the_step_count(given):
    a, b = two()
    ours = optimizer({"a": a}, lr=lambda step: 1 / (1 + step))
    ours.add_param_group({"b": b}, **given)
    brainstate.transform.for_loop(ours.update, jax.tree.map(lambda *x: jnp.stack(x), *G))
    first = 0.5 if given else 1.0
    near(a.value, [4.0, 2.0], [g["a"] for g in G], lrs=[1.0, 0.5])
    near(b.value, [1.0], [g["b"] for g in G], lrs=[first, first / 2])


def test_a_function_beside_a_scheduler_of_braintools_is_refused():
    ours = optimizer({"a": state(1.0)}, lr=LR.StepLR(1.0))
    with pytest.raises(TypeError, match="is not allowed beside StepLR: pass a number, .* or give .* a list of base_lr"):
        ours.add_param_group({"b": state(1.0)}, lr=lambda step: 0.1)
    assert len(ours.param_groups) == 1 and set(ours.param_states) == {"a"}


@pytest.mark.parametrize(
    "lr", [lambda: 1.0, lambda: LR.StepLR(1.0), lambda: lambda step: 1.0], ids=["1", "StepLR", "f"]
)
@pytest.mark.parametrize("given", [LR.StepLR(1.0), LRScheduler(1.0)], ids=["braintools", "ours"])
def test_a_scheduler_for_a_group_is_refused(lr, given):
    """braintools' schedulers can be called, and give -lr: the group would climb."""
    ours = optimizer({"a": state(1.0)}, lr=lr())
    before = everything(ours)
    with pytest.raises((TypeError, ValueError), match="^lr = .* is not allowed.*a number"):
        ours.add_param_group({"b": state(1.0)}, lr=given)
    same(everything(ours), before)
    with pytest.raises(TypeError, match="an optimizer has one scheduler"):
        LRScheduler(LR.StepLR(1.0))


ADDING = {
    "register": lambda ours, b: ours.register_trainable_weights({"b": b}),
    "add a group": lambda ours, b: ours.add_param_group({"b": b}),
}


@pytest.mark.parametrize("how", ADDING)
def test_nothing_is_added_inside_a_trace_that_the_optimizer_is_older_than(how):
    a, b = two()
    ours = optimizer({"a": a})
    before = everything(ours)
    for transform in (jit, lambda f: lambda: brainstate.transform.for_loop(lambda _: f(), jnp.arange(2))):
        with pytest.raises(TypeError, match="inside jit, for_loop or scan, and the optimizer was made outside"):
            transform(lambda: (ADDING[how](ours, b), None)[1])()
    with pytest.raises(TypeError, match="a state cannot be loaded inside jit, for_loop or scan, and the optimizer was"):
        jit(lambda: ours.load_state_dict(ours.state_dict()))()
    same(everything(ours), before)
    jit(lambda: (ours.register_trainable_weights({"a": a}), None)[1])()  # is known: nothing is added

    def inside():
        ours = optimizer({"a": a})
        ADDING[how](ours, b)
        ours.update(G[0])

    jit(inside)()
    near(a.value, [4.0, 2.0], [G[0]["a"]])
    near(b.value, [1.0], [G[0]["b"]])


# ------------------------------------------------------------------------------------- braintools' seventeen schedulers

SCHEDULERS = {
    "StepLR": lambda: LR.StepLR(1.0, step_size=2, gamma=0.5),
    "MultiStepLR": lambda: LR.MultiStepLR(1.0, milestones=[2, 4], gamma=0.5),
    "ExponentialLR": lambda: LR.ExponentialLR(1.0, gamma=0.5),
    "ExponentialDecayLR": lambda: LR.ExponentialDecayLR(1.0, decay_steps=2, decay_rate=0.5),
    "CosineAnnealingLR": lambda: LR.CosineAnnealingLR(1.0, T_max=6),
    "PolynomialLR": lambda: LR.PolynomialLR(1.0, total_iters=8),
    "WarmupScheduler": lambda: LR.WarmupScheduler(1.0, warmup_epochs=3),
    "CyclicLR": lambda: LR.CyclicLR(0.1, max_lr=1.0, step_size_up=2),
    "OneCycleLR": lambda: LR.OneCycleLR(max_lr=1.0, total_steps=8),
    "ReduceLROnPlateau": lambda: LR.ReduceLROnPlateau(1.0, patience=1, factor=0.5),
    "LinearLR": lambda: LR.LinearLR(1.0, start_factor=0.25, total_iters=4),
    "ConstantLR": lambda: LR.ConstantLR(1.0, factor=0.5, total_iters=3),
    "ChainedScheduler": lambda: LR.ChainedScheduler([LR.StepLR(1.0, 2, 0.5), LR.ExponentialLR(1.0, gamma=0.9)]),
    "CosineAnnealingWarmRestarts": lambda: LR.CosineAnnealingWarmRestarts(1.0, T_0=3),
    "WarmupCosineSchedule": lambda: LR.WarmupCosineSchedule(1.0, warmup_steps=2, total_steps=6),
    "PiecewiseConstantSchedule": lambda: LR.PiecewiseConstantSchedule(1.0, boundaries=[2, 4], values=[1.0, 0.5, 0.25]),
    "SequentialLR": lambda: LR.SequentialLR(
        [LR.ConstantLR(1.0, factor=0.5, total_iters=9), LR.ExponentialLR(1.0, gamma=0.5)], milestones=[3]
    ),
}
assert (
    len(SCHEDULERS) == len([x for x in vars(LR).values() if isinstance(x, type) and issubclass(x, LR.LRScheduler)]) - 1
)


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


# ------------------------------------------------------------------------------------------------- live hyperparameters

CHANGES = {
    "rho": 0.25, "eps": 0.5, "weight_decay": 0.5, "grad_clip_norm": 0.5, "grad_clip_value": 0.5, "nonfinite": "skip",
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_hyperparameter_is_seen_inside_a_compiled_loop(name):
    (w, v), traces = (state(4.0, 2.0), state(4.0, 2.0)), []
    ours, eager = optimizer({"w": w}), optimizer({"w": v})
    bad = name == "nonfinite"

    @jit
    def train(g):
        traces.append(1)
        ours.update({"w": g})

    g = jnp.array([8.0, 1.0])
    train(g), eager.update({"w": g})
    traces.clear()
    setattr(ours, name, CHANGES[name]), setattr(eager, name, CHANGES[name])
    for _ in range(3):
        train(g / 0 if bad else g), eager.update({"w": g / 0 if bad else g})
    assert getattr(ours, name) == CHANGES[name] and len(traces) == (name not in ("rho", "eps"))  # those are on already
    np.testing.assert_allclose(w.value, v.value, rtol=1e-6)
    assert np.isfinite(w.value).all() and int(ours.skipped_steps.value) == (3 if bad else 0)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize(
    "transform", [jit, lambda f: lambda: brainstate.transform.for_loop(lambda _: f(), jnp.arange(2))]
)
def test_a_constant_cannot_be_set_inside_a_trace(name, transform):
    w = state(4.0)
    ours = optimizer({"w": w})

    def train():
        setattr(ours, name, CHANGES[name])
        ours.update({"w": jnp.array([8.0])})

    before = everything(ours), ours.options
    with pytest.raises(TypeError, match=f"^{name} cannot be set inside jit, for_loop or scan: .* between two calls"):
        transform(train)()
    same(everything(ours), before[0])
    assert ours.options == before[1]
    train()


def test_the_lr_may_be_set_inside_a_trace():
    w = state(4.0)
    ours = optimizer({"w": w})

    def train(lr):
        ours.current_lr = lr
        ours.update({"w": jnp.array([8.0])})

    brainstate.transform.for_loop(train, jnp.array([1.0, 0.5]))
    near(w.value, [4.0], [[8.0], [8.0]], lrs=[1.0, 0.5])
    assert ours.current_lr == 0.5


def test_a_compiled_step_picks_up_parameters_and_groups():
    """The gradients have the same form all the time: what is registered decides."""
    a, b, c = state(4.0), state(4.0), state(4.0)
    ours = optimizer({"a": a})
    g = [8.0]
    train = jit(lambda g: ours.update({"a": g, "b": g, "c": g}))
    train(jnp.array(g))
    ours.register_trainable_weights({"b": b})
    train(jnp.array(g))
    ours.add_param_group({"c": c}, lr=0.5)
    train(jnp.array(g))
    ours.add_param_group({"b": b}, lr=0.25)
    train(jnp.array(g))
    near(a.value, [4.0], [g] * 4)
    near(b.value, [4.0], [g] * 3, lrs=[1.0, 1.0, 0.25])
    near(c.value, [4.0], [g] * 2, lrs=[0.5, 0.5])


def test_one_minus_rho_stays_in_double_precision():
    w = state(4.0)
    ours = optimizer({"w": w})
    train = jit(ours.update)
    train({"w": jnp.array([8.0])})
    ours.rho = 0.999
    ours.opt_state.value = jax.tree.map(jnp.zeros_like, ours.opt_state.value)
    train({"w": jnp.array([1.0])})
    assert ours.opt_state.value.e_g2["w"][0] == np.float32(1 - 0.999)


# ----------------------------------------------------------------------------------------------------------- not finite

BAD = [float("nan"), float("inf"), -float("inf")]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("options", [{}, {"grad_clip_norm": 1.0, "weight_decay": 0.1}], ids=["plain", "doors"])
def test_a_skipped_step_leaves_everything_as_it_was(bad, compiled, options):
    a, b = two()
    ours = optimizer({"a": a, "b": b}, nonfinite="skip", lr=lambda step: 1 / (1 + step), **options)
    update = jit(ours.update) if compiled else ours.update
    update(G[0])
    before = everything(ours)
    update({"a": jnp.array([bad, 1.0]), "b": jnp.ones(1)})
    values, saved, lrs = everything(ours)
    assert saved.pop("skipped_steps") == 1 and before[1].pop("skipped_steps") == 0
    same((values, saved, lrs), before)
    again = everything(ours)
    ours.load_state_dict(ours.state_dict())
    same(everything(ours), again)


@pytest.mark.parametrize("bad", BAD)
def test_by_default_it_propagates_to_its_component_alone(bad):
    a, b = two()
    ours = optimizer({"a": a, "b": b})
    ours.update({"a": jnp.array([bad, 1.0]), "b": jnp.ones(1)})
    near(a.value[1:], [2.0], [[1.0]])
    near(b.value, [1.0], [[1.0]])
    assert not np.isfinite(ours.opt_state.value.e_g2["a"][0]) and ours.skipped_steps.value == 0


@pytest.mark.parametrize("value", ["Skip", None, 1, ["skip"]], ids=repr)
def test_nonfinite_is_one_of_two(value):
    with pytest.raises(ValueError, match=r"^nonfinite = .* is not allowed: it must be 'propagate' or 'skip'"):
        Adadelta(nonfinite=value)


def test_options_of_our_own_are_keyword_only():
    with pytest.raises(TypeError, match="positional"):
        Adadelta(1.0, 0.9, 1e-6, 0.0, None, None, "skip")


# ----------------------------------------------------------------------------------------------------------- 16 bits

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


def test_float32_parameters_with_x64_stay_float32():
    with jax.enable_x64(True):
        w, v = state(4.0, dtype=jnp.float32), state(4.0, dtype=jnp.float64)
        ours = optimizer({"w": w, "v": v}, lr=optax.exponential_decay(1.0, 2, 0.5))
        for _ in range(2):
            brainstate.transform.for_loop(lambda _: ours.update({"w": np.ones(1), "v": np.ones(1)}), jnp.arange(2))
        memory = ours.opt_state.value
        assert {k: x.dtype.name for k, x in memory.e_g2.items()} == {"w": "float32", "v": "float64"}
        assert w.value.dtype == jnp.float32 and v.value.dtype == jnp.float64


# ------------------------------------------------------------------------------------------------------------- complex


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


# --------------------------------------------------------------------------------------------------------------- units


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


def test_units_are_not_imported():
    code = "import sys, braintools_adadelta.leaf as leaf; assert not hasattr(leaf, 'u')"
    subprocess.run([sys.executable, "-c", code], check=True)


# -------------------------------------------------------------------------------------------------------------- copies


def half(count):
    """A schedule that can be pickled."""
    return 1 / (1 + count)


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda x: pickle.loads(pickle.dumps(x))}
LRS = {
    "number": lambda: 0.5, "function": lambda: half, "ours": lambda: LRScheduler(half),
    "StepLR": lambda: LR.StepLR(1.0, step_size=1, gamma=0.5), "chained": SCHEDULERS["ChainedScheduler"],
}  # fmt: skip


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("lr", LRS)
def test_a_copy_is_detached_and_goes_on_when_it_is_linked(how, lr):
    a, b = two()
    z = brainstate.ParamState(jnp.array(2.0 + 1j) * u.mV)
    ours = optimizer({"a": a, "z": z}, lr=LRS[lr](), nonfinite="skip", grad_clip_norm=3.0)
    ours.add_param_group({"b": b}, weight_decay=0.25)
    g = [x | {"z": jnp.array(1.0 - 2j) * u.mV} for x in G]
    ours.update(g[0]), ours.lr_scheduler.step()
    before, twin = everything(ours)[1:], COPIES[how](ours)
    same(everything(twin)[1:], before)
    assert twin.lr_scheduler is not ours.lr_scheduler and twin.lr_scheduler.optimizer is twin
    held = {id(s) for s in brainstate.graph.states(ours).values()}
    assert not held & {id(s) for s in brainstate.graph.states(twin).values()}
    twin.update(g[1]), twin.lr_scheduler.step()  # the copy's own States
    same(everything(ours)[1:], before)

    twin = COPIES[how](ours)
    model = {name: brainstate.ParamState(s.value) for name, s in ours.param_states.items()}
    twin.register_trainable_weights(model)
    assert all(twin.param_states[name] is model[name] for name in model) and len(twin.param_groups) == 2
    for each in (ours, twin):
        each.update(g[1]), each.lr_scheduler.step(), each.update(g[0])
    same(everything(twin)[1:], everything(ours)[1:])
    with pytest.raises(ValueError, match="two States are named 'a'"):
        twin.register_trainable_weights({"a": state(4.0, 2.0)})


def test_a_copy_is_not_linked_to_another_model():
    twin = copy.deepcopy(optimizer({"a": state(1.0, 2.0)}))
    with pytest.raises(ValueError, match=r"parameter 'a' has the shapes .*\(3,\).*, its accumulators .*\(2,\)"):
        twin.register_trainable_weights({"a": state(1.0, 2.0, 3.0)})
    assert twin.param_states["a"].value.shape == (2,)


class Local:
    """A schedule of a class; a local one cannot be pickled."""

    def __call__(self, count):
        return 1 / (1 + count)


UNNAMED = {
    "function": lambda: lambda step: 0.5,
    "scheduler": lambda: LRScheduler(lambda epoch: 0.5),
    "part of a scheduler": lambda: LR.ChainedScheduler([LR.CyclicLR(0.5, max_lr=1.0, scale_fn=lambda x: 1.0)]),
    "optax": lambda: optax.cosine_decay_schedule(0.5, 10),
    "partial": lambda: partial(lambda k, count: k + 0 * count, 0.5),
    "object": lambda: type("L", (Local,), {})(),
}


@pytest.mark.parametrize("kind", UNNAMED)
def test_the_pickler_decides_what_becomes_of_a_schedule(kind):
    """The one of the standard library wants a name that can be imported; cloudpickle and dill take code."""
    ours = optimizer({"a": state(1.0)}, lr=UNNAMED[kind]())
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda|schedule|L"):
        pickle.dumps(ours)
    for pickler in (cloudpickle, dill):
        again = pickler.loads(pickler.dumps(ours))
        assert again.current_lr == ours.current_lr and again.param_states["a"] is not ours.param_states["a"]
        again.update({"a": jnp.ones(1)})
    copy.deepcopy(ours).update({"a": jnp.ones(1)})


WORKER = """
import sys, pickle
ours = pickle.load(open(sys.argv[1], "rb"))
assert type(ours).__name__ == "Mine" and ours.current_lr == 0.25
ours.update({"w": ours.param_states["w"].value})
"""
MAIN = """
import sys, cloudpickle, brainstate, jax.numpy as jnp, braintools_adadelta

class Mine(braintools_adadelta.Adadelta):
    pass

def falling(step):
    return 0.25 / (1 + step)

ours = Mine(lr=falling).register_trainable_weights({"w": brainstate.ParamState(jnp.ones(2))})
with open(sys.argv[1], "wb") as file:
    cloudpickle.dump(ours, file)
"""


def test_what_main_defines_reaches_another_process(tmp_path):
    for script in (MAIN, WORKER):
        subprocess.run([sys.executable, "-c", script, str(tmp_path / "ours")], check=True)
    assert pickle.loads(pickle.dumps(optimizer({"a": state(1.0)}, lr=Local()))).current_lr == 1


def test_a_scheduler_of_ours_has_one_optimizer():
    scheduler = LRScheduler(half)
    ours = optimizer({"a": state(1.0)}, lr=scheduler)
    with pytest.raises(ValueError, match="this LRScheduler is that of another optimizer, .*: make one for each"):
        Adadelta(lr=scheduler)
    scheduler.attach_optimizer(ours)
    for how in COPIES.values():
        twin = how(ours)
        twin.lr_scheduler.attach_optimizer(twin)
        twin.load_state_dict(ours.state_dict())
    assert scheduler.optimizer is ours


def test_a_copy_by_the_graph_is_refused_when_it_is_used():
    ours = optimizer({"a": state(4.0)})
    twin = brainstate.graph.clone(ours)
    assert repr(twin).startswith("<braintools_adadelta.optimizer.Adadelta object")
    for use in (lambda: twin.update({"a": jnp.ones(1)}), lambda: twin.rho, lambda: twin.weight_decay, twin.state_dict):
        with pytest.raises(TypeError, match=r"cannot be copied by brainstate.graph.clone .*: take copy.deepcopy"):
            use()
    ours.update({"a": jnp.array([8.0])})
    near(ours.param_states["a"].value, [4.0], [[8.0]])
    with pytest.raises(AttributeError, match="'Adadelta' object has no attribute 'momentum'"):
        _ = ours.momentum


# ------------------------------------------------------------------------------------------------- what a user sees


def test_an_optimizer_is_shown_in_a_line():
    ours = optimizer({"a": state(1.0)}, lr=lambda step: 0.5, grad_clip_norm=2.0)
    want = (
        "lr=0.5, rho=0.625, eps=1.0, weight_decay=0.0, grad_clip_norm=2.0, grad_clip_value=None, nonfinite='propagate'"
    )
    assert repr(ours) == f"<Adadelta({want}), 1 parameters>"
    seen = []
    jit(lambda: seen.append(repr(ours)))()
    assert "Tracer" in seen[0]


def test_the_signature_is_that_of_the_constructor():
    class Mine(Adadelta):
        def __init__(self, depth, *, width=1):
            super().__init__()

    assert list(inspect.signature(Adadelta).parameters) == [*SIGNATURE, "nonfinite", "accumulator_dtype"]
    assert str(inspect.signature(Mine)) == "(depth, *, width=1)"


def test_lr_is_the_scheduler_and_is_not_set():
    ours = optimizer({"a": state(1.0)})
    with pytest.raises(AttributeError, match="lr is the scheduler and cannot be set: set current_lr = 0.1"):
        ours.lr = 0.1
    assert ours.lr is ours.lr_scheduler and ours.current_lr == 1.0


# ---------------------------------------------------------------------------------------------- beside braintools


@pytest.mark.parametrize("when", ["before", "after our class", "after an instance"])
def test_it_counts_as_an_optimizer_whenever_braintools_is_imported(when):
    code = {
        "before": "import braintools; from braintools_adadelta import Adadelta; o = Adadelta()",
        "after our class": "from braintools_adadelta import Adadelta; import braintools; o = Adadelta()",
        "after an instance": "import sys; from braintools_adadelta import Adadelta; o = Adadelta()\n"
        "assert 'braintools' not in sys.modules; import braintools",
    }[when] + "\nassert isinstance(o, braintools.optim.Optimizer) and isinstance(o, braintools.optim.OptaxOptimizer)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------- buffers that somebody else may hold

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


def test_wider_gradients_saturate_and_do_not_become_infinite():
    with jax.enable_x64(True):
        w = brainstate.ParamState(jnp.ones(2, jnp.float32))
        ours = Adadelta().register_trainable_weights({"w": w})
        ours.update({"w": jnp.array([1e200, -1e200])})
    first = 1e-3 / np.sqrt(0.1)  # sqrt(eps / (1 - rho)), as for every large gradient
    np.testing.assert_allclose(w.value, [1 - first, 1 + first], rtol=1e-6)


@pytest.mark.parametrize(("lr", "message"), [(jnp.ones(3), "must be a scalar"), (LRScheduler, "is a class")])
def test_an_lr_that_is_none(lr, message):
    w = brainstate.ParamState(jnp.ones(3))
    with pytest.raises((ValueError, TypeError), match=message):
        if message == "is a class":
            Adadelta(lr=lr)
        ours = Adadelta().register_trainable_weights({"w": w})
        brainstate.transform.jit(lambda lr: setattr(ours, "current_lr", lr))(lr)


def test_a_gradient_for_other_accumulators_is_refused():
    init, update = scale_by_adadelta()
    state = init({"a": jnp.ones(2)})
    with pytest.raises(ValueError, match="key"):
        update({"b": jnp.ones(2)}, state)
    with pytest.raises(ValueError, match=r"a gradient of shape \(3, 2\) meets accumulators of shape \(2,\)"):
        update({"a": jnp.ones((3, 2))}, state)
