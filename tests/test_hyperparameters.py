"""Hyperparameters: what they may be, that they can be changed, and steps that are not finite."""

import inspect

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare_with_oracle import assert_near_exact
from helpers import OPTIONS, OPTIONS_ON, G, default_optimizer, everything, near, optimizer, same, state, two

from braintools_adadelta import Adadelta
from braintools_adadelta.oracle.bounds import PLAIN
from braintools_adadelta.spec import SIGNATURE

# These run with every braintools that is supported, though none names it.
pytestmark = pytest.mark.original
jit = brainstate.transform.jit


# ------------------------------------------------------------------------------------------------------------ domains

REFUSED_ARGUMENTS = [
    ("rho", 1.5), ("rho", -0.1), ("rho", 1), ("rho", float("nan")), ("eps", -1), ("eps", 0), ("eps", float("inf")),
    ("lr", float("nan")), ("lr", float("inf")), ("lr", -1), ("lr", "x"), ("lr", True), ("weight_decay", float("nan")),
    ("lr", None), ("rho", 10**400), ("weight_decay", np.True_), ("lr", jnp.array(True)),
    ("weight_decay", -1), ("grad_clip_norm", 0), ("grad_clip_norm", float("nan")), ("grad_clip_value", -1), ("lr", 1j),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), REFUSED_ARGUMENTS, ids=lambda x: repr(x))
def test_arguments_outside_their_domain(name, value):
    with pytest.raises(ValueError) as caught:
        Adadelta(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{name} = {value!r} is not allowed: it must be ") and message.endswith(").")


@pytest.mark.parametrize("name", ["rho", "eps", "weight_decay"])
def test_a_traced_argument_is_told_to_be_traced(name):
    with pytest.raises(
        TypeError, match=f"^{name} = .* is traced by jit, .*: it must be a plain number when it is given"
    ):
        brainstate.transform.jit(lambda x: (Adadelta(**{name: x}), None)[1])(0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": 1 - 1e-9}, "rho = 0.999999999 rounds to 1 in float32"),
        ({"eps": 1e-40}, "eps = 1e-40 is 0 in float32"),
        ({"grad_clip_norm": 1e-40}, "grad_clip_norm = 1e-40 is 0 in float32"),
        ({"grad_clip_value": 1e-40}, "grad_clip_value = 1e-40 is 0 in float32"),
    ],
)
def test_what_is_lost_in_the_precision_of_a_parameter(options, message):
    with pytest.raises(ValueError, match=message + ", the precision of 'w'"):
        default_optimizer({"w": state(1.0)}, **options)
    ((name, value),) = options.items()
    ours = default_optimizer({"w": state(1.0)})
    before = ours.options
    with pytest.raises(ValueError, match=message + ", the precision of 'w'"):
        setattr(ours, name, value)
    assert ours.options == before
    with jax.enable_x64(True):
        default_optimizer({"w": brainstate.ParamState(jnp.ones(1, jnp.float64))}, **options)


def test_a_decay_beyond_the_precision_of_a_parameter():
    with pytest.raises(ValueError, match=r"weight_decay = 1e\+300 is infinite in float32, the precision of 'w'"):
        default_optimizer({"w": state(1.0)}, weight_decay=1e300)


def test_eps_of_zero_says_why_not():
    with pytest.raises(ValueError, match="never starts to move, and where its gradient is 0 the first step is 0/0"):
        Adadelta(eps=0)


@pytest.mark.parametrize("value", ["Skip", None, 1, ["skip"]], ids=repr)
def test_nonfinite_is_one_of_two(value):
    with pytest.raises(ValueError, match=r"^nonfinite = .* is not allowed: it must be 'propagate' or 'skip'"):
        Adadelta(nonfinite=value)


# ---------------------------------------------------------------------------------------------------- the constructor


def test_options_of_our_own_are_keyword_only():
    with pytest.raises(TypeError, match="positional"):
        Adadelta(1.0, 0.9, 1e-6, 0.0, None, None, "skip")


def test_the_signature_is_that_of_the_constructor():
    class Mine(Adadelta):
        def __init__(self, depth, *, width=1):
            super().__init__()

    more = ["nonfinite", "accumulator_dtype", "accumulator_sharding"]
    assert list(inspect.signature(Adadelta).parameters) == [*SIGNATURE, *more]
    assert str(inspect.signature(Mine)) == "(depth, *, width=1)"


def test_an_optimizer_is_shown_in_a_line():
    ours = optimizer({"a": state(1.0)}, lr=lambda step: 0.5, grad_clip_norm=2.0)
    want = (
        "lr=0.5, rho=0.625, eps=1.0, weight_decay=0.0, grad_clip_norm=2.0, grad_clip_value=None, nonfinite='propagate'"
    )
    assert repr(ours) == f"<Adadelta({want}), 1 parameters>"
    seen = []
    jit(lambda: seen.append(repr(ours)))()
    assert "Tracer" in seen[0]


# ------------------------------------------------------------------------------------------------------------ changed


@pytest.mark.parametrize("name", ["rho", "eps", "weight_decay", "grad_clip_norm", "grad_clip_value"])
def test_a_hyperparameter_that_is_changed_is_checked_and_used(name):
    w = state(4.0)
    ours = optimizer({"w": w}, **OPTIONS)
    with pytest.raises(ValueError, match=f"^{name} = nan"):
        setattr(ours, name, float("nan"))
    setattr(ours, name, 0.5)
    ours.update({"w": jnp.array([8.0])})
    assert_near_exact(w.value, [4.0], [[8.0]], form=PLAIN, **(OPTIONS | {name: 0.5}))


@pytest.mark.parametrize("name", OPTIONS_ON)
def test_a_hyperparameter_that_was_set_is_as_exact_as_one_that_was_given(name):
    w, v = state(1.0, 2.0), state(1.0, 2.0)
    ours = default_optimizer({"w": w}, **OPTIONS_ON)
    ours.update({"w": jnp.array([3.0, -1.0])})
    setattr(ours, name, 0.999)
    made = default_optimizer({"w": v}, **(OPTIONS_ON | {name: 0.999}))
    v.value, made.opt_state.value = w.value, ours.opt_state.value
    for each in (ours, made):
        each.update({"w": jnp.array([0.5, 2.0])})
    np.testing.assert_array_equal(w.value, v.value)


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


def test_one_minus_rho_stays_in_double_precision():
    w = state(4.0)
    ours = optimizer({"w": w})
    train = jit(ours.update)
    train({"w": jnp.array([8.0])})
    ours.rho = 0.999
    ours.opt_state.value = jax.tree.map(jnp.zeros_like, ours.opt_state.value)
    train({"w": jnp.array([1.0])})
    assert ours.opt_state.value.e_g2["w"][0] == np.float32(1 - 0.999)


# --------------------------------------------------------------------------------------------------------- not finite

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


@pytest.mark.parametrize("factor", [10.0, 4.0, 2.0**-10], ids=str)
def test_what_overflows_within_the_compiled_step_is_skipped(factor):
    """Whatever XLA makes of the last product before the gradient is looked at."""
    w = brainstate.ParamState(jnp.ones(3))
    ours = optimizer({"w": w}, nonfinite="skip")
    multiplied = lambda x: x / factor if factor < 1 else factor * x
    brainstate.transform.jit(lambda x: ours.update({"w": multiplied(x)}))(jnp.array([1.0, 1e38, 2.0]))
    assert w.value.tolist() == [1, 1, 1] and ours.skipped_steps.value == 1
