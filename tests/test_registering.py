"""What can be registered, and when; where accumulators live."""

import os
import subprocess
import sys
from pathlib import Path

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare_with_oracle import assert_near_exact
from helpers import OPTIONS, G, default_optimizer, everything, made, near, optimizer, same, state, two

from braintools_adadelta import Adadelta
from braintools_adadelta.oracle.bounds import PLAIN

# These run with every braintools that is supported, though none names it.
pytestmark = pytest.mark.original
jit = brainstate.transform.jit


class Weight(brainstate.ParamState):
    """A State of a user's own."""


FORMS = {  # what is registered -> (the tree of States, the gradients for it)
    "dict": lambda s, g: ({"a": s[0], "b": s[1]}, {"a": g, "b": g}),
    "nested dict": lambda s, g: ({"x": {"a": s[0]}, "b": s[1]}, {"x": {"a": g}, "b": g}),
    "list": lambda s, g: ([s[0], s[1]], {0: g, 1: g}),
    "tuple": lambda s, g: ((s[0], s[1]), [g, g]),
    "tuple keys": lambda s, g: ({("x", "a"): s[0], ("b",): s[1]}, {("x", "a"): g, ("b",): g}),
    "FlattedDict": lambda s, g: (
        brainstate.util.FlattedDict({("x", "a"): s[0], ("b",): s[1]}),
        {("x", "a"): g, ("b",): g},
    ),
    "another State class": lambda s, g: ({"a": s[0], "b": s[1]}, {"a": g, "b": g}),
    "numpy gradients": lambda s, g: ({"a": s[0], "b": s[1]}, {"a": np.asarray(g), "b": np.asarray(g)}),
    "further keys": lambda s, g: ({"a": s[0], "b": s[1]}, {"a": g, "b": g, "c": g}),
    "tied": lambda s, g: ({"a": s[0], "again": s[0], "b": s[1]}, {"a": g, "b": g}),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_registering(form):
    states = [state(4.0, cls=Weight if form.startswith("another") else brainstate.ParamState) for _ in range(2)]
    tree, grads = FORMS[form](states, jnp.array([8.0]))
    ours = Adadelta(**OPTIONS)
    assert ours.register_trainable_weights(tree) is ours
    assert ours.update(grads) is None and ours.step(grads) is None
    for s in states:
        assert_near_exact(s.value, [4.0], [[8.0], [8.0]], form=PLAIN, **OPTIONS)
    assert len(ours.param_states) == 2 and int(ours.step_count.value) == 2


def test_a_state_may_hold_a_tree():
    layer = brainstate.nn.Linear(2, 3)
    states = layer.states(brainstate.ParamState)
    before = {k: s.value for k, s in states.items()}
    grads = jax.tree.map(jnp.ones_like, before)
    optimizer(states, **OPTIONS).update(grads)
    assert_near_exact({k: s.value for k, s in states.items()}, before, [grads], form=PLAIN, **OPTIONS)


def test_registering_again_keeps_accumulators_and_adds_what_is_new():
    a, b = state(4.0), state(4.0)
    ours = optimizer({"a": a}, **OPTIONS)
    memory, g = ours.opt_state, jnp.array([8.0])
    ours.update({"a": g})
    ours.register_trainable_weights({"a": a, "b": b})
    assert ours.opt_state is memory
    ours.update({"a": g, "b": g})
    assert_near_exact(a.value, [4.0], [[8.0], [8.0]], form=PLAIN, **OPTIONS)
    assert_near_exact(b.value, [4.0], [[8.0]], form=PLAIN, **OPTIONS)


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


# ------------------------------------------------------------------------------------------------------------ devices


def test_accumulators_take_shape_and_sharding_of_the_parameter():
    code = """
import copy, jax, jax.numpy as jnp, brainstate
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from braintools_adadelta import Adadelta
place = NamedSharding(Mesh(jax.devices(), "x"), P("x"))
w = brainstate.ParamState(jax.device_put(jnp.arange(8.0), place))
optimizer = Adadelta().register_trainable_weights({"w": w})
train = brainstate.transform.jit(lambda g: optimizer.update({"w": g}))
g = jax.device_put(jnp.ones(8), place)
for update in [lambda g: optimizer.update({"w": g})] * 3 + [train] * 3:
    update(g)
    for one in (optimizer, copy.deepcopy(optimizer)):
        for x in (one.param_states["w"].value, *(tree["w"] for tree in one.opt_state.value)):
            assert x.shape == (8,) and x.sharding.is_equivalent_to(place, 1), x.sharding
"""
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_parameters_on_different_devices():
    """Each is trained where it is; what needs all of them at once says where they are."""
    code = """
import jax, jax.numpy as jnp, brainstate
from compare_with_oracle import assert_near_exact
from braintools_adadelta import Adadelta
from braintools_adadelta.oracle.bounds import PLAIN
options = {"rho": 0.9, "eps": 1e-6, "weight_decay": 0.1, "grad_clip_value": 3.0}
a, b = (brainstate.ParamState(jax.device_put(jnp.array([4.0, -1.0]), device)) for device in jax.devices()[:2])
before = {"a": a.value, "b": b.value}
grads = {"a": jnp.array([8.0, 0.5]), "b": jax.device_put(jnp.ones(2), jax.devices()[1])}
optimizer = Adadelta(lr=lambda step: 0.5, **options).register_trainable_weights({"a": a, "b": b})
for _ in range(3):
    optimizer.update(grads)
assert_near_exact({"a": a.value, "b": b.value}, before, [grads] * 3, lr=0.5, form=PLAIN, **options)
for home, state in zip(jax.devices(), (a, b)):
    name = "a" if state is a else "b"
    assert {home} == state.value.devices() == optimizer.opt_state.value.e_g2[name].devices()
after = str((a.value, b.value, optimizer.state_dict()))
swapped, norm, skip = {"a": grads["b"], "b": grads["b"]}, {"grad_clip_norm": 1.0}, {"nonfinite": "skip"}
for given, options in ((swapped, {}), (grads, norm), (grads, skip)):
    for name, value in options.items():
        setattr(optimizer, name, value)
    try:
        optimizer.update(given)
    except ValueError as error:
        print(error)
    assert str((a.value, b.value, optimizer.state_dict())) == after
    optimizer.grad_clip_norm = None
Adadelta().register_trainable_weights({"b": b}).update({"b": jnp.ones(2)})
"""
    four = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    env = os.environ | four | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    of_one, *of_all = done.stdout.splitlines()
    said = "there is parameter 'a' on the devices [0] and {} on the devices [1]: a parameter, its gradient".format
    assert of_one.startswith(said("gradient 'a'"))
    assert len(of_all) == 2 and all(line.startswith(said("parameter 'b'")) for line in of_all)


# ----------------------------------------------------------------------------------------------------------- mistakes


class WithOptimizer(brainstate.nn.Module):
    """A model that holds its optimizer."""

    def __init__(self):
        super().__init__()
        self.line = brainstate.nn.Linear(1, 1)
        self.optimizer = default_optimizer(self.line.states(brainstate.ParamState))


@pytest.mark.parametrize(
    ("tree", "error", "message"),
    [
        (None, TypeError, "got None: pass a dict or list of States"),
        (brainstate.ParamState(1.0), TypeError, "pass a dict or list of States"),
        (brainstate.nn.Linear(9, 9), TypeError, r"^got Linear\(.{70}\.\.\.: pass a dict or .* model.states"),
        (brainstate.nn.Linear(9, 9).states, TypeError, "got <bound method .*: pass a dict or list of States"),
        ("abc", TypeError, "got 'abc': pass a dict or list of States"),
        (iter([]), TypeError, "got <list_iterator .*: pass a dict or list of States"),
        (jnp.ones(3), TypeError, "got Array.*: pass a dict or list of States"),
        ({"m": brainstate.nn.Linear(1, 1)}, TypeError, "'m' is Linear.*: pass its states"),
        (
            {"params": [state(1.0)], "lr": 0.1},
            TypeError,
            r"'lr' is 0.1: .* are arguments: add_param_group\(states, lr=",
        ),
        ({"w": brainstate.ParamState("x")}, TypeError, "parameter 'w' is 'x': it must be an array of numbers"),
        ({"w": brainstate.ParamState(None)}, ValueError, "no State in it holds an array, so there is nothing to train"),
        ({"w": brainstate.ParamState(jnp.ones(1, "float8_e5m2"))}, TypeError, "'w' has dtype float8_e5m2, which JAX"),
        (WithOptimizer().states(), TypeError, r"belongs to an optimizer: pass model.states\(brainstate.ParamState\)"),
        ({}, ValueError, "there is no State in it"),
        ([], ValueError, "there is no State in it"),
        ({"x": {"w": None}}, TypeError, "parameter 'x.w' is None: it must be a brainstate.State"),
        ({"w": 1.0}, TypeError, "parameter 'w' is 1.0: it must be a brainstate.State"),
        ({"w": brainstate.ParamState(jnp.arange(3))}, TypeError, "'w' has dtype int32: it must be floating-point"),
        ({"x": {"w": state(1.0)}, ("x", "w"): state(1.0)}, ValueError, "Comparator|two States are named 'x.w'"),
        ([{"0": state(1.0)}, {"0": state(1.0)}], None, ""),
    ],
    ids=lambda x: x if isinstance(x, str) else "",  # the message alone: others show addresses, new in every run
)
def test_what_cannot_be_registered(tree, error, message):
    ours = Adadelta()
    if error is None:
        assert ours.register_trainable_weights(tree).param_states.keys() == {"0.0", "1.0"}
        return
    with pytest.raises(error, match=message):
        ours.register_trainable_weights(tree)
    assert not ours.param_states and ours.opt_state is None


@pytest.mark.parametrize("what", [jnp.ones(2), np.ones(2)], ids=["jax", "numpy"])
def test_an_array_is_not_registered(what):
    with pytest.raises(TypeError, match="^got .*: pass a dict or list of States"):
        Adadelta().register_trainable_weights(what)


def test_registering_a_model_that_was_made_anew_says_what_to_do():
    ours = made(Adadelta)
    with pytest.raises(ValueError, match="two States are named 'w': .* make a new optimizer"):
        ours.register_trainable_weights({"w": state(1.0, 2.0)})
