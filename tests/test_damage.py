"""What can happen to checkpoints: a process killed while it saves, a full disk, bits flipped, files cut short."""

import gc
import inspect
import logging
import pickle
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import everything, same
from hypothesis import given, settings
from hypothesis import strategies as st

from braintools_adadelta import Adadelta

KEEPING = """
import os, random, resource, signal, sys, time, warnings
warnings.simplefilter("ignore")
import brainstate, braintools, jax, jax.numpy as jnp, numpy as np
from braintools_adadelta import Adadelta

how, folder, *others = sys.argv[1:]
if how == "Orbax":
    import orbax.checkpoint as ocp

def keeper(path):
    # Return save(step, tree), what waits for it, and restore(tree), which gives None where nothing was saved.
    if how == "msgpack":  # written beside and renamed
        def save(step, tree):
            braintools.file.msgpack_save(path + ".new", tree, verbose=False)
            os.replace(path + ".new", path)
        load = lambda _: braintools.file.msgpack_load(path, verbose=False) if os.path.exists(path) else None
        return save, lambda: None, load
    manager = ocp.CheckpointManager(path, options=ocp.CheckpointManagerOptions(max_to_keep=2))
    save = lambda step, tree: manager.save(step, args=ocp.args.StandardSave(tree))
    def restore(tree):
        step = manager.latest_step()
        return None if step is None else manager.restore(step, args=ocp.args.StandardRestore(tree))
    return save, manager.wait_until_finished, restore
"""


def run(script, *arguments):
    """Run a script that keeps checkpoints in the way that the first argument says; return what it prints."""
    if arguments[0] == "Orbax":
        pytest.importorskip("orbax.checkpoint")
    command = [sys.executable, "-W", "ignore", "-c", KEEPING + script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-3000:]
    return done.stdout.split()


# ------------------------------------------------------------------------------------------------ killed while saving

KILLED = """
def train(path, last, ready=None):
    w = brainstate.ParamState(jnp.arange(200_000.0))
    optimizer = Adadelta(rho=0.9, eps=1.0).register_trainable_weights({"w": w})
    tree = lambda: {"w": w.value, "optimizer": optimizer.state_dict()}
    save, finish, restore = keeper(path)
    if (saved := restore(tree())) is not None:
        w.value = jnp.asarray(saved["w"])
        optimizer.load_state_dict(saved["optimizer"])
        assert int(optimizer.step_count.value) == latest(path)
    first = int(optimizer.step_count.value) + 1
    for step in range(first, last + 1):
        optimizer.update({"w": jnp.sin(w.value + step)})
        save(step, tree())
        if step == first:  # so each life gets on
            finish()
        elif ready:
            os.write(ready, b"x")
    finish()
    os.write(1, jax.device_get(optimizer.opt_state.value.e_delta2["w"] + w.value).tobytes().hex().encode() + b" ")

def child(*arguments):  # forked before JAX starts anything: imports are all that they share
    pid = os.fork()
    if not pid:
        train(*arguments)
        os._exit(0)
    return pid

def latest(path):
    if how == "msgpack":
        return int(braintools.file.msgpack_load(path, verbose=False)["optimizer"]["step_count"])
    return max(int(name) for name in os.listdir(path) if name.isdigit())

rng, path, unfinished = random.Random(0), folder + "/killed", 0
for _ in range(int(others[0])):
    heard, ready = os.pipe()
    pid = child(path, 10**9, ready)
    os.close(ready)
    assert os.read(heard, 1), "it ended by itself"
    time.sleep(rng.uniform(0, 0.1))
    os.kill(pid, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    os.close(heard)
    unfinished += any("tmp" in name for name in os.listdir(path)) if how == "Orbax" else len(os.listdir(folder)) > 1
steps = latest(path)
for name in ("killed", "straight"):
    os.waitpid(child(folder + "/" + name, steps + 2), 0)
print(steps, unfinished)
"""


@pytest.mark.parametrize(
    "how, kills", [("msgpack", 10), ("Orbax", 3), pytest.param("Orbax", 20, marks=pytest.mark.slow)]
)
def test_killed_while_saving_it_resumes_from_the_last_good_checkpoint(how, kills, tmp_path):
    """As if nothing had happened, bit by bit. At random moments; some of those leave one of Orbax's unfinished."""
    resumed, straight, steps, unfinished = run(KILLED, how, tmp_path, kills)
    assert resumed == straight and len(straight) == 200_000 * 8
    assert int(steps) >= (2 * kills if how == "msgpack" else kills)  # msgpack has saved twice before it is killed
    print(f"{kills} kills, {unfinished} of them left a checkpoint unfinished; {steps} steps")
    assert how == "msgpack" or int(unfinished) > 0  # msgpack's is written in so short a time that none may be hit


# ---------------------------------------------------------------------------------------------------------- full disk

FULL = """
w = brainstate.ParamState(jnp.arange(100_000.0))
optimizer = Adadelta().register_trainable_weights({"w": w})
update = lambda: optimizer.update({"w": jnp.sin(w.value)})
numbers = lambda state: jax.tree.map(np.array, state["opt_state"])
same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)
save, finish, _ = keeper(folder + "/saved")

update()
good = numbers(optimizer.state_dict())
save(1, optimizer.state_dict()), finish()
update()
before = numbers(optimizer.state_dict())
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # no file may grow beyond that: a write fails half way
try:
    save(2, optimizer.state_dict()), finish()
except Exception as error:
    print(type(error).__name__)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
same(numbers(optimizer.state_dict()), before)
_, _, restore = keeper(folder + "/saved")  # as a program does that starts again
optimizer.load_state_dict(restore(optimizer.state_dict()))
same(numbers(optimizer.state_dict()), good)
"""


@pytest.mark.parametrize("how", ["msgpack", "Orbax"])
def test_on_a_full_disk_saving_fails_and_the_checkpoint_before_is_good(how, tmp_path):
    assert run(FULL, how, tmp_path)  # the name of an error


# ---------------------------------------------------------------------------------------- bits flipped, files cut short


def trained(steps):
    w, b = brainstate.ParamState(jnp.arange(4096.0)), brainstate.ParamState(jnp.ones(3))
    ours = Adadelta(lr=0.5).register_trainable_weights({"w": w, "b": b})
    for k in range(steps):
        ours.update({"w": jnp.sin(w.value + k), "b": jnp.ones(3)})
    return ours


SAVED, OTHER = trained(3), trained(1)
GOOD, BEFORE = jax.tree.map(np.array, SAVED.state_dict()["opt_state"]), everything(OTHER)


@st.composite
def damage(draw, data):
    """Draw what becomes of the bytes `data`: cut short, or with a few bits flipped."""
    if draw(st.booleans()):
        return data[: draw(st.integers(0, len(data) - 1))]
    damaged = bytearray(data)
    for bit in draw(st.sets(st.integers(0, 8 * len(data) - 1), min_size=1, max_size=4)):
        damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def check_load(state):
    """Say that `state` is refused and nothing changes, or that its accumulators are those that were saved."""
    try:
        OTHER.load_state_dict(state)
    except (TypeError, ValueError):
        same(everything(OTHER), BEFORE)
    else:
        same(OTHER.state_dict()["opt_state"], GOOD)
        OTHER.load_state_dict(ORIGINAL)


ORIGINAL = OTHER.state_dict()


def close_coroutines():
    """Close what Orbax leaves suspended when it fails: or pytest would hear of it at its end, and fail."""
    for x in gc.get_objects():
        if inspect.iscoroutine(x):
            with suppress(Exception):
                x.close()


def msgpack_of(state, folder):
    braintools.file.msgpack_save(str(folder / "state"), state, verbose=False)
    return (folder / "state").read_bytes()


@settings(max_examples=100)
@given(st.data())
def test_a_damaged_msgpack_file_is_refused_or_the_accumulators_are_those_that_were_saved(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    (folder / "damaged").write_bytes(data.draw(damage(msgpack_of(SAVED.state_dict(), folder))))
    try:
        state = braintools.file.msgpack_load(str(folder / "damaged"), verbose=False)
    except Exception:  # msgpack has seen it
        return
    check_load(state)


@settings(max_examples=100)
@given(st.data())
def test_a_damaged_pickle_is_refused_or_is_what_was_saved(data):
    """Damaged code of a pickle may mean anything; so only numbers are damaged, and the end."""
    pickled = pickle.dumps(SAVED)
    numbers = [np.asarray(x).tobytes() for x in (*GOOD["e_g2"].values(), *GOOD["e_delta2"].values())]
    start = pickled.index(data.draw(st.sampled_from(numbers)))
    part = pickled[start : start + 12]
    damaged = data.draw(damage(part))
    if len(damaged) < len(part):
        damaged, pickled = b"", pickled[: start + len(damaged)]
    with pytest.raises((ValueError, pickle.UnpicklingError, EOFError)):
        pickle.loads(pickled[:start] + damaged + pickled[start + len(part) :])


@pytest.mark.filterwarnings("ignore")  # of futures that Orbax forgets when it fails
@settings(max_examples=25)
@given(st.data())
def test_a_damaged_orbax_directory_is_refused_or_the_accumulators_are_those_that_were_saved(tmp_path_factory, data):
    """Most flipped bits of an array get through Orbax: its files have checksums for everything but that."""
    ocp = pytest.importorskip("orbax.checkpoint")
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # which shows each of them at length
    folder = Path(tmp_path_factory.getbasetemp()) / "orbax"
    checkpointer = ocp.StandardCheckpointer()
    if not folder.exists():
        checkpointer.save(folder / "good", SAVED.state_dict())
        checkpointer.wait_until_finished()
    shutil.rmtree(folder / "damaged", ignore_errors=True)
    shutil.copytree(folder / "good", folder / "damaged")
    files = sorted(path for path in (folder / "damaged").rglob("*") if path.is_file() and path.stat().st_size)
    large = [path for path in files if path.stat().st_size > 8192]  # with the numbers
    path = data.draw(st.sampled_from(files) | st.sampled_from(large))
    path.write_bytes(data.draw(damage(path.read_bytes())))
    try:
        state = checkpointer.restore(folder / "damaged", OTHER.state_dict())
    except Exception:  # Orbax has seen it
        state = None
    close_coroutines()
    if state is not None:
        check_load(state)


@pytest.mark.filterwarnings("ignore")
def test_where_the_last_checkpoint_is_damaged_the_one_before_is_found(tmp_path):
    """As the page says: delete it, and start again."""
    ocp = pytest.importorskip("orbax.checkpoint")
    manager, ours = ocp.CheckpointManager(tmp_path / "saved"), trained(1)
    for step in (1, 2):
        manager.save(step, args=ocp.args.StandardSave(ours.state_dict()))
        manager.wait_until_finished()
        ours.update({"w": jnp.ones(4096), "b": jnp.ones(3)})
    for path in (tmp_path / "saved" / "2").rglob("ocdbt.process_0/d/*"):  # where the numbers are
        data = bytearray(path.read_bytes())
        for bit in range(0, 8 * len(data), 101):
            data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
    restore = lambda manager: ours.load_state_dict(
        manager.restore(manager.latest_step(), args=ocp.args.StandardRestore(ours.state_dict()))
    )
    with pytest.raises(Exception, match="DATA_LOSS|FAILED_PRECONDITION|error while reading|is not allowed"):
        restore(manager)
    close_coroutines()
    assert ours.step_count.value == 3
    manager.delete(2)
    restore(ocp.CheckpointManager(tmp_path / "saved"))
    assert ours.step_count.value == 1
    same(ours.state_dict()["opt_state"], trained(1).state_dict()["opt_state"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_bits_that_are_flipped_in_a_number_are_always_seen(dtype):
    """One by one; the error names the array."""
    with jax.enable_x64(dtype == "float64"):
        ours = Adadelta(accumulator_dtype=dtype).register_trainable_weights({"w": brainstate.ParamState(jnp.ones(4))})
        ours.update({"w": jnp.ones(4)})
        state = jax.tree.map(np.array, ours.state_dict())
        numbers = state["opt_state"]["e_delta2"]["w"].view(np.uint8)
        for bit in range(8 * len(numbers)):
            numbers[bit // 8] ^= 1 << bit % 8
            with pytest.raises(ValueError, match="^the accumulator 'e_delta2.w' is not allowed: it "):
                ours.load_state_dict(state)
            numbers[bit // 8] ^= 1 << bit % 8
        ours.load_state_dict(state)
        ours.load_state_dict({name: x for name, x in state.items() if name != "checksum"})


def test_accumulators_that_were_changed_on_purpose_are_loaded_without_the_checksum():
    ours = trained(2)
    state = ours.state_dict()
    state["opt_state"]["e_g2"]["b"] = jnp.full(3, 0.25)
    with pytest.raises(ValueError, match="'e_g2.b' is not allowed.* changed it yourself, leave 'checksum' out"):
        ours.load_state_dict(state)
    del state["checksum"]
    ours.load_state_dict(state)
    assert ours.opt_state.value.e_g2["b"][0] == 0.25


@pytest.mark.parametrize("bad", [None, "x", 3, np.zeros((2, 2)), [[1, 2]] * 5])
def test_a_checksum_that_is_damaged_itself(bad):
    ours = trained(2)
    with pytest.raises(ValueError, match="^(checksum = .* is not allowed|the accumulator)"):
        ours.load_state_dict(ours.state_dict() | {"checksum": bad})
