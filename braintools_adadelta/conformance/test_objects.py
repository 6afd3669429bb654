"""The clauses for classes with the interface of braintools.optim.Adadelta.

A test compares two calls that must agree, or the object with the exact answer. Only what needs brainstate imports it.
"""

import numpy as np
import pytest

from braintools_adadelta.conformance.cases import HYPER
from braintools_adadelta.conformance.judge import Case, Run
from braintools_adadelta.conformance.test_clauses import demand

PARAMS = {"w": np.array([0.5, -2.0], np.float32), "b": np.array([[3.0]], np.float32)}
GRADS = [
    {"w": np.array([1.0, -0.25], np.float32), "b": np.array([[0.0]], np.float32)},
    {"w": np.array([0.0, 3.0], np.float32), "b": np.array([[-2.0]], np.float32)},
    {"w": np.array([-4.0, 0.5], np.float32), "b": np.array([[0.125]], np.float32)},
]
OPTIONS = HYPER["large_eps"]


class Objects:
    """A class under test, with a method that makes an optimizer from it."""

    def __init__(self, implementation):
        self.it, self.cls = implementation, implementation.cls

    def optimizer(self, states, **options):
        optimizer = self.cls(**{**OPTIONS, **options})
        optimizer.register_trainable_weights(states)
        return optimizer


@pytest.fixture
def objects(implementation):
    """The class under test. The test is skipped if there is none."""
    if not isinstance(implementation.cls, type):
        pytest.skip("not a class with the interface of braintools.optim.Adadelta")
    return Objects(implementation)


def states_of(params=PARAMS):
    import brainstate
    import jax.numpy as jnp

    return {name: brainstate.ParamState(jnp.asarray(x)) for name, x in params.items()}


def trees(arrays):
    import jax.numpy as jnp

    return {name: jnp.asarray(x) for name, x in arrays.items()}


def values(states):
    return {name: np.array(state.value) for name, state in states.items()}


class Watched:
    """A run that a test drove itself, in the form that the judge examines."""

    watched = True

    def __init__(self, params, grads, options, theta, lrs=()):
        self.case = Case(params, grads, options, list(lrs))
        self.theta, self.memory = theta, [None] * len(theta)


def exact_run(objects, params, grads, options, theta, lrs=()):
    """Fail if the parameters `theta`, seen before and after each step, are not those of the exact run."""
    from braintools_adadelta.conformance.judge import examine

    watched = Watched(params, grads, options, theta, lrs)
    demand(objects.it, examine(watched))


def same(left, right):
    for name, x in left.items():
        np.testing.assert_array_equal(x, right[name], err_msg=name)


def drive(optimizer, states, grads, before=lambda t: None):
    """Take steps by hand; return the parameters seen before and after each."""
    seen = [values(states)]
    for t, g in enumerate(grads):
        before(t)
        optimizer.update(trees(g))
        seen.append(values(states))
    return seen


@pytest.mark.parametrize("options", [{}, {"rho": 0.95}, {"lr": 0.5, "rho": 0.9}], ids=str)
def test_S3_examples(objects, options):
    """The three examples of the documentation: make an optimizer, register the parameters of a layer, train a step."""
    import brainstate

    states = brainstate.nn.Linear(10, 5).states(brainstate.ParamState)
    optimizer = objects.cls(**options)
    optimizer.register_trainable_weights(states)
    assert optimizer.current_lr == options.get("lr", 1.0) and optimizer.rho == options.get("rho", 0.9)
    (before,) = (state.value for state in states.values())
    optimizer.update({key: {name: np.ones_like(x) for name, x in before.items()} for key in states})
    (after,) = (state.value for state in states.values())
    assert all((after[name] < before[name]).all() for name in before)


def test_B1_register(objects):
    """register_trainable_weights takes nested dicts and modules, and returns the optimizer."""
    import brainstate
    import jax.numpy as jnp

    states = states_of()
    optimizer = objects.cls(**OPTIONS)
    assert optimizer.register_trainable_weights({"layer": {"w": states["w"]}, "b": states["b"]}) is optimizer
    seen = [values(states)]
    for g in GRADS:
        g = trees(g)
        optimizer.update({"layer": {"w": g["w"]}, "b": g["b"]})
        seen.append(values(states))
    exact_run(objects, PARAMS, GRADS, OPTIONS, seen)
    weights = brainstate.nn.Linear(2, 3).states(brainstate.ParamState)
    objects.optimizer(weights).update(
        {k: {n: jnp.ones_like(x) for n, x in s.value.items()} for k, s in weights.items()}
    )


def test_B1_again(objects):
    """Registering the same States again keeps their accumulators."""
    states = states_of()
    optimizer = objects.optimizer(states)
    again = lambda t: optimizer.register_trainable_weights(states) if t else None
    exact_run(objects, PARAMS, GRADS, OPTIONS, drive(optimizer, states, GRADS, again))


def test_B1_tied(objects):
    """A State that occurs twice counts once."""
    states = states_of({"w": PARAMS["w"]})
    optimizer = objects.optimizer({"w": states["w"], "x": states["w"]})
    seen = [values(states)]
    for g in GRADS:
        g = trees({"w": g["w"], "x": g["w"]})
        optimizer.update(g)
        seen.append(values(states))
    exact_run(objects, {"w": PARAMS["w"]}, [{"w": g["w"]} for g in GRADS], OPTIONS, seen)


def test_B2_update(objects):
    """update and step do the same, return None, and ignore keys that are not registered."""
    import jax.numpy as jnp

    left, right = states_of(), states_of()
    a, b = objects.optimizer(left), objects.optimizer(right)
    for g in GRADS:
        assert a.update(trees(g) | {"more": jnp.ones(3)}) is None
        assert b.step(trees(g)) is None
    same(values(left), values(right))
    assert int(np.asarray(a.step_count.value)) == len(GRADS)


def test_B3_current_lr(objects):
    """Reading gives the lr that is in force. A new value, 0 too, is in force at the next step."""
    states = states_of()
    optimizer = objects.optimizer(states)
    assert float(optimizer.current_lr) == OPTIONS["lr"]
    lrs = [2.0, 0.0, 0.25]

    def put(t):
        optimizer.current_lr = lrs[t]
        assert float(optimizer.current_lr) == lrs[t]

    exact_run(objects, PARAMS, GRADS, OPTIONS, drive(optimizer, states, GRADS, put), lrs)


def grouped(objects, **options):
    """Return an optimizer with `w` in its first group and `b` in an added one with lr 2, and their states."""
    if not hasattr(objects.cls, "add_param_group"):
        pytest.skip("groups are not offered")
    states = states_of()
    optimizer = objects.optimizer({"w": states["w"]}, **options)
    optimizer.add_param_group({"b": states["b"]}, lr=2.0)
    return optimizer, states


def test_B4_groups(objects):
    """An added group is stepped by Adadelta, with its own lr."""
    optimizer, states = grouped(objects)
    seen = drive(optimizer, states, GRADS)
    for name, lr in (("w", OPTIONS["lr"]), ("b", 2.0)):
        one = lambda tree, name=name: {name: tree[name]}
        exact_run(objects, one(PARAMS), list(map(one, GRADS)), OPTIONS | {"lr": lr}, list(map(one, seen)))


def test_B4_norm(objects):
    """The norm of G1 is over all groups."""
    optimizer, states = grouped(objects, grad_clip_norm=2.0)
    if hasattr(optimizer.param_groups[1]["lr"], "value"):
        optimizer.param_groups[1]["lr"].value = OPTIONS["lr"]
    else:
        optimizer.param_groups[1]["lr"] = OPTIONS["lr"]
    seen = drive(optimizer, states, GRADS)
    exact_run(objects, PARAMS, GRADS, OPTIONS | {"grad_clip_norm": 2.0}, seen)


def test_B5_resume(objects):
    """A new optimizer that loads a state_dict after some steps goes on exactly as the old one does."""
    states = states_of()
    optimizer = objects.optimizer(states)
    drive(optimizer, states, GRADS[:2])
    state, there = optimizer.state_dict(), states_of(values(states))
    resumed = objects.optimizer(there)
    resumed.load_state_dict(state)
    assert int(np.asarray(resumed.step_count.value)) == 2
    left, right = drive(optimizer, states, GRADS), drive(resumed, there, GRADS)
    same(left[-1], right[-1])


def test_B5_schedule(objects):
    """The state_dict has the step count: a schedule goes on, too."""
    schedule = lambda count: 1.0 / (1 + count)
    states = states_of()
    optimizer = objects.optimizer(states, lr=schedule)
    drive(optimizer, states, GRADS[:2])
    there = states_of(values(states))
    resumed = objects.optimizer(there, lr=schedule)
    resumed.load_state_dict(optimizer.state_dict())
    left, right = drive(optimizer, states, GRADS), drive(resumed, there, GRADS)
    same(left[-1], right[-1])


def test_B6_jit(objects):
    """Inside brainstate.transform.jit the steps are exact too, and a changed lr counts without a new trace."""
    import brainstate

    states = states_of()
    optimizer = objects.optimizer(states)
    traces = []

    @brainstate.transform.jit
    def update(g):
        traces.append(1)
        optimizer.update(g)

    lrs, seen = [None, 0.0, 3.0], [values(states)]
    for lr, g in zip(lrs, GRADS, strict=True):
        if lr is not None:
            optimizer.current_lr = lr
        update(trees(g))
        seen.append(values(states))
    exact_run(objects, PARAMS, GRADS, OPTIONS, seen, lrs)


def test_B6_for_loop(objects):
    """The same inside for_loop."""
    import brainstate
    import jax.numpy as jnp

    states = states_of()
    optimizer = objects.optimizer(states)

    def body(g):
        optimizer.update(g)
        return {name: state.value for name, state in states.items()}

    stacked = {name: jnp.stack([g[name] for g in GRADS]) for name in PARAMS}
    out = brainstate.transform.for_loop(body, stacked)
    seen = [PARAMS] + [{name: np.asarray(x[t]) for name, x in out.items()} for t in range(len(GRADS))]
    exact_run(objects, PARAMS, GRADS, OPTIONS, seen)


def test_B7_callable(objects):
    """A callable is called with the step count, first with 0."""
    import jax.numpy as jnp

    lrs = [1.0, 0.5, 2.0]
    states = states_of()
    optimizer = objects.optimizer(states, lr=lambda count: jnp.asarray(lrs)[jnp.minimum(count, 2)])
    exact_run(objects, PARAMS, GRADS, OPTIONS, drive(optimizer, states, GRADS), lrs)


def test_B7_scheduler(objects):
    """An LRScheduler of braintools changes the lr when its step() is called."""
    optim = pytest.importorskip("braintools.optim")
    states = states_of()
    scheduler = optim.StepLR(base_lr=1.0, step_size=1, gamma=0.5)
    optimizer = objects.optimizer(states, lr=scheduler)

    def before(t):
        if t:
            scheduler.step()

    exact_run(objects, PARAMS, GRADS, OPTIONS, drive(optimizer, states, GRADS, before), [1.0, 0.5, 0.25])


def test_B8_trainer(objects, tmp_path):
    """The Trainer of braintools accepts it, and its epochs take the exact steps."""
    module = pytest.importorskip("braintools.trainer", reason="braintools is not installed")
    import brainstate

    class Linear(module.LightningModule):
        """A model whose gradient is the batch."""

        def __init__(self):
            super().__init__()
            self.w, self.b = (brainstate.ParamState(x.value) for x in states_of().values())
            self.seen = [self.weights()]

        def weights(self):
            return values({"w": self.w, "b": self.b})

        def training_step(self, batch, batch_idx):
            w, b = batch[0][0, :2], batch[0][0, 2]
            return {"loss": (w * self.w.value).sum() + (b * self.b.value).sum()}

        def on_train_batch_end(self, *batch):
            self.seen.append(self.weights())

        def configure_optimizers(self):
            return objects.cls(**OPTIONS)

    rows = np.array([[*g["w"], *g["b"].ravel()] for g in GRADS], np.float32)
    data = module.DataLoader(module.ArrayDataset(rows), batch_size=1, shuffle=False)
    quiet = {"enable_progress_bar": False, "enable_checkpointing": False, "logger": False}
    model = Linear()
    module.Trainer(max_epochs=2, default_root_dir=str(tmp_path), **quiet).fit(model, data)
    exact_run(objects, PARAMS, GRADS * 2, OPTIONS, model.seen)


def test_B9_snapshots(objects):
    """Later steps do not change what state_dict() returned."""
    import jax

    states = states_of()
    optimizer = objects.optimizer(states)
    drive(optimizer, states, GRADS[:1])
    state = optimizer.state_dict()
    numbers = lambda: [np.array(x) for x in jax.tree.leaves(state) if hasattr(x, "shape") or np.isscalar(x)]
    before = numbers()
    drive(optimizer, states, GRADS)
    for x, y in zip(before, numbers(), strict=True):
        np.testing.assert_array_equal(x, y)


def test_B9_run(objects, implementation):
    """Reading or keeping the accumulators changes nothing."""
    case = Case(PARAMS, GRADS, OPTIONS)
    left, right = Run(implementation, case).finish(), states_of()
    same(left.theta[-1], drive(objects.optimizer(right), right, GRADS)[-1])
