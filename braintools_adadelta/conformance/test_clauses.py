"""The clauses, one test each: what every implementation must do.

Select an implementation with ``--implementation NAME``; without it, ours and braintools' are judged.
"""

import inspect

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from braintools_adadelta import spec
from braintools_adadelta.conformance.cases import ALIKE, HYPER, runs
from braintools_adadelta.conformance.judge import Case, accumulators, misses

each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
each_hyper = pytest.mark.parametrize("hyper", HYPER.values(), ids=HYPER)
examples = settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # no shrinking: a miss already names one number
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def need(implementation, *options):
    """Skip, with the reason, what an implementation does not offer."""
    for option in options:
        if option != "float32" and option not in getattr(implementation, "supports", ()):
            pytest.skip(f"{implementation.name} does not offer {option}")


def need_accumulators(implementation):
    handle = implementation.start({"w": np.ones(1, np.float32)}, **HYPER["defaults"])
    if accumulators(implementation, handle) is None:
        pytest.skip(f"{implementation.name} does not show its accumulators; what they do is judged through theta")


def conforms(implementation, case, *fields):
    """Fail with the first numbers that rounding cannot explain."""
    found = misses(implementation, case, fields or ("e_g2", "e_delta2", "theta"))
    assert not found, f"{implementation.name}, {case.options}:\n" + "\n".join(map(str, found[:5]))


@pytest.mark.parametrize("name", spec.SIGNATURE)
def test_S1_signature(implementation, name):
    """The arguments of the spec, in its order, with its defaults."""
    if not inspect.isclass(cls := getattr(implementation, "cls", None)):
        pytest.skip(f"{implementation.name} is no class with the spec's constructor")
    parameters = inspect.signature(cls.__init__).parameters
    assert list(parameters)[1 : 1 + len(spec.SIGNATURE)] == list(spec.SIGNATURE)
    assert parameters[name].default == spec.SIGNATURE[name]


@each_dtype
def test_S2_start(implementation, dtype):
    """Accumulators start at zero: a zero gradient leaves them there, and moves nothing."""
    need(implementation, dtype)
    params = {"w": np.array([[1.0, -2.0]], dtype), "b": np.array(3.0, dtype)}
    handle = implementation.start(params, **HYPER["defaults"])
    for _ in range(2):
        for tree in accumulators(implementation, handle) or ():
            assert {k: (x.shape, np.abs(x).max()) for k, x in tree.items()} == {"w": ((1, 2), 0), "b": ((), 0)}
        handle = implementation.step(handle, {k: np.zeros_like(x) for k, x in params.items()})
        assert {k: x.tolist() for k, x in implementation.params(handle).items()} == {"w": [[1.0, -2.0]], "b": 3.0}


@pytest.mark.parametrize("options", [{}, {"rho": 0.95}, {"lr": 0.5, "rho": 0.9}], ids=str)
def test_S3_examples(implementation, options):
    """The three examples of the page: construct, register the parameters of a layer; then train a step."""
    if not inspect.isclass(cls := getattr(implementation, "cls", None)):
        pytest.skip(f"{implementation.name} has not the interface that the page's examples use")
    import brainstate

    states = brainstate.nn.Linear(10, 5).states(brainstate.ParamState)
    optimizer = cls(**options)
    optimizer.register_trainable_weights(states)
    assert optimizer.current_lr == options.get("lr", 1.0) and optimizer.rho == options.get("rho", 0.9)
    (before,) = (state.value for state in states.values())
    optimizer.update({key: {name: np.ones_like(x) for name, x in before.items()} for key in states})
    (after,) = (state.value for state in states.values())
    assert all((after[name] < before[name]).all() for name in before)


@each_dtype
@each_hyper
@examples
@given(data=st.data())
def test_E1_average_gradient(implementation, hyper, dtype, data):
    """E[g2]_t = rho E[g2]_{t-1} + (1 - rho) g_t^2."""
    need(implementation, dtype)
    need_accumulators(implementation)
    conforms(implementation, data.draw(runs(dtype, hyper)), "e_g2")


@each_dtype
@each_hyper
@examples
@given(data=st.data())
def test_E2_delta(implementation, hyper, dtype, data):
    """Delta_t = - sqrt(E[Delta2]_{t-1} + eps) / sqrt(E[g2]_t + eps) * g_t: for theta_0 = 0, lr = 1 the new theta."""
    need(implementation, dtype)
    conforms(implementation, data.draw(runs(dtype, hyper | {"lr": 1.0}, theta=0.0)), "theta")


@each_dtype
@each_hyper
@examples
@given(data=st.data())
def test_E3_average_delta(implementation, hyper, dtype, data):
    """E[Delta2]_t = rho E[Delta2]_{t-1} + (1 - rho) Delta_t^2, and lr is not in Delta."""
    need(implementation, dtype)
    need_accumulators(implementation)
    conforms(implementation, data.draw(runs(dtype, hyper)), "e_delta2")


@each_dtype
@each_hyper
@examples
@given(data=st.data())
def test_E4_apply(implementation, hyper, dtype, data):
    """theta_t = theta_{t-1} + lr_t Delta_t."""
    need(implementation, dtype)
    conforms(implementation, data.draw(runs(dtype, hyper)), "theta")


@each_dtype
@examples
@given(data=st.data())
def test_L1_lr(implementation, dtype, data):
    """The lr in force when the step is taken: set anew before each step, 0 among them."""
    need(implementation, dtype)
    if not hasattr(implementation, "set_lr"):
        pytest.skip(f"{implementation.name} offers no way to set the lr")
    lrs = st.permutations([0.0, 0.25, 1.0, 3.0])
    conforms(implementation, data.draw(runs(dtype, HYPER["defaults"], steps=4, lrs=lrs)))


@each_dtype
@pytest.mark.parametrize("c", [1e-3, 1.0, 50.0])
@examples
@given(data=st.data())
def test_G1_clip_norm(implementation, c, dtype, data):
    """One norm over all parameters; g if n < c, else g * c / n."""
    need(implementation, dtype, "grad_clip_norm")
    hyper = HYPER["large_eps"] | {"grad_clip_norm": c}
    conforms(implementation, data.draw(runs(dtype, hyper, shapes=ALIKE, region="ordinary")))


@each_dtype
@pytest.mark.parametrize("v", [1e-3, 1.0, 50.0])
@examples
@given(data=st.data())
def test_G2_clip_value(implementation, v, dtype, data):
    """g <- min(max(g, -v), v), elementwise."""
    need(implementation, dtype, "grad_clip_value")
    conforms(implementation, data.draw(runs(dtype, HYPER["large_eps"] | {"grad_clip_value": v}, region="ordinary")))


@each_dtype
@pytest.mark.parametrize("weight_decay", [0.01, 0.5])
@examples
@given(data=st.data())
def test_G3_weight_decay(implementation, weight_decay, dtype, data):
    """g <- g + weight_decay * theta: through Adadelta, not past it."""
    need(implementation, dtype, "weight_decay")
    conforms(implementation, data.draw(runs(dtype, HYPER["large_eps"] | {"weight_decay": weight_decay})))


@each_dtype
@examples
@given(data=st.data())
def test_G4_order(implementation, dtype, data):
    """G1, G2, G3, then E1: decay is not clipped."""
    options = {"grad_clip_norm": 2.0, "grad_clip_value": 1.5, "weight_decay": 0.5}
    need(implementation, dtype, *options)
    case = data.draw(runs(dtype, HYPER["large_eps"] | options, shapes=ALIKE, region="ordinary"))
    conforms(implementation, case)
    # Two parameters for which each of the six orders gives another gradient.
    params = {"u": np.array([-2.0, 6.0], dtype)}
    conforms(implementation, Case(params, [{"u": np.array([3.0, 1.0], dtype)}] * 2, HYPER["large_eps"] | options))


@each_dtype
def test_X1_saturate(implementation, dtype):
    """A component whose square would overflow counts as the largest whose square is finite; the weight lives on."""
    need(implementation, dtype)
    huge = np.finfo(dtype).max / 2
    params = {"w": np.array([0.5, 0.5], dtype)}
    grads = [{"w": np.array(g, dtype)} for g in ([huge, 1.0], [-huge, 1.0], [1.0, -1.0])]
    conforms(implementation, Case(params, grads, HYPER["defaults"]))
