"""What update() takes and refuses, what it counts, and that it is one step however it is called."""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ONE, default_optimizer, made, near_after_ones, state

from braintools_adadelta import Adadelta, scale_by_adadelta
from braintools_adadelta.conformance.adapters.brainstate import BrainstateAdadelta
from braintools_adadelta.conformance.cases import HYPER, SCALARS, SHAPES
from braintools_adadelta.conformance.judge import Case, misses
from braintools_adadelta.oracle.bounds import PLAIN

# These run with every braintools that is supported, though none names it.
pytestmark = pytest.mark.original


# ---------------------------------------------------------------------------------------------------------- gradients

MISTAKES = {  # gradients for {"w": (3, 2), "x": {"v": ()}} -> the error, what it says
    "missing": ({"w": jnp.ones((3, 2))}, ValueError, r"no gradient for parameter 'x.v': .* and got the keys \['w'\]"),
    "None": (None, ValueError, "no gradient for parameter 'w': .* and got None"),
    "a pair": (({"w": 1.0}, 2.0), ValueError, r"no gradient for parameter 'w': .* and got \(\{'w': 1.0\}, 2.0\)"),
    "a key": ({"w": jax.random.key(0), "x": {"v": 1.0}}, TypeError, "gradient of 'w' has dtype key<fry>, which"),
    "8 bits": ({"w": jnp.ones((3, 2), "float8_e5m2"), "x": {"v": 1.0}}, TypeError, "'w' has dtype float8_e5m2, which"),
    "4 bits": ({"w": jnp.ones((3, 2), "int4"), "x": {"v": 1.0}}, TypeError, "'w' has dtype int4, which"),
    "float0": ({"w": np.zeros((3, 2), jax.dtypes.float0), "x": {"v": 1.0}}, TypeError, "'w' has dtype .*float0"),
    "None inside": ({"w": None, "x": {"v": 1.0}}, ValueError, "the gradient of 'w' is PyTreeDef"),
    "broadcast": ({"w": jnp.ones(2), "x": {"v": 1.0}}, ValueError, r"'w' has shape \(2,\), the parameter \(3, 2\)"),
    "scalar": (
        {"w": jnp.ones((3, 2)), "x": {"v": jnp.ones(2)}},
        ValueError,
        r"'x.v' has shape \(2,\), the parameter \(\)",
    ),
    "complex": ({"w": jnp.ones((3, 2)) * 1j, "x": {"v": 1.0}}, TypeError, "'w' is complex"),
    "tree": ({"w": {"u": jnp.ones((3, 2))}, "x": {"v": 1.0}}, ValueError, "pass a gradient of the same structure"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_wrong_gradients_change_nothing(mistake, compiled):
    grads, error, message = MISTAKES[mistake]
    w, v = brainstate.ParamState(jnp.ones((3, 2))), brainstate.ParamState(jnp.array(1.0))
    ours = default_optimizer({"w": w, "x": {"v": v}})
    ours.update({"w": jnp.ones((3, 2)), "x": {"v": 1.0}})
    before = jax.tree.map(np.asarray, (w.value, v.value, ours.state_dict()))
    update = brainstate.transform.jit(lambda: ours.update(grads)) if compiled else lambda: ours.update(grads)
    with pytest.raises(error, match=message):
        update()
    jax.tree.map(np.testing.assert_array_equal, before, (w.value, v.value, ours.state_dict()))


def test_a_number_that_jax_cannot_hold():
    ours = default_optimizer({"w": brainstate.ParamState(jnp.array(1.0))})
    with pytest.raises(TypeError, match="the gradient of 'w' is 1099511627776: it must be an array of numbers"):
        ours.update({"w": 2**40})


def test_gradients_of_the_registered_states_train_them():
    model = brainstate.nn.Linear(2, 1)
    optimizer = made(Adadelta, model.states(brainstate.ParamState))
    for trained in (optimizer.param_states.to_pytree(), optimizer.param_states):
        before = model.weight.value["weight"]
        optimizer.update(brainstate.transform.grad(lambda: model(jnp.ones((3, 2))).sum(), model.states())())
        assert (model.weight.value["weight"] != before).all()
        assert jax.tree.structure(brainstate.transform.grad(lambda: model(jnp.ones(2)).sum(), trained)())


def test_a_gradient_for_other_accumulators_is_refused():
    init, update = scale_by_adadelta()
    state = init({"a": jnp.ones(2)})
    with pytest.raises(ValueError, match="key"):
        update({"b": jnp.ones(2)}, state)
    with pytest.raises(ValueError, match=r"a gradient of shape \(3, 2\) meets accumulators of shape \(2,\)"):
        update({"a": jnp.ones((3, 2))}, state)


# --------------------------------------------------------------------------------------------------------- parameters

BEHIND = {  # what a parameter has become behind the optimizer's back -> what is said
    "shape": (jnp.ones(3), r"parameter 'w' is float32 of shape \(3,\), and when .* it was real of shape \(2,\)"),
    "int": (jnp.arange(2), r"parameter 'w' is int32 of shape \(2,\), and when it was registered it was real"),
    "complex": (jnp.ones(2) * 1j, r"parameter 'w' is complex64 of shape \(2,\), .* put back what was registered"),
    "nothing": (None, r"\['w'\] were added or removed since registration"),
}


@pytest.mark.parametrize("kind", BEHIND)
def test_a_parameter_that_was_changed_behind_the_optimizer(kind):
    value, message = BEHIND[kind]
    w, v = state(1.0, 2.0), state(3.0)
    ours = default_optimizer({"v": v, "w": w})
    w.value = value
    with pytest.raises(ValueError, match=message):
        ours.update({"w": value, "v": jnp.ones(1)})
    assert ours.step_count.value == 0 and v.value == 3.0
    w.value = jnp.ones(2, jnp.bfloat16)  # as wide as before inside
    ours.update({"w": jnp.ones(2), "v": jnp.ones(1)})
    assert w.value.dtype == jnp.bfloat16


def test_updating_before_registering():
    with pytest.raises(ValueError, match=r"call register_trainable_weights\(\) before update"):
        Adadelta().update({})


# --------------------------------------------------------------------------------------------- one step, many callers


class Looped(BrainstateAdadelta):
    """Ours, each step taken inside a transform of brainstate."""

    def __init__(self, transform):
        super().__init__(transform.__name__, Adadelta)
        self.transform = transform

    def step(self, handle, grads):
        self.transform(handle[0].update, {name: jnp.asarray(g) for name, g in grads.items()})
        return handle


def jit(update, grads):
    brainstate.transform.jit(update)(grads)


def for_loop(update, grads):
    brainstate.transform.for_loop(update, jax.tree.map(lambda g: g[None], grads))


def scan(update, grads):
    body = lambda carry, g: (carry, update(g))
    brainstate.transform.scan(body, 0, jax.tree.map(lambda g: g[None], grads))


def cond(update, grads):
    brainstate.transform.cond(jnp.array(True), lambda: update(grads), lambda: None)


def jit_of_for_loop(update, grads):
    jit(lambda grads: for_loop(update, grads), grads)


@pytest.mark.parametrize("transform", [jit, for_loop, scan, cond, jit_of_for_loop])
@pytest.mark.parametrize(
    "options", [{}, {"grad_clip_norm": 1.0, "grad_clip_value": 0.3, "weight_decay": 0.1}], ids=["plain", "doors"]
)
def test_every_transform_takes_the_step_within_its_bound(transform, options):
    rng = np.random.default_rng(0)
    draw = lambda: {
        name: np.asarray(rng.normal(size=shape), np.float32) for name, shape in (SHAPES | SCALARS).items()
    }
    case = Case(draw(), [draw() for _ in range(3)], HYPER["defaults"] | options)
    assert not misses(Looped(transform), case, form=PLAIN)


class ByUpdate(Adadelta):
    def update(self, grads, **extra):
        return self.step(grads)


class ByStep(Adadelta):
    def step(self, grads, **extra):
        return super().step({name: 0 * g for name, g in grads.items()})


def test_update_calls_step_as_in_the_original():
    w, v = state(1.0), state(1.0)
    ByUpdate().register_trainable_weights({"w": w}).update({"w": ONE})
    near_after_ones(w.value, 1)
    ByStep().register_trainable_weights({"w": v}).update({"w": ONE})
    assert v.value == 1.0


# ------------------------------------------------------------------------------------------------- the count of steps


def test_the_step_count_saturates():
    ours = default_optimizer({"w": state(1.0)})
    ours.step_count.value = jnp.asarray(2**31 - 2, jnp.int32)
    for _ in range(3):
        ours.update({"w": jnp.ones(1)})
    assert int(ours.step_count.value) == 2**31 - 1


def test_a_step_count_set_by_hand():
    """The original starts with a plain 0."""

    def train(x):
        w = brainstate.ParamState(x)
        ours = default_optimizer({"w": w})
        ours.step_count.value = 0
        ours.update({"w": x})
        return w.value

    near_after_ones(jax.vmap(train)(jnp.ones((2, 1)))[0], 1)
