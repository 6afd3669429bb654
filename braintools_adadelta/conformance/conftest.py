"""The fixtures of the clause tests, and what each test hands to the report."""

from pathlib import Path

import numpy as np
import pytest

from braintools_adadelta.conformance import adapters, ledgers
from braintools_adadelta.conformance.cases import rng_of
from braintools_adadelta.conformance.clauses import CLAUSES
from braintools_adadelta.conformance.judge import Deviation, smallest, snippet, summary

collect_ignore = ["adapters"]  # each imports a framework that may not be installed


def pytest_generate_tests(metafunc):
    if "implementation" in metafunc.fixturenames:
        names = metafunc.config.getoption("--implementation") or adapters.DEFAULT
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
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]
    names = config.getoption("--implementation") or adapters.DEFAULT
    mine = [k for k, item in enumerate(items) if "implementation" in getattr(item, "fixturenames", ())]
    grouped = sorted((items[k] for k in mine), key=lambda item: names.index(item.callspec.params["implementation"]))
    for k, item in zip(mine, grouped, strict=True):  # all tests of one implementation together
        items[k] = item


@pytest.fixture
def implementation(request):
    """The implementation under test."""
    try:
        it = adapters.load(request.param)
    except adapters.UsageError as error:
        if request.config.getoption("--implementation"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    if it.failed and request.config.getoption("--adadelta-first"):
        pytest.skip("it has failed already")
    it.ulps = {}  # the worst error in this test, for the report
    function = request.node.function
    ledger = ledgers.read(request.param) if request.param in adapters.KNOWN else None
    pinned = ledger is not None and ledger.pinned(it.versions)
    entry = ledger and ledger.entry(function.__name__.removeprefix("test_"), request.node.name, it.versions)
    if entry:
        link = f" ({entry.link})" if entry.link else ""
        request.applymarker(pytest.mark.xfail(reason=f"known: {entry.name}: {entry.what}{link}", strict=pinned))
    elif CLAUSES[clause_of(function)].level == "range" and not pinned:
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
    ulps = {field: float(x) for field, x in it.ulps.items() if np.isfinite(x)}
    properties = {"target": it.target, "clause": clause_of(item.function), "ulps": ulps}
    if call.excinfo is not None and not call.excinfo.errisinstance((pytest.skip.Exception, pytest.xfail.Exception)):
        error, it.failed = call.excinfo.value, True
        last = call.excinfo.traceback[-1]
        if isinstance(error, AssertionError) and Path(last.path).parent == Path(__file__).parent:  # one of ours
            properties["message"] = str(error)
        else:
            path = str(last.path).rpartition("site-packages/")[2]  # where it was installed says nothing
            where = f"{path}:{last.lineno + 1}, in {last.name}"
            properties["message"] = f"{type(error).__name__}: {error}\n({where})"
        if isinstance(error, Deviation) and error.case is not None and not item.config.getoption("--adadelta-first"):
            case, miss = error.case, error.miss
            # These tests drive the object themselves: no snippet can repeat it.
            driven = CLAUSES[clause_of(item.function)].level == "braintools"
            if driven and miss is not None:
                properties["counterexample"] = f"{item.function.__doc__} " + summary(case, miss)
            elif miss is not None:
                key = "smallest", item.function.__name__
                if key not in it.found:  # one small example for all variants of a test
                    it.found[key] = smallest(it, case, miss)
                case, miss = it.found[key]
                properties["counterexample"] = summary(case, miss)
            if not driven:
                properties["snippet"] = snippet(it.target, case, miss)
    item.user_properties += [(key, value) for key, value in properties.items()]
    report.user_properties = item.user_properties
    return report
