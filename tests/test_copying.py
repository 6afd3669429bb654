"""Copies by deepcopy, copy, pickle, cloudpickle and dill: detached, and linked to a model again."""

import copy
import pickle
import subprocess
import sys
from functools import partial

import brainstate
import braintools
import cloudpickle
import dill
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import saiunit as u
from helpers import ONE, G, default_optimizer, everything, near, near_after_ones, optimizer, same, state, two
from schedules import SCHEDULERS

from braintools_adadelta import Adadelta, LRScheduler

LR = braintools.optim
jit = brainstate.transform.jit


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


def test_a_compiled_step_of_a_copy_sees_the_model_that_it_is_linked_to():
    twin = copy.deepcopy(default_optimizer({"w": state(1.0)}))
    train = jit(lambda: twin.update({"w": ONE}))
    train()
    w = state(5.0)
    twin.register_trainable_weights({"w": w})
    train()
    assert 4.99 < w.value < 5.0


def test_a_copy_links_a_parameter_to_a_new_group():
    twin = copy.deepcopy(default_optimizer({"a": state(1.0), "b": state(1.0)}))
    a, b = state(1.0), state(1.0)
    twin.register_trainable_weights({"a": a})
    twin.add_param_group({"b": b}, lr=0.0)
    twin.update({"a": ONE, "b": ONE})
    assert b.value == 1.0 and [list(group["params"]) for group in twin.param_groups] == [["a"], ["b"]]
    near_after_ones(a.value, 1)


def test_a_shallow_copy_trains_the_same_model():
    w = state(1.0)
    ours = default_optimizer({"w": w})
    copy.copy(ours).update({"w": ONE})
    ours.update({"w": ONE})
    near_after_ones(w.value, 2)


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
    twin = how(default_optimizer({"w": Clamped(ONE, 0.999)}))
    twin.update({"w": ONE})
    assert twin.param_states["w"].value[0] == np.float32(0.999)


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


# ---------------------------------------------------------------------------------------------------------- schedules


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
