"""The clause tests themselves: each bug that was shipped fails at its clause, and no right implementation fails."""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import mutants
import pytest

from braintools_adadelta.conformance import test_clauses

HERE = Path(__file__).parent


def outcomes(classes, clauses, folder):
    """Run the tests of `clauses` on `classes`; return {class name: clauses that failed} and the number of tests run."""
    names = [name for name in vars(test_clauses) if name.split("_")[:2] in [["test", clause] for clause in clauses]]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={folder / 'out.xml'}"]
    command += [f"--implementation={HERE / 'mutants.py'}:{cls.__name__}" for cls in classes]
    subprocess.run([*command, *(f"{test_clauses.__file__}::{name}" for name in names)], capture_output=True, cwd=folder)
    failed, count = defaultdict(set), 0
    for case in ElementTree.parse(folder / "out.xml").iter("testcase"):
        count += case.find("skipped") is None
        for cls in classes:
            if (
                case.find("failure") is not None
                and f":{cls.__name__}" in case.get("name").replace("]", "-").split("-")[0]
            ):
                failed[cls.__name__].add(case.get("name").split("_")[1])
    return failed, count


@pytest.mark.parametrize("clause", sorted({cls.clause for cls in mutants.WRONG}))
def test_every_shipped_bug_fails_at_its_clause(clause, tmp_path):
    wrong = [cls for cls in mutants.WRONG if cls.clause == clause]
    failed, _ = outcomes(wrong, [clause], tmp_path)
    assert {cls.__name__ for cls in wrong} - failed.keys() == set()


def test_no_right_implementation_fails(tmp_path):
    failed, count = outcomes(mutants.RIGHT, ["S2", "E1", "E2", "E3", "E4", "L1", "G1", "G2", "G3", "G4"], tmp_path)
    assert not failed
    assert count > 25 * len(mutants.RIGHT)  # and they did run
