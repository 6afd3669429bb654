"""What the bounds assume of the machine holds on the machine that runs the tests."""

import platform_arithmetic
import pytest

from braintools_adadelta.oracle.bounds import machine_of
from braintools_adadelta.oracle.ulp import float32

each_way = pytest.mark.parametrize("way", platform_arithmetic.WAYS)


PROMISED = {"nvidia": (2.0, 2.0)}  # ulps of a division and of a root; a relative 2^-23 is two ulps at most
CORRECT = (0.5, 0.5)


@each_way
def test_division_and_root_are_as_accurate_as_is_known_of_the_platform(way):
    """What machine_of() says in u, in ulps. The reference is a double."""
    name = platform_arithmetic.platform()
    _, _, *found, _ = platform_arithmetic.measured()[way]
    try:
        m = machine_of(name, float32, float)
    except LookupError as unknown:
        pytest.skip(f"{unknown} Measured: {found[0]:.2f} ulps for a division, {found[1]:.2f} for a root.")
    assert (PROMISED.get(name, CORRECT) == CORRECT) == (m.division == m.root == 1)
    for what, error, most in zip(("division", "root"), found, PROMISED.get(name, CORRECT), strict=True):
        assert error <= most + 2**-29, f"a finding: a {what} on {name} is {error} ulps off, and {most} are promised"


@each_way
def test_an_array_divided_by_a_scalar_has_two_roundings_at_most(way):
    """The inverse and a product: 1.5 ulps, or 4.5. No bound relies on it: the norm multiplies by a power of two."""
    promised = PROMISED.get(platform_arithmetic.platform(), CORRECT)[0]
    assert platform_arithmetic.measured()[way][-1] <= 2 * promised + 0.5 + 2**-22
    x, unit = (platform_arithmetic.full(y) for y in (3.0, 2.0**125))
    divide = platform_arithmetic.WAYS[way](lambda x, unit: x * unit[..., None] / unit[..., None])
    assert (divide(x[None], unit[:1]) == 3.0).all() or promised > 0.5


def test_the_header_says_what_was_measured(request):
    header = str(request.config.hook.pytest_report_header(config=request.config, start_path=request.config.rootpath))
    assert all(line in header for line in platform_arithmetic.lines())
