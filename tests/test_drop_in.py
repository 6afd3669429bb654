"""What programs written for the original rely on: its attributes, any key, strict dtypes, memory that is freed."""

import copy
import gc
import json
import weakref
from functools import partial

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from braintools_adadelta import Adadelta, LRScheduler, interop, scale_by_adadelta
from braintools_adadelta.update import update_all

G = {"w": jnp.ones(2)}


def state(*values, dtype=None):
    return brainstate.ParamState(jnp.array(values, dtype))


def made(cls, states=None, **options):
    optimizer = cls(**options)
    optimizer.register_trainable_weights({"w": state(1.0, 2.0)} if states is None else states)
    return optimizer


# --------------------------------------------------------------------------------------------------------- attributes

ABSENT = {  # on purpose, of what the original's objects have: why
    "param_states.clear": "is that of a dictionary, and not of a manager",
    "param_states.flattened_states": "how the manager stores them: get_flattened() gives it",
    "param_states.make_unique": "would change what is registered behind the accumulators' back: registering does it",
    "param_states.merge_with": "would change what is registered behind the accumulators' back: registering does it",
    "param_states.pytree_structure": "how the manager stores them: to_pytree() gives the tree",
    "param_states.seen_ids": "how the manager stores them",
    "param_states.unique_paths": "how the manager stores them: get_flattened() gives them",
    "param_states.unique_states": "how the manager stores them: values() gives them",
    "param_states.update_state": "would change what is registered behind the accumulators' back: registering does it",
}


def public(x):
    return {name for name in dir(x) if not name.startswith("_")}


def handed_out(optimizer):
    """Return the optimizer and the objects that it hands out, by name."""
    return {
        "": optimizer,
        "param_states": optimizer.param_states,
        "step_count": optimizer.step_count,
        "opt_state": optimizer.opt_state,
        "param_groups": optimizer.param_groups,
        "param_groups[0]": optimizer.param_groups[0],
        "param_groups[0]['lr']": optimizer.param_groups[0]["lr"],
        "param_groups_opt_states": optimizer.param_groups_opt_states,
        "param_groups_opt_states[0]": optimizer.param_groups_opt_states[0],
        "schedulers": optimizer.schedulers,
        "tx": optimizer.tx,
        "default_tx()": optimizer.default_tx(),
        "get_last_lr()": optimizer.get_last_lr(),
        "state_dict()": optimizer.state_dict(),
    }


def test_ours_has_every_public_attribute_of_the_original_and_of_what_it_hands_out():
    every = []
    for cls in (braintools.optim.Adadelta, Adadelta):
        optimizer = made(cls)
        optimizer.add_param_group({"v": state(1.0)}, lr=0.5)
        every.append({f"{where}.{name}" for where, x in handed_out(optimizer).items() for name in public(x)})
    theirs, ours = every
    assert theirs - ours == ABSENT.keys() - {"param_states.clear"}
    assert handed_out(optimizer)["param_groups[0]"].keys() >= {"params", "lr", "weight_decay"}


TREES = {
    "flat": lambda: {"a": state(1.0), "b": state(2.0)},
    "nested": lambda: {"layer": {"w": state(1.0), "b": state(2.0)}, "z": state(3.0)},
    "paths": lambda: brainstate.nn.Sequential(brainstate.nn.Linear(2, 2), brainstate.nn.Linear(2, 1)).states(),
    "list": lambda: [state(1.0), state(2.0)],
    "tied": lambda: dict.fromkeys("ab", state(1.0)),
}


@pytest.mark.parametrize("tree", TREES)
def test_the_registered_states_are_given_in_the_forms_of_the_original(tree):
    states = TREES[tree]()
    theirs, ours = (made(cls, states).param_states for cls in (braintools.optim.Adadelta, Adadelta))
    for form in ("to_pytree", "to_dict"):
        assert getattr(ours, form)() == getattr(theirs, form)()
    for form in ("to_pytree_value", "to_dict_value"):
        jax.tree.map(np.testing.assert_array_equal, getattr(ours, form)(), getattr(theirs, form)())
    assert ours.num_unique_states == theirs.num_unique_states == len(ours) == len(theirs)
    for path, one in ours.get_flattened():
        assert ours.get_state_by_path(path) is one
    assert ours.get_state_by_path(("no", "such")) is None


def test_gradients_of_the_registered_states_train_them():
    model = brainstate.nn.Linear(2, 1)
    optimizer = made(Adadelta, model.states(brainstate.ParamState))
    for trained in (optimizer.param_states.to_pytree(), optimizer.param_states):
        before = model.weight.value["weight"]
        optimizer.update(brainstate.transform.grad(lambda: model(jnp.ones((3, 2))).sum(), model.states())())
        assert (model.weight.value["weight"] != before).all()
        assert jax.tree.structure(brainstate.transform.grad(lambda: model(jnp.ones(2)).sum(), trained)())


def test_a_state_can_be_saved_before_anything_is_registered():
    assert Adadelta(lr=0.5).state_dict()["opt_state"] is None


# --------------------------------------------------------------------------------------------------------------- keys

STRANGE = ["(1,)", "()", "(None,)", "('a', 'b')", "((1,), 2)", "(" + "-" * 3000 + ")", "[0]", "0"]
KEYS = st.text() | st.sampled_from(STRANGE)
TUPLES = st.tuples(st.text(max_size=2), st.text(max_size=2))


def msgpacked(tree, path):
    braintools.file.msgpack_save(str(path), tree, verbose=False)
    return braintools.file.msgpack_load(str(path), verbose=False)


@settings(deadline=None, max_examples=30)
@given(
    keys=st.lists(KEYS | TUPLES, min_size=1, max_size=3, unique_by=str),
    inner=st.lists(KEYS, max_size=2, unique=True),
)
@example(keys=["('embed', 'weight')"], inner=[])
@example(keys=[("embed", "weight"), "('embed', 'other')"], inner=["(1,)", "1"])
@example(keys=["(1,)", "()", "(None,)"], inner=["(1,)"])
@example(keys=["(" + "-" * 3000 + ")"], inner=[])
@example(keys=["ü.ñ/字", ""], inner=[""])
def test_any_string_is_a_key(keys, inner, tmp_path_factory):
    value = {key: jnp.ones(2) for key in inner} or jnp.ones(2)
    states = {key: brainstate.ParamState(value) for key in keys}
    if len({str(key) for key in keys}) < len(keys) or not all(isinstance(key, str) for key in keys) and len(keys) > 1:
        states = {str(key): s for key, s in states.items()}  # JAX sorts the keys of a dictionary
    try:
        ours = made(Adadelta, states)
    except ValueError as error:
        assert "two" in str(error)  # of one dotted name
        return
    ours.update({key: value for key in states})
    again, folder = copy.deepcopy(ours), tmp_path_factory.mktemp("keys")
    for saved in (ours.state_dict(), msgpacked(ours.state_dict(), folder / "state")):
        again.load_state_dict(saved)
        jax.tree.map(np.testing.assert_array_equal, again.opt_state.value, ours.opt_state.value)
    interop.from_optax(again, interop.to_optax(ours), step_count=1)
    theirs = made(braintools.optim.Adadelta, states)
    theirs.update({key: value for key in states})
    for saved in (theirs.state_dict(), msgpacked(theirs.state_dict(), folder / "theirs")):
        again.load_state_dict(saved)


def test_embedding_by_strings_of_paths():
    class Net(brainstate.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = brainstate.nn.Embedding(3, 2)

    states = {str(key): s for key, s in Net().states(brainstate.ParamState).items()}
    ours = made(Adadelta, states)
    ours.load_state_dict(ours.state_dict())
    assert list(ours.param_states) == ["('embed', 'weight')"]


def test_strange_keys_pass_through_orbax(tmp_path):
    orbax = pytest.importorskip("orbax.checkpoint")
    ours = made(Adadelta, {key: state(1.0) for key in ("('a', 'b')", "(1,)", "ü字", "a b", "", "/", "x/y", "%2F")})
    ours.update({key: jnp.ones(1) for key in ours.param_states})
    checkpointer = orbax.StandardCheckpointer()
    checkpointer.save(tmp_path / "state", ours.state_dict())
    checkpointer.wait_until_finished()
    again = copy.deepcopy(ours)
    again.load_state_dict(checkpointer.restore(tmp_path / "state", ours.state_dict()))
    jax.tree.map(np.testing.assert_array_equal, again.opt_state.value, ours.opt_state.value)


# ------------------------------------------------------------------------------------------------------ dtypes, x64

DTYPES = ["float32", "float16", "bfloat16", "complex64"]
ON = {"weight_decay": 0.1, "grad_clip_norm": 1.0, "grad_clip_value": 0.5, "nonfinite": "skip"}


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("accumulator_dtype", [None, "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, ON], ids=["plain", "all"])
def test_strict_promotion_in_every_dtype(dtype, accumulator_dtype, options):
    w = brainstate.ParamState(jnp.ones(2, dtype))
    ours = made(Adadelta, {"w": w}, accumulator_dtype=accumulator_dtype, **options)
    for g in (jnp.ones(2, dtype), np.ones(2, np.float32)):
        ours.update({"w": g})
        brainstate.transform.jit(lambda g=g: ours.update({"w": g}))()
    ours.load_state_dict(ours.state_dict())
    assert w.value.dtype == dtype and ours.step_count.value == 4


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("dtype", DTYPES)
def test_strict_promotion_in_the_transformation(dtype):
    init, update = scale_by_adadelta()
    params = {"w": jnp.ones(2, dtype)}
    assert jax.jit(update)(params, init(params))[0]["w"].dtype == dtype


RATES = {
    "function": lambda: lambda step: 0.5**step,
    "LRScheduler": lambda: LRScheduler(lambda epoch: 0.5**epoch),
    "number": lambda: 0.5,
}


@pytest.mark.parametrize("lr", RATES)
def test_double_precision_may_be_turned_off_again(lr):
    with jax.enable_x64(True):
        ours = made(Adadelta, {"w": state(1.0, 2.0, dtype="float32")}, lr=RATES[lr]())
        ours.update({"w": np.ones(2, np.float32)})

    def step(_):
        ours.update(G)
        ours.lr_scheduler.step()

    brainstate.transform.for_loop(step, jnp.arange(2))
    brainstate.transform.scan(lambda carry, x: (carry, step(x)), 0, jnp.arange(2))
    brainstate.transform.while_loop(lambda k: k < 2, lambda k: (step(k), k + 1)[1], jnp.int32(0))
    assert ours.step_count.value == 7


def test_an_lr_that_was_set_is_a_plain_number():
    ours = made(Adadelta, lr=0.3)
    for value in (0.25, np.float32(0.25), jnp.float32(0.25), jnp.array(0.25)):
        ours.current_lr = value
        json.dumps([ours.current_lr, ours.base_lr, ours.get_last_lr(), ours.param_groups[0]["lr"].value])
        assert ours.current_lr == 0.25 and type(ours.current_lr) is float
    ours = made(Adadelta, lr=lambda step: 0.5**step)
    ours.update(G)
    assert json.dumps(ours.current_lr) == "0.5"


# ------------------------------------------------------------------------------------------- compilations and memory


class Compilations:
    """Counts what XLA compiles inside a with block."""

    def __enter__(self):
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self.listen)
        return self

    def listen(self, event, seconds, **_):
        self.count += event == "/jax/core/compile/backend_compile_duration"

    def __exit__(self, *_):
        jax.monitoring.unregister_event_duration_listener(self.listen)


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
        ours.update(G)
        by_metric = isinstance(ours.lr_scheduler, braintools.optim.ReduceLROnPlateau)
        ours.lr_scheduler.step(*[metric] * by_metric)

    step(jnp.float32(0))
    with Compilations() as after_the_first:
        for k in range(1, 5):
            step(jnp.float32(k))
    assert len(traces) == 1 and after_the_first.count == 0


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
        ours.update(G | {"v": jnp.ones(1)})
    ours.current_lr, ours.state_dict(), repr(ours)
    alive = weakref.ref(trainer), weakref.ref(ours)
    del ours, trainer, f
    gc.collect()
    assert [ref() for ref in alive] == [None, None]


def test_a_fresh_schedule_compiles_no_update():
    update = lambda: made(Adadelta, lr=optax.cosine_decay_schedule(1.0, 100)).update(G)
    update()
    before = update_all._cache_size()
    for _ in range(5):
        update()
    assert update_all._cache_size() == before


# ----------------------------------------------------------------------------------------------------------- messages


def test_registering_a_model_that_was_made_anew_says_what_to_do():
    ours = made(Adadelta)
    with pytest.raises(ValueError, match="two States are named 'w': .* make a new optimizer"):
        ours.register_trainable_weights({"w": state(1.0, 2.0)})


@pytest.mark.parametrize("make", [lambda: braintools.optim.StepLR(1.0, 2), LRScheduler], ids=["StepLR", "LRScheduler"])
def test_a_scheduler_has_one_optimizer(make):
    scheduler = make()
    first = made(Adadelta, lr=scheduler)
    with pytest.raises(ValueError, match="is that of another optimizer, .* make one for each"):
        Adadelta(lr=scheduler)
    scheduler.step(), scheduler.step()
    assert scheduler.optimizer is first and first.current_lr == scheduler.get_last_lr()[0]


def test_eps_of_zero_says_why_not():
    with pytest.raises(ValueError, match="never starts to move, and where its gradient is 0 the first step is 0/0"):
        Adadelta(eps=0)
