"""What the bounds assume of the machine holds on the machine that runs the tests."""

import platform_arithmetic
import pytest

from braintools_adadelta.oracle.ulp import float32

pytestmark = pytest.mark.accelerator
each_way = pytest.mark.parametrize("way", platform_arithmetic.WAYS)


@each_way
def test_division_and_root_are_as_accurate_as_is_known_of_the_platform(way):
    """What machine_of() says, in u of the exact result. The reference is a double. One u means correctly rounded."""
    m, name = platform_arithmetic.machine_here(float32), platform_arithmetic.platform()
    found = dict(zip(("division", "root"), platform_arithmetic.measured()[way][2:4], strict=True))
    for what, (ulps, relative) in found.items():
        allowed = getattr(m, what)
        assert relative <= allowed, f"a finding: a {what} on {name} is {relative} u off, and {allowed} u are promised"
        assert ulps <= 0.5 + 2**-29 or allowed > 1, f"a finding: a {what} on {name} is not correctly rounded"


@each_way
def test_an_array_divided_by_a_scalar_has_two_roundings_at_most(way):
    """The inverse and a product. No bound relies on it: the norm multiplies by a power of two.

    The error of the inverse, in u of it, may be as many ulps of a product just below a power of two.
    """
    m = platform_arithmetic.machine_here(float32)
    *_, (ulps, _) = platform_arithmetic.measured()[way]
    assert ulps <= m.division + 0.5 + 2**-22
    x, unit = (platform_arithmetic.full(y) for y in (3.0, 2.0**125))
    divide = platform_arithmetic.WAYS[way](lambda x, unit: x * unit[..., None] / unit[..., None])
    assert (divide(x[None], unit[:1]) == 3.0).all() or m.division > 1


def test_the_header_says_what_was_measured(request):
    header = str(request.config.hook.pytest_report_header(config=request.config, start_path=request.config.rootpath))
    assert all(line in header for line in platform_arithmetic.lines())
