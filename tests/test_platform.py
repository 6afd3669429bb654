"""What the bounds assume of the machine holds on the machine that runs the tests."""

import arithmetic
import pytest

each_way = pytest.mark.parametrize("way", arithmetic.WAYS)


@each_way
def test_division_and_root_are_correctly_rounded(way):
    """bounds() takes one unit roundoff for each; half an ulp is that, and the reference is a double."""
    _, _, division, root = arithmetic.measured()[way]
    assert division <= 0.5 + 2**-29 and root <= 0.5 + 2**-29


def test_the_header_says_what_was_measured(request):
    header = str(request.config.hook.pytest_report_header(config=request.config, start_path=request.config.rootpath))
    assert all(line in header for line in arithmetic.lines())
