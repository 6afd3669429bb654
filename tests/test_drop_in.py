"""What programs written for the original rely on: its attributes, its forms of the States, its base classes."""

import subprocess
import sys

import brainstate
import braintools
import jax
import numpy as np
import pytest
from helpers import made, state

from braintools_adadelta import Adadelta

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


# ------------------------------------------------------------------------------------------------------- base classes


def test_it_counts_as_an_optimizer_of_braintools():
    ours = Adadelta()
    assert isinstance(ours, braintools.optim.Optimizer) and isinstance(ours, braintools.optim.OptaxOptimizer)


@pytest.mark.parametrize("when", ["before", "after our class", "after an instance"])
def test_it_counts_as_an_optimizer_whenever_braintools_is_imported(when):
    code = {
        "before": "import braintools; from braintools_adadelta import Adadelta; o = Adadelta()",
        "after our class": "from braintools_adadelta import Adadelta; import braintools; o = Adadelta()",
        "after an instance": "import sys; from braintools_adadelta import Adadelta; o = Adadelta()\n"
        "assert 'braintools' not in sys.modules; import braintools",
    }[when] + "\nassert isinstance(o, braintools.optim.Optimizer) and isinstance(o, braintools.optim.OptaxOptimizer)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
