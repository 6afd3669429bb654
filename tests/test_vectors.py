"""The vectors are what the oracle says, tell every numeric bug by themselves, and accept what is right."""

import json
import subprocess
import sys
from pathlib import Path

import hostile_adapters
import pytest

from braintools_adadelta.conformance import adapters, corpus, vectors

ROOT = Path(__file__).parent.parent
VECTORS = vectors.load()
ORDINARY = [row for row in VECTORS if row["clause"] != "X1"]
# What several optimizers of one process share, what only looking or a dtype shows, and what needs a long table.
NOT_NUMERIC = {
    *("OneForTheClass", "OneForTheObject", "SharedLr", "ClipShared", "SetLrShared"),
    *("Lazy", "LookingMoves", "Promotes", "StartsDouble", "First1024"),
}


@pytest.mark.parametrize("cls", corpus.WRONG, ids=lambda cls: cls.__name__)
def test_every_numeric_bug_is_told_by_the_vectors_alone(cls):
    if cls.__name__ in NOT_NUMERIC:
        pytest.skip("not for a table of numbers")
    order = sorted(ORDINARY, key=lambda row: cls.__name__ not in row["kills"])  # the likely ones first
    wrong = next((row for row in order if vectors.wrong(adapters.Subject("it", cls()), row)), None)
    assert wrong is not None and cls.__name__ in wrong["kills"]


@pytest.mark.parametrize("cls", corpus.RIGHT, ids=lambda cls: cls.__name__)
def test_nothing_right_is_called_wrong(cls):
    it = adapters.Subject("it", cls())
    if cls is corpus.Lagged:  # what it shows of E[Delta2] is the last step's: the vectors judge it by theta
        it.it.accumulators = lambda handle: None
    assert [(row["id"], wrong) for row in ORDINARY if (wrong := vectors.wrong(it, row))] == []


def test_ours_satisfies_every_vector():
    it = adapters.load("braintools_adadelta")
    assert [(row["id"], wrong) for row in VECTORS if (wrong := vectors.wrong(it, row)) != ()] == []


def test_vectors_fit_their_schema():
    jsonschema = pytest.importorskip("jsonschema")
    folder = Path(vectors.__file__).parent
    schema = json.loads((folder / "vectors.schema.json").read_text("utf-8"))
    jsonschema.validate(json.loads((folder / "vectors.json").read_text("utf-8")), schema)


def test_decimals_are_the_same_numbers():
    for row in VECTORS:
        for part in (row, *row["steps"]):
            for key in (key for key in part if f"{key}_decimal" in part):
                assert vectors.hexadecimal(part[f"{key}_decimal"]) == part[key], (row["id"], key)


def test_what_is_not_offered_is_skipped():
    """By an implementation without an lr: what is judged is right, and nothing that needs an lr is judged."""
    it = adapters.Subject("it", hostile_adapters.WithoutLr())
    found = [(row, vectors.wrong(it, row)) for row in ORDINARY]
    judged = [row for row, wrong in found if wrong is not None]
    assert judged and all(wrong in (None, ()) for _, wrong in found)
    assert all(set(row["options"]) == {"lr", "rho", "eps"} and row["options_decimal"]["lr"] == 1 for row in judged)


@pytest.mark.slow
def test_vectors_are_what_the_tool_makes():
    subprocess.run([sys.executable, ROOT / "tools/vectors.py", "--check"], check=True)
