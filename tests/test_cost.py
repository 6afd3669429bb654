"""What it costs: compilations, dispatches, size of the program, memory that is freed."""

import gc
import glob
import weakref
from collections import Counter
from functools import partial

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import GRADS_OF_W, OPTIONS_ON, default_optimizer, made, optimizer, state

from braintools_adadelta import Adadelta, LRScheduler
from braintools_adadelta.schedule import lr_at
from braintools_adadelta.update import REUSING, compiled_for

update_all = compiled_for((), REUSING)

# ------------------------------------------------------------------------------------------------------- compilations


def test_a_thousand_updates_with_changing_lr_are_compiled_once():
    ours = default_optimizer({"w": brainstate.ParamState(jnp.ones(11)), "v": brainstate.ParamState(jnp.float32(1))})
    before = update_all._cache_size()
    for t in range(1000):
        ours.current_lr = 1 / (t + 1)
        ours.update({"w": jnp.ones(11), "v": np.float32(1)})
    assert update_all._cache_size() - before == 1


VALUES = np.random.default_rng(0).uniform(0.125, 0.999, 1000)


@pytest.mark.parametrize("name", [*OPTIONS_ON, "current_lr", "group decay", "group lr"])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_a_thousand_values_of_a_hyperparameter_are_compiled_once(name, compiled):
    ours = default_optimizer({"w": state(1.0, 2.0)}, **OPTIONS_ON)
    ours.add_param_group({"v": state(1.0)}, weight_decay=0.5)
    g, traces = {"w": jnp.ones(2), "v": jnp.ones(1)}, []
    loop = brainstate.transform.jit(lambda: (traces.append(0), ours.update(g))[1])
    before = update_all._cache_size()
    for x in VALUES:
        if name.startswith("group"):
            ours.param_groups[1][{"group decay": "weight_decay", "group lr": "lr"}[name]] = float(x)
        else:
            setattr(ours, name, x)
        loop() if compiled else ours.update(g)
    assert len(traces) == compiled and update_all._cache_size() - before <= (not compiled)


class Compilations:
    """Counts what XLA compiles inside a with block."""

    def __enter__(self):
        self.count, self.counts = 0, True
        jax.monitoring.register_event_duration_secs_listener(self.listen)  # for good: older JAX cannot take it back
        return self

    def listen(self, event, seconds, **_):
        self.count += self.counts and event == "/jax/core/compile/backend_compile_duration"

    def __exit__(self, *_):
        self.counts = False


WEAK = {
    "weak array": lambda: jnp.asarray(1.0),
    "float": lambda: 1.0,
    "list": lambda: [1.0, 2.0],
    "tree": lambda: {"a": 1.0, "b": jnp.ones(2)},
    "complex": lambda: 1j,
}


@pytest.mark.parametrize("kind", WEAK)
def test_numbers_of_python_are_compiled_once(kind):
    ours = made(Adadelta, {"w": brainstate.ParamState(WEAK[kind]())})
    g = {"w": jax.tree.map(jnp.ones_like, ours.param_states["w"].value)}
    step = brainstate.transform.jit(lambda: ours.update(g))
    for each in (step, lambda: ours.update(g)):
        each()
        with Compilations() as after_the_first:
            each(), each()
        assert after_the_first.count == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: braintools.optim.ReduceLROnPlateau(1.0, patience=1),
        lambda: braintools.optim.StepLR(1.0, 2),
        lambda: LRScheduler(lambda epoch: 0.5**epoch),
        lambda: 0.5,
    ],
    ids=["ReduceLROnPlateau", "StepLR", "LRScheduler", "number"],
)
def test_a_scheduler_inside_jit_is_compiled_once(make):
    ours, traces = made(Adadelta, lr=make()), []

    @brainstate.transform.jit
    def step(metric):
        traces.append(0)
        ours.update(GRADS_OF_W)
        by_metric = isinstance(ours.lr_scheduler, braintools.optim.ReduceLROnPlateau)
        ours.lr_scheduler.step(*[metric] * by_metric)

    step(jnp.float32(0))
    with Compilations() as after_the_first:
        for k in range(1, 5):
            step(jnp.float32(k))
    assert len(traces) == 1 and after_the_first.count == 0


def test_a_fresh_schedule_compiles_no_update():
    update = lambda: made(Adadelta, lr=optax.cosine_decay_schedule(1.0, 100)).update(GRADS_OF_W)
    update()
    before = update_all._cache_size()
    for _ in range(5):
        update()
    assert update_all._cache_size() == before


# -------------------------------------------------------------------------------------------------------- what is run


def executions(f, folder):
    """Count what the runtime executes during `f()`."""
    with jax.profiler.trace(str(folder)):
        f()
    (path,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
    planes = jax.profiler.ProfileData.from_file(path).planes
    return Counter(event.name for plane in planes for line in plane.lines for event in line.events)


@pytest.mark.parametrize("lr", [0.5, optax.exponential_decay(0.5, 10, 0.9)], ids=["number", "function"])
def test_an_eager_update_is_one_dispatch(lr, tmp_path):
    ours, g, one = default_optimizer({k: state(1.0, 2.0) for k in "abc"}, lr=lr), jnp.ones(2), jax.jit(lambda x: x + 1)
    update = lambda: ours.update({k: g for k in "abc"})
    schedule = lambda: lr_at(lr, ours.step_count.value) if callable(lr) else None  # is read outside the compiled call
    update(), one(g), schedule()
    single, whole = executions(lambda: one(g), tmp_path / "one"), executions(update, tmp_path / "update")
    other = "(jit_", "Callback"  # which function it is, and who waits for it on a GPU
    runs = [name for name, n in single.items() if n == 1 and "Execute" in name and not any(x in name for x in other)]
    reading = executions(schedule, tmp_path / "lr")
    assert runs and {name: whole[name] - reading[name] for name in runs} == dict.fromkeys(runs, 1)


def test_a_compiled_update_reads_only_the_states_it_needs():
    """Accumulators, step count, lr, hyperparameters: each costs every call of a compiled loop some microseconds."""
    ours = default_optimizer({"w": state(1.0, 2.0)})
    _, states = brainstate.transform.make_jaxpr(lambda g: ours.update({"w": g}))(jnp.ones(2))
    assert len([one for one in states if not isinstance(one, brainstate.ParamState)]) == 4


def test_nothing_nested_in_an_outer_trace():
    options = {"weight_decay": 0.1, "grad_clip_norm": 1.0, "grad_clip_value": 1.0}
    ours = default_optimizer({"w": state(1.0, 2.0)}, **options)
    jaxpr, _ = brainstate.transform.make_jaxpr(lambda g: ours.update({"w": g}))(jnp.ones(2))
    nested = [eqn for eqn in jaxpr.jaxpr.eqns if any("jaxpr" in name for name in eqn.params)]
    assert not [eqn for eqn in nested if eqn.primitive.name != "reduce"]  # whose function is one of two numbers


# ------------------------------------------------------------------------------------------------------------- memory


class Trainer:
    """Somebody who owns data and an lr."""

    def lr_at(self, count):
        return 1 / (1 + count)

    __call__ = lr_at


def closure(trainer):
    return lambda count: trainer.lr_at(count)


OWNERS = {
    "bound method": lambda trainer: trainer.lr_at,
    "closure": closure,
    "partial": lambda trainer: partial(Trainer.lr_at, trainer),
    "object": lambda trainer: trainer,
}


@pytest.mark.parametrize("kind", OWNERS)
@pytest.mark.parametrize("whose", ["optimizer", "group"])
def test_an_optimizer_that_is_dropped_frees_its_schedule(kind, whose):
    trainer = Trainer()
    f = OWNERS[kind](trainer)
    ours = made(Adadelta, lr=f if whose == "optimizer" else 1.0)
    ours.add_param_group({"v": state(1.0)}, lr=f if whose == "group" else None)
    for _ in range(2):
        ours.update(GRADS_OF_W | {"v": jnp.ones(1)})
    ours.current_lr, ours.state_dict(), repr(ours)
    alive = weakref.ref(trainer), weakref.ref(ours)
    del ours, trainer, f
    gc.collect()
    assert [ref() for ref in alive] == [None, None]


@pytest.mark.parametrize("lr", [0.5, lambda step: 1 / (1 + step)], ids=["number", "function"])
def test_thousands_of_updates_keep_no_buffer(lr):
    ours, g = optimizer({"w": state(4.0, 1.0)}, lr=lr), {"w": jnp.ones(2)}
    counts = []
    for k in range(2001):
        ours.update(g)
        ours.current_lr, ours.state_dict()
        if k % 1000 == 0:
            gc.collect()
            counts.append(len(jax.live_arrays()))
    assert counts[1] == counts[2]
