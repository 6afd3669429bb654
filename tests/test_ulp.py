"""The judge's ruler: formats, one rounding, ulps. numpy's casts are the other witness, wherever they round once."""

import math
from fractions import Fraction

import ml_dtypes
import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from braintools_adadelta.oracle.ulp import FORMATS, bfloat16, float16, float32, float64, fraction, round_to, ulp, ulps

INF, NAN = math.inf, math.nan
DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}


def all_finite(dtype):
    """Every finite number of a 16-bit format, in ascending order."""
    x = np.arange(2**16, dtype=np.uint16).view(dtype)
    return np.unique(x[np.isfinite(x.astype(np.float32))].astype(np.float32))


def to_float(x):
    """The double nearest to a fraction (Python divides integers with one rounding); a float as it is."""
    try:
        return x if isinstance(x, float) else x.numerator / x.denominator
    except OverflowError:
        return INF if x > 0 else -INF


def nearest(x, dtype):
    """Round the fraction `x` by the definition: of the neighbours, the nearest, and the even one from the middle."""
    below_max, largest = np.nextafter(np.finfo(dtype).max, dtype(0)), np.finfo(dtype).max
    infinite = 2 * fraction(largest) - fraction(below_max)  # where the next number would stand
    with np.errstate(over="ignore", under="ignore"):
        guess = dtype(to_float(x))
        neighbours = np.array([np.nextafter(guess, dtype(-INF)), guess, np.nextafter(guess, dtype(INF))])
    values = [fraction(v) if np.isfinite(v) else int(np.sign(v)) * infinite for v in neighbours]
    odd = neighbours.view(f"u{guess.itemsize}") % 2
    return float(min(zip(neighbours, values, odd, strict=True), key=lambda n: (abs(n[1] - x), n[2]))[0])


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name):
    fmt, info = FORMATS[name], ml_dtypes.finfo(DTYPES[name])
    assert (fmt.name, fmt.p, fmt.emin, fmt.emax) == (name, info.nmant + 1, info.minexp, info.maxexp - 1)
    wanted = [info.max, info.smallest_normal, info.smallest_subnormal, info.eps / 2]
    assert [fmt.max, fmt.tiny, fmt.smallest, fmt.u] == [fraction(x) for x in wanted]


# Exact values


KINDS = [float, Fraction, mpmath.mpf, np.float16, np.float32, np.float64, np.longdouble, ml_dtypes.bfloat16, np.array]


@pytest.mark.parametrize("x", [k(x) for k in KINDS for x in (-0.375, 0.0, 3.0)] + [-3, True, np.int64(-3)], ids=repr)
def test_fraction_takes_every_kind_of_number(x):
    assert type(fraction(x)) is Fraction and fraction(x) == Fraction(float(x))


def test_fraction_rounds_nothing():
    assert fraction(np.int64(2**62 + 1)) == 2**62 + 1
    assert fraction(np.longdouble(1) + np.finfo(np.longdouble).eps) == 1 + Fraction(2) ** -np.finfo(np.longdouble).nmant
    with mpmath.workprec(300):
        assert fraction(mpmath.mpf(-1) - mpmath.mpf(2) ** -299) == -1 - Fraction(2) ** -299


@pytest.mark.parametrize("kind", [float, mpmath.mpf, np.float32, ml_dtypes.bfloat16, np.array])
@pytest.mark.parametrize("x", [INF, -INF, NAN])
def test_fraction_refuses_what_is_not_finite(x, kind):
    with pytest.raises(ValueError, match="not finite"):
        fraction(kind(x))


# One rounding


@pytest.mark.parametrize(("name", "wide"), [("float16", np.float64), ("bfloat16", np.float32)])
def test_rounding_to_16_bits_exhaustively(name, wide):
    """Every number, every midpoint, and both neighbours of every midpoint; from `wide` the cast rounds once."""
    fmt, dtype = FORMATS[name], DTYPES[name]
    numbers = all_finite(dtype).astype(wide)
    beyond = np.array([float(fmt.max + ulp(fmt.max, fmt) / 2)], wide)  # the last midpoint: from here on infinity
    middles = np.concatenate([-beyond, numbers[:-1] + (numbers[1:] - numbers[:-1]) / 2, beyond])
    x = np.concatenate([numbers, middles, np.nextafter(middles, wide(-INF)), np.nextafter(middles, wide(INF))])
    assert len(x) == 4 * len(numbers) + 3
    with np.errstate(over="ignore", under="ignore"):
        wanted = x.astype(dtype).astype(np.float64)
    got = np.array([to_float(round_to(v, fmt)) for v in x.tolist()])
    wrong = got != wanted
    assert not wrong.any(), (wrong.sum(), x[wrong][:5], got[wrong][:5], wanted[wrong][:5])


@given(st.floats(allow_nan=False))
@example(float(np.finfo(np.float32).max) * (1 + 2.0**-25))
@example(2.0**-150)
def test_rounding_a_double_to_float32(x):
    with np.errstate(over="ignore", under="ignore"):
        assert round_to(x, float32) == float(np.float32(x))


# Fractions with long numerators, at every size that a format reaches and beyond.
long = st.integers(-(2**200), 2**200)


@given(long, st.integers(-1400, 1100))
@example(2**54 - 1, 970)  # the middle of the largest double and infinity
@example(-1, -1075)
@example(2**53 + 1, -53)
def test_rounding_a_fraction_to_float64(n, e):
    x = n * Fraction(2) ** e
    assert round_to(x, float64) == to_float(x)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@given(data=st.data())
def test_rounding_near_a_midpoint(dtype, data):
    """As close to the middle of two numbers as can be: where a second rounding would show."""
    fmt, info = FORMATS[np.dtype(dtype).name], np.finfo(dtype)
    x = dtype(data.draw(st.floats(0, float(info.max), width=8 * info.dtype.itemsize)))
    with np.errstate(over="ignore"):
        y = np.nextafter(x, dtype(INF))
    middle = fraction(x) + (fraction(y) - fraction(x) if np.isfinite(y) else ulp(fmt.max, fmt)) / 2
    off = data.draw(st.sampled_from([0, 1, -1])) * Fraction(2) ** -data.draw(st.integers(1, 3000))
    value = data.draw(st.sampled_from([1, -1])) * middle * (1 + off / 2**fmt.p)
    assert round_to(value, fmt) == nearest(value, dtype)


@given(st.fractions(), st.integers(-160, 160))
def test_rounding_a_fraction_to_float32(x, e):
    value = x * Fraction(2) ** e
    assert round_to(value, float32) == nearest(value, np.float32)


@pytest.mark.parametrize("x", [INF, -INF, NAN])
@pytest.mark.parametrize("kind", [float, mpmath.mpf, np.float32])
def test_rounding_keeps_what_is_not_finite(x, kind):
    assert repr(round_to(kind(x), float32)) == repr(x)


def test_rounding_what_no_float_can_hold():
    assert round_to(Fraction(10) ** 1000, float64) == INF and round_to(-(10**1000), float32) == -INF
    assert round_to(Fraction(1, 10**1000), float64) == 0


# The spacing


@pytest.mark.parametrize(("fmt", "dtype"), [(float16, np.float16), (bfloat16, ml_dtypes.bfloat16)])
def test_ulp_is_the_way_to_the_next_number(fmt, dtype):
    numbers = [fraction(x) for x in all_finite(dtype).tolist() if x >= 0]
    assert [ulp(x, fmt) for x in numbers[:-1]] == [b - a for a, b in zip(numbers, numbers[1:], strict=False)]
    assert ulp(numbers[-1], fmt) == numbers[-1] - numbers[-2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(data=st.data())
def test_ulp_is_numpys_spacing(dtype, data):
    x = dtype(data.draw(st.floats(0, float(np.finfo(dtype).max) / 2, width=8 * np.dtype(dtype).itemsize)))
    fmt = FORMATS[np.dtype(dtype).name]
    assert ulp(x, fmt) == ulp(-x, fmt) == fraction(np.spacing(x))


def test_ulp_between_and_beyond_the_numbers():
    assert ulp(2 - Fraction(1, 10**50), float32) == Fraction(2) ** -23
    assert ulp(2, float32) == ulp(2 + Fraction(1, 10**50), float32) == Fraction(2) ** -22
    assert ulp(Fraction(1, 10**1000), float32) == float32.smallest
    assert ulp(Fraction(2) ** 2000, float32) == Fraction(2) ** 1977


# The ruler


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(sorted(FORMATS)))
def test_correctly_rounded_is_half_an_ulp_or_better(x, name):
    fmt = FORMATS[name]
    got = round_to(x, fmt)
    assert ulps(got, x, fmt) <= Fraction(1, 2) if abs(got) < INF else ulps(got, x, fmt) == 0


@pytest.mark.parametrize(
    ("got", "exact", "wanted"),
    [
        (0.0, 0, 0),
        (-0.0, 0, 0),
        (float32.smallest, 0, 1),
        (float32.tiny, 0, 2**23),
        (0.0, -float32.smallest / 3, Fraction(1, 3)),
        (-float32.smallest, float32.smallest, 2),
        (float32.tiny - float32.smallest, float32.tiny, 1),
        (1 - 2.0**-24, 1, Fraction(1, 2)),  # the spacing is that of the truth, above
        (1.0, 1 - Fraction(1, 2**24), 1),  # and here below
        (np.float32(0.1), Fraction(1, 10), Fraction(1, 5)),  # the truth is not rounded
        (float32.max, float32.max + Fraction(2) ** 103, Fraction(1, 2)),
        (float32.max, Fraction(2) ** 130, 3 * 2**21 + Fraction(1, 8)),
        (INF, INF, 0),
        (-INF, -INF, 0),
        (-INF, INF, INF),
        (float32.max, INF, INF),
        (0.0, -INF, INF),
        (INF, float32.max + Fraction(2) ** 103, 0),
        (-INF, -float32.max - Fraction(2) ** 103, 0),
        (-INF, 10**1000, INF),
        (INF, 10**1000, 0),
        (INF, float32.max + Fraction(2) ** 102, INF),
        (INF, 0, INF),
        (NAN, NAN, 0),
        (NAN, 1, INF),
        (NAN, INF, INF),
        (1.0, NAN, INF),
        (INF, NAN, INF),
    ],
)
def test_ruler(got, exact, wanted):
    assert ulps(got, exact, float32) == wanted


@pytest.mark.parametrize("exact", [1.5, 0.0, INF, NAN])
@pytest.mark.parametrize("got", [1.5, 0.0, INF, -INF, NAN])
def test_ruler_is_the_same_for_every_kind_of_number(got, exact):
    kinds = [float, np.float16, np.float32, ml_dtypes.bfloat16, mpmath.mpf, np.array]
    assert len({ulps(a(got), b(exact), float16) for a in kinds for b in kinds}) == 1
