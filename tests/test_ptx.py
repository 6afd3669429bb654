"""The committed PTX is that of today's update; what any GPU may make of it is within the bound; what was counted."""

import importlib.util
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import lowered
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braintools_adadelta.arithmetic import in_parts
from braintools_adadelta.oracle.bounds import PLAIN, bounds, machine_of
from braintools_adadelta.oracle.exact import exact, largest_root, step
from braintools_adadelta.oracle.ptx import kernels, run, to_bfloat16
from braintools_adadelta.oracle.ulp import FORMATS

ROOT = Path(__file__).parent.parent
FILES = {path.stem: path.read_text("utf-8") for path in sorted((ROOT / "tests/ptx").glob("*.ptx"))}
ELEMENTWISE = [name for name in FILES if "norm" not in name]
RECORD = json.loads((ROOT / "docs/results/accelerators.json").read_text("utf-8"))
GOALS = {"float32": 28, "float32, two groups": 28, "float32, decay and clip by value": 28, "float32, skip": 32}
GOALS |= {"bfloat16": 22, "float16": 22, "float32, clip by norm": 32, "bfloat16, clip by norm": 24}
GIVEN = {  # what parameters of 16 bits can hold
    jnp.bfloat16: to_bfloat16,
    jnp.float16: lambda x: np.clip(x, -65504, 65504).astype(np.float16).astype(np.float32),
}
each_file = pytest.mark.parametrize("name", FILES)


def head(text):
    return dict(line.removeprefix("// ").split(": ", 1) for line in text.splitlines() if line.startswith("// "))


@each_file
def test_the_update_is_still_the_one_that_was_compiled(name):
    """Else `make accelerators` must compile it anew. The hash is of its operations, whatever the version of JAX."""
    about = head(FILES[name])
    assert set(about["operands"].split()) <= set("theta g e_g2 e_delta2 lr decay rho eps v c n scale".split())
    assert about["operations"] == lowered.fingerprint(lowered.CASES[about["case"]])


def numbers(least, most, zero=True):
    """Draw four positive numbers, their exponents evenly between two powers of two, or zeros."""
    one = st.floats(least, most).map(lambda x: 2.0**x)
    return st.lists((one | st.just(0.0)) if zero else one, min_size=4, max_size=4)


def states(wide):
    """Draw four states from everywhere: from what rounds to zero to beyond the largest whose square is finite."""
    low, high = (-1073, 1022) if wide else (-148, 126)
    signs = st.lists(st.sampled_from([-1.0, 1.0]), min_size=4, max_size=4)
    averages = numbers(low, high - 2), numbers(low, 60 if wide else 20)
    return st.tuples(numbers(low, high), signs, *averages, numbers(-20, 20), signs)


@settings(max_examples=25)
@given(data=st.data())
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_what_any_gpu_may_compute_is_within_the_bound(name, data):
    case = lowered.CASES[head(FILES[name])["case"]]
    dtype = np.float64 if case.dtype == jnp.float64 else np.float32
    g, signs, e_g2, e_delta2, theta, more_signs = map(np.array, data.draw(states(dtype is np.float64)))
    options = {"rho": data.draw(st.sampled_from([0.9, 0.51, 0.999])), "eps": 1e-6}
    numbers = {"lr": 1.0, "eps": 1e-6, "rho": in_parts(options["rho"], np.dtype(dtype))}
    if case.decay:
        options |= {"weight_decay": 0.1, "grad_clip_value": 1.0}
        numbers |= {"decay": 0.1, "v": 1.0}
    with np.errstate(over="ignore", under="ignore"):
        e_g2, e_delta2 = e_g2.astype(dtype), e_delta2.astype(dtype)
        g, theta = (GIVEN.get(case.dtype, lambda x: x)(x.astype(dtype)) for x in (g * signs, theta * more_signs))
    column = lambda x: np.array(x, dtype).reshape(-1, 1)
    arrays = {"theta": theta, "g": g, "e_g2": e_g2, "e_delta2": e_delta2, **numbers}
    [kernel] = kernels(FILES[name]).values()
    found = run(kernel, {key: column(x) for key, x in arrays.items()})
    fmt, stored = FORMATS[np.dtype(dtype).name], FORMATS.get(np.dtype(case.dtype).name)
    largest = exact(largest_root(fmt))[0]
    truth = step(theta, g, e_g2, e_delta2, lr=1.0, largest=largest, **options)
    same = {"fmt": fmt, "form": PLAIN, "m": machine_of("nvidia", fmt), "largest": largest}
    allowed = bounds(truth, theta, e_g2, e_delta2, stored=None if stored is fmt else stored, **same, **options)
    for field, ends in found.items():
        for i in range(4):
            from_zero = field == "theta" and theta[i] == 0 and stored is fmt
            judged = "delta" if from_zero else field  # lr is 1
            far = max(abs(exact(x.ravel())[i] - getattr(truth, judged)[i]) for x in ends)
            assert far <= getattr(allowed, judged)[i], (judged, i)


@pytest.mark.parametrize("case", GOALS)
@pytest.mark.parametrize("target", RECORD["targets"])
def test_what_was_counted_is_what_is_needed(target, case):
    """Each array is read or written once; where all gradients must be known first, they are read once more."""
    assert RECORD["targets"][target][case]["ours"]["bytes per parameter"] <= GOALS[case] + 0.01


@pytest.mark.parametrize("case", ["float32", "float32, clip by norm"])
@pytest.mark.parametrize("target", RECORD["many"])
def test_a_hundred_parameters_start_no_more_programs_than_those_of_optax(target, case):
    counted = RECORD["many"][target][case]
    assert counted["ours"]["programs"] <= counted["optax"]["programs"]


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu, a compiler for TPUs, is not installed")
def test_what_is_counted_here_is_what_was_counted(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "tools"), *sys.path])
    import accelerators

    place = accelerators.placed(accelerators.described("TPU v5e").devices[:1])
    low = accelerators.ours(lowered.CASES["bfloat16"], place, 1, accelerators.ONE)
    assert accelerators.row(low, accelerators.ONE[0])[0] == RECORD["targets"]["TPU v5e"]["bfloat16"]["ours"]
    assert jax.default_backend() == "cpu"
