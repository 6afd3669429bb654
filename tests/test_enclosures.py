"""A second judge: the exact step in ball arithmetic, whose every result encloses the truth, confirms the one in mpf."""

from fractions import Fraction

import flint
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braintools_adadelta.oracle.exact import CONTEXT, Step, exact, step
from braintools_adadelta.oracle.ulp import FORMATS, fraction, round_to

NIGHTLY = settings.get_current_profile_name() == "nightly"
COUNT = 100_000 if NIGHTLY else 1000


def ball(x):
    """The ball of radius zero around a finite float."""
    man, exp = x.as_integer_ratio()
    return flint.arb(man) / flint.arb(exp)  # the denominator is a power of two


def end(x):
    """An end of a ball, which is a dyadic number."""
    man, exp = x.man_exp()
    return int(man) * Fraction(2) ** int(exp)


def decided(x, fmt):
    """Return what every number of the ball rounds to, or None."""
    low, high = (round_to(end(e), fmt) for e in (x.lower(), x.upper()))
    return low if low == high else None


def enclosed(state, options, fmt):
    """Take the step in balls, with more bits each time, until every result is one number of the format."""
    for bits in (128, 512, 2048, 8192):
        with flint.ctx.workprec(bits):
            balls = [[ball(x)] for x in state]
            taken = step(*balls, **{k: ball(x) for k, x in options.items()}, sqrt=lambda x: x.sqrt())
            numbers = [decided(field[0], fmt) for field in taken]
        if None not in numbers:
            return bits, taken, numbers
    raise AssertionError(f"{state}, {options}: 8192 bits do not decide the rounding")


@pytest.mark.parametrize("name", ["float32", "float64"])
@settings(max_examples=COUNT // 2)
@given(data=st.data())
def test_balls_confirm_the_oracle(name, data):
    fmt, width = FORMATS[name], int(name[-2:])
    number = st.floats(-(2.0**60), 2.0**60, width=width)
    state = [data.draw(x) for x in (number, number, number.map(abs), number.map(abs))]
    options = {
        "rho": data.draw(st.floats(0, 0.9999)),
        "eps": data.draw(st.floats(2.0**-102, 2.0)),
        "lr": data.draw(st.floats(0, 8)),
        "weight_decay": data.draw(st.sampled_from([0.0, 0.01])),
    }
    bits, balls, numbers = enclosed(state, options, fmt)
    truth = step(*([x] for x in state), **options)
    # 400 bits are not enough where a tiny term decides on which side of a middle.
    with CONTEXT.workprec(max(bits, 400)):
        finer = step(*([x] for x in state), **options)
    for field, enclosure, number, (x,), (y,) in zip(Step._fields, balls, numbers, truth, finer, strict=True):
        assert round_to(y, fmt) == number, field
        low, high = end(enclosure[0].lower()), end(enclosure[0].upper())
        slack = Fraction(1, 2**390) * max(abs(low), *map(abs, map(fraction, exact(state))), 1)
        assert low - slack <= fraction(x) <= high + slack, field


def test_a_ball_on_the_border_is_not_decided():
    with flint.ctx.workprec(30):
        third = flint.arb(1) / 3
        assert decided(third, FORMATS["float64"]) is None and decided(third, FORMATS["bfloat16"]) is not None
