"""The option --implementation, and the fixture of that name which every clause test takes."""

import pytest

from braintools_adadelta.conformance import adapters

# What an implementation is known to do otherwise. A clause that stands here must fail, or the entry is stale.
LEDGER = {"braintools": {"X1": "the square of a large gradient overflows and the weight is frozen for ever"}}


def pytest_addoption(parser):
    parser.addoption(
        "--implementation",
        action="append",
        metavar="NAME",
        help=f"judge NAME (repeatable): {', '.join(adapters.KNOWN)}",
    )


def pytest_generate_tests(metafunc):
    if "implementation" in metafunc.fixturenames:
        names = metafunc.config.getoption("--implementation") or list(adapters.KNOWN)
        metafunc.parametrize("implementation", names, indirect=True)


@pytest.fixture
def implementation(request):
    """The implementation that is judged."""
    if request.param == "braintools":
        pytest.importorskip("braintools")
    clause = request.node.function.__name__.split("_")[1]
    if reason := LEDGER.get(request.param, {}).get(clause):
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    return adapters.load(request.param)
