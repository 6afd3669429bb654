"""What two processes that share arrays can save, and how, and load: run by test_layouts.py, as process 0 and as 1."""

import copy
import pickle
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
import jax

rank, port, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{port}", 2, rank, heartbeat_timeout_seconds=10)

import brainstate
import braintools
import cloudpickle
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from braintools_adadelta import Adadelta

MESH = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
CUT, WHOLE = NamedSharding(MESH, PartitionSpec("x")), NamedSharding(MESH, PartitionSpec())


def run(steps):
    w = brainstate.ParamState(jax.device_put(np.arange(8, dtype=np.float32), CUT))
    optimizer = Adadelta().register_trainable_weights({"w": w})
    for _ in range(steps):
        optimizer.update({"w": jax.device_put(np.arange(8, dtype=np.float32), CUT)})
    return optimizer


gather = jax.jit(lambda tree: tree, out_shardings=WHOLE)


def whole(tree):
    """Return what is in `tree`, with numpy arrays that this process has all of."""
    return jax.tree.map(lambda x: np.array(gather(x)) if isinstance(x, jax.Array) else x, tree)


def same(got, want):
    jax.tree.map(np.testing.assert_array_equal, whole(got), whole(want))


def saves_with_orbax(optimizer):
    """As the page and the error below say."""
    from orbax.checkpoint import StandardCheckpointer

    checkpointer, again = StandardCheckpointer(), run(0)
    checkpointer.save(folder / "saved", optimizer.state_dict())
    checkpointer.wait_until_finished()
    again.load_state_dict(checkpointer.restore(folder / "saved", again.state_dict()))
    same(again.opt_state.value, optimizer.opt_state.value)
    assert again.step_count.value == 2


def says_that_orbax_must_save_it(optimizer):
    """Of the optimizer we say so; what state_dict() gives is plain arrays, and there the words are JAX's."""
    for dumps in (pickle.dumps, cloudpickle.dumps):
        with pytest.raises(ValueError, match=r"cannot be pickled.*Orbax.*StandardCheckpointer\(\).save\(path, "):
            dumps(optimizer)
    state = optimizer.state_dict()
    msgpack = lambda state: braintools.file.msgpack_save(str(folder / f"state-{rank}"), state, verbose=False)
    page = " ".join((Path(__file__).parent.parent / "docs/scale.md").read_text().split())
    for save in (pickle.dumps, msgpack):
        with pytest.raises(RuntimeError) as error:
            save(state)
        words = str(error.value).partition(" is not possible")[0]
        assert "spans non-addressable" in words and words in page


def is_copied(optimizer):
    twin = copy.deepcopy(optimizer)
    same(twin.state_dict(), optimizer.state_dict())
    assert twin.opt_state.value.e_g2["w"].sharding == CUT


def loads_what_one_process_saved(optimizer):
    """Arrays that each process has whole, as msgpack gives them; and refuses them in both if one is damaged."""
    state, again = whole(optimizer.state_dict()), run(0)
    again.load_state_dict(state)
    same(again.opt_state.value, optimizer.opt_state.value)
    assert again.opt_state.value.e_g2["w"].sharding == CUT
    state["opt_state"]["e_g2"]["w"][7] = -1  # on a device of process 1
    shared = jax.tree.map(lambda x: jax.device_put(x, CUT) if np.shape(x) == (8,) else x, state)
    for damaged in (state, shared):
        with pytest.raises(ValueError, match="'e_g2.w' is not allowed: it is negative"):
            again.load_state_dict(damaged)
    same(again.opt_state.value, optimizer.opt_state.value)


if __name__ == "__main__":
    checks = [says_that_orbax_must_save_it, is_copied, loads_what_one_process_saved]
    for check in [saves_with_orbax, *checks] if "orbax" in sys.argv else checks:
        check(run(2))
        print(f"process {rank} {check.__name__}", flush=True)
