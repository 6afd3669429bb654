"""The original's own tests for its Adadelta, run with our class in its place."""

import re
import subprocess
import sys
from pathlib import Path

import braintools
import pytest

SWAP = """
import warnings
warnings.simplefilter("ignore")
import braintools.optim, braintools_adadelta
braintools.optim.Adadelta = braintools_adadelta.Adadelta
"""
SUITES = {  # file: which of its tests reach Adadelta, how many they are
    "_optax_optimizer_test.py": ("adadelta or with_step_lr or optimizers_with_weight_decay", 6),
    "_audit_fixes_test.py": ("Adadelta", 3),
}


@pytest.mark.parametrize("suite", SUITES)
def test_the_originals_tests_pass_with_ours(suite, tmp_path):
    (tmp_path / "swap.py").write_text(SWAP)
    select, count = SUITES[suite]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "swap",
        "-p",
        "no:cacheprovider",
        "-k",
        select,
        "--rootdir=.",
    ]
    path = Path(braintools.__file__).parent / "optim" / suite
    environment = {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([*command, str(path)], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) == count
