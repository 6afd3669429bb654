"""Strictness for every test, and a header that says what ran where."""

import platform
from importlib.metadata import PackageNotFoundError, version

import brainstate  # noqa: F401  importing it resets jax_enable_x64: it must not happen in the middle of a test
import hypothesis
import jax
import platform_arithmetic
import pytest

collect_ignore = ["in_two_processes.py"]  # a script that starts as one of two processes when it is imported

# ci gives the same examples in every run; nightly looks further and runs the slow tests too.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, database=None, print_blob=True)
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=2000, print_blob=True)
hypothesis.settings.load_profile("ci")


@pytest.fixture
def strict():
    """No silent promotion of dtypes or ranks.

    Not for every test: a user's schedule may say 0.5**epoch, and brainstate.nn.Linear adds a bias of one axis to two.
    """
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


def installed(package):
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"


def pytest_report_header():
    packages = ("jax", "jaxlib", "brainstate", "braintools", "numpy", "mpmath", "hypothesis")
    return [
        "versions: " + ", ".join(map(installed, packages)),
        f"platform: {platform.platform()}, {platform.machine()}",
        "devices: " + ", ".join(f"{d.platform} ({d.device_kind})" for d in jax.devices()),
        *platform_arithmetic.lines(),
    ]


def meets_original(item):
    """Say whether a test depends on braintools: its module imports it, it judges it, or it is a docstring example."""
    judged = getattr(item, "callspec", None) and item.callspec.params.get("implementation")
    return judged == "braintools" or isinstance(item, pytest.DoctestItem) or hasattr(item.module, "braintools")


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(config, items):
    nightly = config.getoption("--hypothesis-profile") == "nightly"
    for item in items:
        if meets_original(item):
            item.add_marker("original")
        if item.get_closest_marker("slow") and not nightly:
            item.add_marker(pytest.mark.skip(reason="slow: runs with --hypothesis-profile=nightly"))
