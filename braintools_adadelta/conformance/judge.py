"""Run an implementation beside the oracle and compare every number with its derived bound."""

from typing import Any, NamedTuple

import numpy as np

from braintools_adadelta.oracle import ulp
from braintools_adadelta.oracle.bounds import ANY, bounds
from braintools_adadelta.oracle.exact import exact, largest_root, step


class Case(NamedTuple):
    """A training run: what an implementation is given."""

    params: dict[str, np.ndarray]
    grads: list[dict[str, np.ndarray]]
    options: dict[str, Any]
    lrs: list[float] = []  # the lr of each step, where it changes


class Miss(NamedTuple):
    """One number that is further from the exact answer than rounding can explain."""

    step: int
    field: str
    parameter: str
    index: tuple
    got: float
    exact: float
    ulps: float
    allowed: float

    def __str__(self):
        return (
            f"step {self.step}: {self.field} of {self.parameter}{list(self.index)} is {self.got!r},"
            f" exactly {self.exact!r}: {self.ulps:.3g} ulps off, rounding explains {self.allowed:.3g}"
        )


def flat(tree):
    """Lay the arrays of `tree` end to end, in the order of their names."""
    return [x for name in sorted(tree) for x in np.ravel(tree[name])]


def places(tree):
    """Return (name, index) for each number of ``flat(tree)``."""
    return [(name, index) for name in sorted(tree) for index in np.ndindex(tree[name].shape)]


def misses(implementation, case, fields=("e_g2", "e_delta2", "theta"), form=ANY):
    """Return every :class:`Miss` of a run, in the order of the data flow.

    Each step is judged from the accumulators and parameters that the implementation really stored before it. Where it
    does not show its accumulators, the exact ones are carried along, with the bound on what it may have.
    """
    dtype = next(iter(case.params.values())).dtype
    fmt, where, found = ulp.FORMATS[dtype.name], places(case.params), []
    handle = implementation.start({k: x.copy() for k, x in case.params.items()}, **case.options)
    options = {k: v for k, v in case.options.items() if v is not None} | {"largest": largest_root(fmt)}
    theta = exact(flat(implementation.params(handle)))
    e_g2 = e_delta2 = exact([0.0] * len(theta))
    carried = None
    for t, grads in enumerate(case.grads):
        if case.lrs:
            handle, options["lr"] = implementation.set_lr(handle, case.lrs[t]), case.lrs[t]
        truth = step(theta, exact(flat(grads)), e_g2, e_delta2, **options)
        allowed = bounds(truth, theta, e_g2, e_delta2, fmt=fmt, form=form, carried=carried, **options)
        handle = implementation.step(handle, {k: g.copy() for k, g in grads.items()})
        seen = {"theta": flat(implementation.params(handle))}
        memory = accumulators(implementation, handle)
        if memory is not None:
            seen |= {"e_g2": flat(memory[0]), "e_delta2": flat(memory[1])}
        for field in (f for f in fields if f in seen):
            rows = zip(where, seen[field], getattr(truth, field), getattr(allowed, field), strict=True)
            found += [miss(t, field, place, *row, fmt) for place, *row in rows if not within(*row)]
        if memory is None or found:
            theta, e_g2, e_delta2, carried = truth.theta, truth.e_g2, truth.e_delta2, allowed
        else:
            theta, e_g2, e_delta2 = (exact(seen[field]) for field in ("theta", "e_g2", "e_delta2"))
        if found:
            break  # what follows would only repeat it
    return found


def accumulators(implementation, handle):
    """Return the accumulators where they are shown, else None."""
    show = getattr(implementation, "accumulators", None)
    return None if show is None else show(handle)


def within(got, truth, bound):
    """Say whether the computed `got` is as near to `truth` as `bound` asks."""
    return bool(np.isfinite(got)) and abs(exact(got)[0] - truth) <= bound


def miss(t, field, place, got, truth, bound, fmt):
    """Describe a number that is not within its bound."""
    unit = ulp.ulp(ulp.fraction(truth), fmt)
    ulps = float(ulp.ulps(float(got), truth, fmt))
    return Miss(t + 1, field, *place, float(got), float(truth), ulps, float(ulp.fraction(bound) / unit))
