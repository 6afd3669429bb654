"""The fixtures of the clause tests, and what each test hands to the report."""

from pathlib import Path

import numpy as np
import pytest

from braintools_adadelta.conformance import adapters, ledgers
from braintools_adadelta.conformance.cases import rng_of
from braintools_adadelta.conformance.causes import varies
from braintools_adadelta.conformance.clauses import CLAUSES
from braintools_adadelta.conformance.judge import Deviation, smallest, snippet, summary
from braintools_adadelta.conformance.runner import test_names

collect_ignore = ["adapters"]  # each imports a framework that may not be installed


def pytest_generate_tests(metafunc):
    if "implementation" in metafunc.fixturenames:
        names = metafunc.config.getoption("--adadelta-implementation") or adapters.DEFAULT
        metafunc.parametrize("implementation", names, indirect=True)


def clause_of(function):
    """Return the clause that a test function tests: test_E1_average -> E1."""
    return function.__name__.split("_")[1]


def pytest_collection_modifyitems(config, items):
    clauses, levels = config.getoption("--adadelta-clause"), config.getoption("--adadelta-level")
    if unknown := {*(clauses or ())} - {*CLAUSES}:
        raise pytest.UsageError(f"--adadelta-clause: no clause is named {unknown}: choose from {', '.join(CLAUSES)}")
    out = []
    for item in items:
        if "implementation" in getattr(item, "fixturenames", ()):
            clause = clause_of(item.function)
            if (clauses and clause not in clauses) or (levels and CLAUSES[clause].level not in levels):
                out.append(item)
    out += [item for item in items if item not in out][: config.getoption("--adadelta-skip")]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]
    names = config.getoption("--adadelta-implementation") or adapters.DEFAULT
    mine = [k for k, item in enumerate(items) if "implementation" in getattr(item, "fixturenames", ())]
    grouped = sorted((items[k] for k in mine), key=lambda item: names.index(item.callspec.params["implementation"]))
    for k, item in zip(mine, grouped, strict=True):  # all tests of one implementation together
        items[k] = item


def ledger_of(target, file):
    """Return the ledger in `file`, or else that of a known implementation, or None."""
    if file:
        return ledgers.read_file(file, test_names())
    return ledgers.read(target) if target in adapters.KNOWN else None


@pytest.fixture
def implementation(request):
    """The implementation under test."""
    try:
        it = adapters.load(request.param)
    except adapters.UsageError as error:
        if request.config.getoption("--adadelta-implementation"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    if it.failed and request.config.getoption("--adadelta-first"):
        pytest.skip("it has failed already")
    it.ulps = {}  # the worst error of each field in this test, and what rounding explains there
    test = request.node.function.__name__.removeprefix("test_")
    ledger = ledger_of(request.param, request.config.getoption("--adadelta-ledger"))
    pinned = ledger is not None and ledger.pinned(it.versions)
    entry = ledger and ledger.entry(test, request.node.name, it.versions)
    if entry:
        more = "".join(f" ({x})" for x in (entry.bug and f"{entry.bug} of the corpus", entry.link) if x)
        request.applymarker(pytest.mark.xfail(reason=f"known: {entry.name}: {entry.what}{more}", strict=pinned))
    elif CLAUSES[clause_of(request.node.function)].level == "range" and not pinned:
        request.applymarker(pytest.mark.xfail(reason="range: extreme input", strict=False))
    return it


@pytest.fixture
def rng(request):
    """Random numbers that depend on the test and the seed, but not on the implementation or on other tests."""
    callspec = {k: v for k, v in request.node.callspec.params.items() if k != "implementation"}
    key = request.node.function.__name__, sorted((k, repr(v)) for k, v in callspec.items())
    return rng_of(key, seed=request.config.getoption("--adadelta-seed"))


@pytest.fixture
def examples(request):
    """The number of random runs."""
    return range(request.config.getoption("--adadelta-examples"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    it = getattr(item, "funcargs", {}).get("implementation")
    if it is None or call.when != "call":
        return report
    ulps = {field: pair for field, pair in it.ulps.items() if np.isfinite(pair).all()}
    properties = {"target": it.target, "clause": clause_of(item.function), "ulps": ulps}
    if call.excinfo is not None and not call.excinfo.errisinstance((pytest.skip.Exception, pytest.xfail.Exception)):
        it.failed = True
        properties |= described(call.excinfo)
        if getattr(call.excinfo.value, "case", None) is not None and not item.config.getoption("--adadelta-first"):
            properties |= shown(it, item.function, call.excinfo.value)
    item.user_properties += [(key, value) for key, value in properties.items()]
    report.user_properties = item.user_properties
    return report


def described(excinfo):
    """Say how a test failed: a number or a rule is wrong, or an exception came out of the implementation."""
    error, last = excinfo.value, excinfo.traceback[-1]
    if isinstance(error, Deviation):
        return {"how": "rule" if error.miss is None else "wrong number", "message": str(error)}
    if isinstance(error, adapters.Crash):
        return {"how": "crash", "message": str(error)}
    if isinstance(error, AssertionError) and Path(last.path).parent == Path(__file__).parent:  # one of ours
        return {"how": "rule", "message": str(error)}
    return {"how": "crash", "message": f"{type(error).__name__}: {error}\n({adapters.place_of(error)})"}


def shown(it, function, error):
    """Return an example of a failure and code that repeats it: one small example for all tests of a clause."""
    case, miss = error.case, getattr(error, "miss", None)
    it.found.setdefault(("failed", function.__name__), (case, miss))
    if CLAUSES[clause_of(function)].level == "braintools":  # these drive the object themselves: nothing can repeat it
        return {"counterexample": f"{function.__doc__}\n{summary(case, miss)}"} if miss else {}
    key = "example", clause_of(function), type(error), miss is None
    if key not in it.found:
        if other := miss and varies(it, case):
            it.found[key] = {"how": "varies", "message": other, "counterexample": summary(case, miss)}
        else:
            small, miss = smallest(it, case, miss, type(error))
            it.found[key] = {"counterexample": summary(small, miss), "snippet": snippet(it.target, small, miss)}
    return it.found[key]
