"""Why an implementation fails: which clause is the cause, which others follow from it, and which known bug it is."""

import re

import numpy as np

from braintools_adadelta.conformance import adapters, corpus
from braintools_adadelta.conformance.judge import CARRIED, FIELDS, Run, exact_step, explain, pairs, run_and_examine
from braintools_adadelta.conformance.method import ADADELTA
from braintools_adadelta.oracle import ulp
from braintools_adadelta.oracle.bounds import ANY
from braintools_adadelta.oracle.exact import exact

# The order of the data flow: a clause needs only the clauses before it.
FLOW = ["S1", "E1", "E2", "E3", "E4", "S2", "L1", "G1", "G2", "G3", "S4", "G4", "X3", "S3"]
FLOW += [f"B{k}" for k in range(1, 10)] + ["X1"]
MIXED = re.compile("_(names|share|long|large|unseen|stays|narrow)$")  # any wrong equation fails these tests, too
MOST = 24  # steps of a run that is tried once more
OPTIONS = {"G1": "grad_clip_norm", "G2": "grad_clip_value", "G3": "weight_decay"}


def varies(it, case):
    """Say how two runs of one case differ by more than rounding, or return ""."""
    case = first_steps(case)
    try:
        one, two = (run_and_examine(it, case).misses for _ in range(2))
    except Exception as error:
        return f"not deterministic: the same run, taken again, ended in {error}"
    one, two = (misses[0] if misses else None for misses in (one, two))
    same = one and two and one[:4] == two[:4]
    if one == two or (same and abs(one.got - two.got) * one.ulps <= abs(one.got - one.exact) * one.allowed):
        return ""
    say = lambda miss: (
        f"{miss.field} of {miss.parameter} in step {miss.step} is {miss.got!r}" if miss else "all is right"
    )
    return (
        f"not deterministic: in one run {say(one)}; in the same run, taken again, {say(two)}"
        " (random numbers, or a state outside of the handle)"
    )


# --------------------------------------------------------------------------------------------- what follows from what


def first_steps(case):
    return case._replace(grads=case.grads[:MOST], lrs=case.lrs[:MOST])


def lead(failed):
    """Return the clause to look at first. `failed` is {clause: names of its tests that failed}."""
    inside = [name for name in FLOW if name in failed]
    return next((name for name in inside if not all(map(MIXED.search, failed[name]))), next(iter(inside), None))


def consequences(it, failed):
    """Return {clause: the clause from which its failure follows}.

    It follows if every case that failed still fails without what the clause is about.
    """
    first, out = lead(failed), {}
    for clause in failed:
        causes = [first] if clause != first else []
        if clause in ("G4", "S4", "X3"):
            causes += [name for name in OPTIONS if name in failed and name != first]
        cases = [case for case, _ in cases_of(it, failed[clause])]
        for cause in causes:
            if cases and all(fails(it, without(clause, cause, case)) for case in cases):
                out[clause] = cause
                break
    return out


def cases_of(it, tests):
    """Return the first (case, miss) of each of these tests that failed, where it left one."""
    return [it.found[key] for test in tests if (key := ("failed", f"test_{test}")) in it.found]


def without(clause, cause, case):
    """Return the case without what is special to the clause, but with what is special to the cause."""
    case = first_steps(case)
    keep = {"lr", "rho", "eps", OPTIONS.get(cause)}
    options = {k: v for k, v in case.options.items() if k in keep}
    lrs = case.lrs if cause == "L1" else []
    if clause == "X3":
        real = lambda tree: {name: np.ascontiguousarray(x.real) for name, x in tree.items()}
        case = case._replace(params=real(case.params), grads=[real(g) for g in case.grads])
    if clause == "S4":
        plain = lambda tree: {name: x for name, x in tree.items() if x.ndim and x.size}
        case = case._replace(params=plain(case.params), grads=[plain(g) for g in case.grads])
    grads = [{name: g[name] for name in case.params} for g in case.grads]  # all in one order
    return case._replace(options=options, lrs=lrs, grads=grads)


def fails(it, case):
    try:
        return bool(run_and_examine(it, case).misses)
    except Exception:
        return True


# ------------------------------------------------------------------------------------------------- which bug it is


def matching(it, failed):
    """Return {clause: the bugs of the corpus that give the numbers of `it` in each of its cases}.

    They are as near to its numbers as rounding would let them be to the exact ones. A bug that explains all clauses is
    preferred to others.
    """
    probes = {
        clause: [
            probe
            for case, miss in cases_of(it, tests)
            if miss and len(case.grads) <= MOST and (probe := probe_of(it, case))
        ]
        for clause, tests in failed.items()
    }
    found = {
        clause: [cls.__name__ for cls in corpus.WRONG if explains(cls, rows)] for clause, rows in probes.items() if rows
    }
    everywhere = set.intersection(*map(set, found.values())) if found else set()
    return {clause: [bug for bug in bugs if bug in everywhere] or bugs for clause, bugs in found.items()}


def why(it, failed):
    """Return what there is to say about the clauses that failed, {clause: names of its tests}."""
    first, follows = lead(failed), consequences(it, failed)
    bugs = matching(it, {clause: tests for clause, tests in failed.items() if clause not in follows})
    roots = []
    for clause in sorted((clause for clause in bugs if bugs[clause]), key=lambda c: (c != first, FLOW.index(c))):
        same = next((root for root in roots if {*bugs[root]} & {*bugs[clause]}), None)
        follows |= {clause: same} if same else {}  # one bug explains both
        roots += [] if same else [clause]
    return {"lead": first, "follows": follows, "bugs": {root: bugs[root] for root in roots}}


def probe_of(it, case):
    """Return (the run of `it`, how far rounding may take one from it), or None where no bug of the corpus has a word."""
    dtype = next(iter(case.params.values())).dtype.name
    if dtype not in ("float32", "float64"):
        return None
    try:
        run = Run(it, case).finish()
    except Exception:
        return None
    return run, room(run)


def room(run, method=ADADELTA):
    """Return, for each step, the bounds around the exact run from the start on."""
    case = run.case
    fmt = ulp.FORMATS[next(iter(case.params.values())).dtype.name]
    theta, carried, out = exact(pairs(case.params)), None, []
    state = {name: exact([0.0] * len(theta)) for name in method.state}
    for t in range(len(case.grads)):
        truth, carried = exact_step(case, t, theta, state, carried, fmt, ANY, method=method)
        theta, state = truth.theta, {name: getattr(truth, name) for name in method.state}
        out.append({field: np.array([float(x) for x in getattr(carried, field)]) for field in method.fields})
    return out


def explains(cls, probes):
    """Say whether the bug gives the numbers of every probe, and is one there."""
    for run, allowed in probes:
        try:
            mine = Run(adapters.Subject(cls.__name__, cls()), run.case).finish()
        except Exception:
            return False
        for t, within in enumerate(allowed):
            shown = [("theta", run.theta[t + 1], mine.theta[t + 1])]
            if run.memory[t + 1] and mine.memory[t + 1]:
                shown += zip(FIELDS, run.memory[t + 1], mine.memory[t + 1], strict=False)
            for field, left, right in shown:
                with np.errstate(all="ignore"):
                    apart = np.abs(np.array(pairs(left), float) - np.array(pairs(right), float))
                if not np.all(apart <= within[field]):
                    return False
        if not explain(mine, CARRIED, FIELDS, ANY, 1).misses:
            return False
    return True
