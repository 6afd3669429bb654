"""Parameter groups: each has an lr and a decay, which are live; all follow one schedule."""

import copy

import brainstate
import braintools
import jax
import jax.numpy as jnp
import pytest
from helpers import ONE, OPTIONS, G, default_optimizer, everything, near, near_after_ones, optimizer, same, state, two

from braintools_adadelta import Adadelta, LRScheduler

LR = braintools.optim
jit = brainstate.transform.jit


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


def test_a_group_whose_accumulators_have_no_place_changes_nothing():
    ours = Adadelta(accumulator_sharding=lambda name, shape: "nowhere" if name == "b" else None)
    a, b = two()
    ours.register_trainable_weights({"a": a})
    before = everything(ours), len(ours.param_groups), list(ours.lr_scheduler.base_lrs)
    with pytest.raises(TypeError, match=r"accumulator_sharding\('b', \(1,\)\) gave 'nowhere'"):
        ours.add_param_group({"b": b}, lr=0.3)
    same((everything(ours), len(ours.param_groups), list(ours.lr_scheduler.base_lrs)), before)


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


def test_a_group_keeps_what_it_is_given_and_checks_what_it_uses():
    a, b = state(1.0), state(1.0)
    ours = default_optimizer({"a": a})
    ours.add_param_group(params={"b": b}, lr=0.5, name="head")
    group = ours.param_groups[1]
    group.update(weight_decay=0.25, lr=0.125)
    group |= {"note": "kept"}
    assert (group["name"], group["note"], group["lr"].value) == ("head", "kept", 0.125)
    assert copy.deepcopy(ours).param_groups[1]["name"] == "head"
    ours.update({"a": ONE, "b": ONE})
    near_after_ones(b.value, 1, lr=0.125, weight_decay=0.25)
    for bad in ({"lr": float("nan")}, {"weight_decay": -1.0}):
        with pytest.raises(ValueError, match=f"^{next(iter(bad))} = .* is not allowed"):
            group.update(bad)
    ours.lr_apply(apply_fn=lambda lr: lr / 2)
    assert ours.current_lr == 0.5


# --------------------------------------------------------------------------------------- compiled before a group came


@pytest.mark.parametrize("scheduler", [lambda: LR.StepLR([1.0, 0.0], 99), lambda: 1.0], ids=["base lrs", "a number"])
def test_a_compiled_step_sees_that_a_parameter_moved(scheduler):
    a, b = state(1.0), state(1.0)
    ours = default_optimizer({"a": a, "b": b}, lr=scheduler())
    train = jit(lambda: ours.update({"a": ONE, "b": ONE}))
    train()
    ours.add_param_group({"b": b}, lr=0.0)
    before = b.value
    train()
    assert b.value == before
    near_after_ones(a.value, 2)


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


# ---------------------------------------------------------------------------------------------------------- schedules

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


def test_an_lr_that_a_chained_scheduler_divides_by_is_refused():
    ours = default_optimizer({"a": state(1.0)}, lr=LR.ChainedScheduler([LR.StepLR(1.0, 1), LR.ExponentialLR(1.0, 0.5)]))
    before = repr(jax.tree.map(float, ours.lr_scheduler.state_dict()))
    with pytest.raises(ValueError, match="lr = 0.0 is not allowed beside ChainedScheduler, which divides by it"):
        ours.add_param_group({"b": state(1.0)}, lr=0.0)
    assert repr(jax.tree.map(float, ours.lr_scheduler.state_dict())) == before and len(ours.param_groups) == 1
    ours.add_param_group({"b": state(1.0)}, lr=0.5)
