"""The original's own test files, run with our class in place of its Adadelta, and then of all its optimizers."""

import os
import subprocess
import sys
from pathlib import Path

import braintools
import pytest

SWAP = """
import inspect, os, warnings
warnings.simplefilter("ignore")
import braintools.optim as optim
from braintools.optim import _optax_optimizer as module
import braintools_adadelta

whose, everywhere = os.environ["SWAP"].split()
Adadelta = {"ours": braintools_adadelta.Adadelta, "theirs": optim.Adadelta}[whose]

def stand_in(cls):
    def __init__(self, *args, **kwargs):
        given = inspect.signature(cls.__init__).bind(self, *args, **kwargs).arguments
        common = ("lr", "weight_decay", "grad_clip_norm", "grad_clip_value")
        Adadelta.__init__(self, **{name: given[name] for name in common if name in given})
    return type(cls.__name__, (Adadelta,), {"__init__": __init__})

for name in set(module.__all__) - {"OptaxOptimizer"} if everywhere == "all" else {"Adadelta"}:
    cls = Adadelta if name == "Adadelta" else stand_in(getattr(module, name))
    setattr(optim, name, cls), setattr(module, name, cls)
"""


def outcomes(suite, folder, swap, select=""):
    """Run the file `suite` of braintools with the swap in place; return {test: outcome}."""
    (folder / "swap.py").write_text(SWAP)
    flags = [
        "-q",
        "-rA",
        "--tb=no",
        "-p",
        "swap",
        "-p",
        "no:cacheprovider",
        "--rootdir=.",
        *(["-k", select] if select else []),
    ]
    path = Path(braintools.__file__).parent / suite
    environment = {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]), "SWAP": swap}
    command = [sys.executable, "-m", "pytest", *flags, str(path)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    lines = [line.split(" ", 2) for line in done.stdout.splitlines()]
    found = {line[1].rpartition("test.py")[2]: line[0] for line in lines if line[0] in ("PASSED", "FAILED", "ERROR")}
    assert found, done.stdout + done.stderr
    return found


SUITES = {  # file: which of its tests are run, how many they are
    "optim/_optax_optimizer_test.py": ("adadelta or with_step_lr or optimizers_with_weight_decay", 6),
    "optim/_audit_fixes_test.py": ("Adadelta", 3),
}


@pytest.mark.parametrize("suite", SUITES)
def test_the_originals_tests_of_adadelta_pass_with_ours(suite, tmp_path):
    select, count = SUITES[suite]
    assert list(outcomes(suite, tmp_path, "ours one", select).values()) == ["PASSED"] * count


def test_the_originals_tests_of_its_schedulers_pass_with_ours_for_every_optimizer(tmp_path):
    found = outcomes("optim/_optax_lr_scheduler_test.py", tmp_path, "ours all")
    assert set(found.values()) == {"PASSED"} and len(found) >= 100


@pytest.mark.slow
@pytest.mark.parametrize(
    "suite",
    [
        *(f"optim/_{name}_test.py" for name in ("optax_optimizer", "audit_fixes", "reaudit_fixes")),
        *(f"trainer/_{name}_test.py" for name in ("trainer", "trainer_audit", "trainer_extra", "audit_20260619")),
        *(f"trainer/_{name}_test.py" for name in ("callbacks", "checkpoint", "module", "distributed")),
    ],
)
def test_in_place_of_every_optimizer_ours_does_no_worse_than_theirs(suite, tmp_path):
    """With the original's Adadelta for all, tests of other optimizers' numbers fail; with ours, no others."""
    theirs, ours = (outcomes(suite, tmp_path, f"{whose} all") for whose in ("theirs", "ours"))
    worse = {test for test, outcome in theirs.items() if outcome == "PASSED" != ours.get(test)}
    assert not worse and ours.keys() == theirs.keys()
    assert "PASSED" in ours.values()
