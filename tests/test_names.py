"""Names of parameters and keys of trees: any string will do, and no two may be one."""

import copy
import dataclasses
from typing import NamedTuple

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ONE, default_optimizer, made, near_after_ones, state
from hypothesis import example, given, settings
from hypothesis import strategies as st

from braintools_adadelta import Adadelta, interop


def test_two_states_of_one_name():
    a, b = state(1.0), state(2.0)
    ours = default_optimizer({"w": a})
    with pytest.raises(ValueError, match="two States are named 'w': give each parameter a name of its own"):
        ours.register_trainable_weights({"v": state(0.0), "w": b})
    assert list(ours.param_states.values()) == [a]


def test_two_arrays_of_one_name_are_refused():
    nested = brainstate.ParamState({"a": {"b": ONE}, "a.b": ONE})
    with pytest.raises(ValueError, match=r"in the value of 'w' two arrays have one name, of \['w.a.b'\]: use keys wit"):
        Adadelta().register_trainable_weights({"w": nested})
    with pytest.raises(ValueError, match="two States are named 'a.real'"):
        Adadelta().register_trainable_weights({"a": state(1j), "a.real": state(1.0)})


def test_a_name_that_looks_like_a_number():
    ours = default_optimizer({"(0)": state(1.0)})
    ours.load_state_dict(ours.state_dict())
    assert set(ours.opt_state.value.e_g2) == {"(0)"}


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Record:
    w: jax.Array


class Pair(NamedTuple):
    w: object


def test_records_of_the_users():
    record, w = brainstate.ParamState(Record(ONE)), state(1.0)
    ours = default_optimizer({"p": record})
    ours.update({"p": Record(ONE)})
    saved = ours.state_dict()
    ours.update({"p": Record(ONE)})
    ours.load_state_dict(saved)
    assert ours.step_count.value == 1
    default_optimizer(Pair(w)).update(Pair(ONE))
    near_after_ones(w.value, 1)


# ------------------------------------------------------------------------------------------------------------ any key

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
