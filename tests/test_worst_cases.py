"""The largest errors that were ever found, replayed: `make exhaustive` writes the file."""

import csv
from pathlib import Path

import jax
import numpy as np
import pytest

from braintools_adadelta.equations import adadelta
from braintools_adadelta.oracle.bounds import PLAIN, bounds
from braintools_adadelta.oracle.exact import exact, largest_root, step
from braintools_adadelta.oracle.ulp import FORMATS

ROWS = list(csv.DictReader((Path(__file__).parent / "worst_cases.csv").read_text().splitlines()))
FIELDS = "e_g2", "delta", "e_delta2"
INPUTS = "g", "e_g2", "e_delta2", "rho", "eps"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_replay(dtype):
    rows, fmt, programs = [row for row in ROWS if row["dtype"] == dtype], FORMATS[dtype], {}
    assert len(rows) > 15
    for row in rows:
        g, e_g2, e_delta2, rho, eps = (float.fromhex(row[name]) for name in INPUTS)
        field, want, bound = row["field"], float.fromhex(row["exact"]), float.fromhex(row["bound"])
        with jax.enable_x64(dtype == "float64"):
            f = programs.setdefault((rho, eps), jax.jit(lambda *s, rho=rho, eps=eps: adadelta(*s, rho, eps)))
            got = f(*(np.asarray([x], dtype) for x in (g, e_g2, e_delta2)))
        got = exact(np.asarray(got[FIELDS.index(field)]))[0]
        truth = step([0.0], g, e_g2, e_delta2, rho=rho, eps=eps, largest=largest_root(fmt))
        options = {"rho": rho, "eps": eps, "largest": largest_root(fmt), "fmt": fmt, "form": PLAIN}
        allowed = getattr(bounds(truth, [0.0], e_g2, e_delta2, **options), field)[0]
        truth = getattr(truth, field)[0]
        assert (float(truth), float(allowed)) == (want, bound), row  # the file is what the oracle says today
        assert abs(got - truth) <= allowed, row
