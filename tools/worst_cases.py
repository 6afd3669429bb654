"""Which inputs give the largest errors? Write those that the exhaustive run and a random search found.

tests/worst_cases.csv keeps them for `make test`. Numbers are hexadecimal. `exact` is the double nearest to the exact
result, `bound` is the derived bound.
"""

import csv
import json
from pathlib import Path

import jax
import numpy as np
import sampled_errors  # from tests: run with PYTHONPATH=tests
from exhaustive import STATES

from braintools_adadelta.oracle.bounds import PLAIN, bounds
from braintools_adadelta.oracle.exact import largest_root, step
from braintools_adadelta.oracle.ulp import FORMATS

ROOT = Path(__file__).parent.parent
COLUMNS = "source", "dtype", "g", "e_g2", "e_delta2", "rho", "eps", "field", "exact", "bound"


def judged(dtype, state, rho, eps, field):
    """Return the exact result and the bound for one field of one step."""
    fmt, options = FORMATS[dtype], {"rho": rho, "eps": eps, "largest": largest_root(FORMATS[dtype])}
    truth = step([0.0], *([x] for x in state), **options)
    allowed = bounds(truth, [0.0], *([x] for x in state[1:]), fmt=fmt, form=PLAIN, **options)
    return float(getattr(truth, field)[0]), float(getattr(allowed, field)[0])


def row(source, dtype, state, rho, eps, field):
    numbers = *state, rho, eps, *judged(dtype, state, rho, eps, field)
    texts = [float(x).hex() for x in numbers]
    return dict(zip(COLUMNS, [source, dtype, *texts[:5], field, *texts[5:]], strict=True))


def from_exhaustive():
    found = json.loads((ROOT / "docs/results/exhaustive.json").read_text())["worst"]
    for name, regions in found.items():
        e_g2, e_delta2, rho, eps = STATES[name]
        e_g2, e_delta2 = (float(np.float32(x)) for x in (e_g2, e_delta2))
        for region, fields in regions.items():
            for field, (_, ulps_at, _, share_at) in fields.items():
                for bits in sorted({ulps_at, share_at}):
                    g = float(np.uint32(bits).view(np.float32))
                    yield row(f"exhaustive, {name}, {region}", "float32", (g, e_g2, e_delta2), rho, eps, field)


def from_search(count=2**21):
    for dtype, number in (("float32", np.float64), ("float64", np.longdouble)):
        with jax.enable_x64(dtype == "float64"):
            for kind in sampled_errors.STATES:
                state = sampled_errors.states(kind, count, dtype)
                for field, errors in sampled_errors.errors(jax.jit(sampled_errors.ours), state, number).items():
                    for i in np.argsort(errors)[-3:]:
                        at = [float(x[i]) for x in state]
                        yield row(f"search, {kind}", dtype, at, sampled_errors.RHO, sampled_errors.EPS, field)


def main():
    with (ROOT / "tests/worst_cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*from_exhaustive(), *from_search()])


if __name__ == "__main__":
    main()
