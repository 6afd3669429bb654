"""What the bounds assume of the machine holds on the machine that runs the tests."""

import platform_arithmetic
import pytest

each_way = pytest.mark.parametrize("way", platform_arithmetic.WAYS)


@each_way
def test_division_and_root_are_correctly_rounded(way):
    """bounds() takes one unit roundoff for each; half an ulp is that, and the reference is a double."""
    _, _, division, root, _ = platform_arithmetic.measured()[way]
    assert division <= 0.5 + 2**-29 and root <= 0.5 + 2**-29


@each_way
def test_an_array_divided_by_a_scalar_has_two_roundings_at_most(way):
    """The inverse and a product: 1.5 ulps. No bound relies on this division: the norm multiplies by a power of two."""
    scalar = platform_arithmetic.measured()[way][-1]
    assert scalar <= 1.5 + 2**-22
    x, unit = (platform_arithmetic.full(y) for y in (3.0, 2.0**125))
    divide = platform_arithmetic.WAYS[way](lambda x, unit: x * unit[..., None] / unit[..., None])
    assert (divide(x[None], unit[:1]) == 3.0).all()


def test_the_header_says_what_was_measured(request):
    header = str(request.config.hook.pytest_report_header(config=request.config, start_path=request.config.rootpath))
    assert all(line in header for line in platform_arithmetic.lines())
