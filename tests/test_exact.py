"""The judge's truth: the exact step against closed fono_root and fractions that were worked out by hand."""

import math
import subprocess
import sys
from fractions import Fraction

import ml_dtypes
import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braintools_adadelta.oracle import exact as module
from braintools_adadelta.oracle.exact import Step, exact, largest_root, step, walk
from braintools_adadelta.oracle.ulp import FORMATS, float32, fraction, round_to, ulp

F = Fraction
INF, NAN = math.inf, math.nan
CLOSE = F(1, 2**390)  # what is promised of the 400 bits


def root(x):
    """The square root of a fraction that has one."""
    x = F(x)
    r = F(math.isqrt(x.numerator), math.isqrt(x.denominator))
    assert r * r == x
    return r


def no_root(x):
    """A stand-in where any function would do in place of the root: everything stays a fraction."""
    return x + 1


def close(got, wanted):
    return all(abs(fraction(a) - b) <= CLOSE * abs(b) for a, b in zip(got, wanted, strict=True))


fractions = st.fractions(-100, 100, max_denominator=1000)
doubles = st.floats(-1e100, 1e100)
entries = st.tuples(doubles, doubles, doubles.map(abs), doubles.map(abs))  # theta, g, E[g2], E[Delta2]
rhos = st.fractions(0, F(999, 1000), max_denominator=1000)


# E1 to E4


@given(st.lists(fractions, min_size=1, max_size=6), rhos)
def test_e1_is_the_closed_form(gs, rho):
    """E[g2]_t is the sum of (1 - rho) rho^age g^2."""
    steps = walk([F(0)], [[g] for g in gs], rho=rho, eps=1, sqrt=no_root)
    for t, taken in enumerate(steps):
        assert taken.e_g2 == [sum((1 - rho) * rho ** (t - k) * gs[k] ** 2 for k in range(t + 1))]


@given(st.lists(fractions, min_size=1, max_size=6), rhos, fractions)
def test_e3_and_e4_are_sums_over_the_deltas(gs, rho, lr):
    """Whatever the deltas are: E[Delta2]_t weighs their squares as E1 does, theta adds lr times them."""
    steps = walk([F(3)], [[g] for g in gs], rho=rho, eps=1, lr=lr, sqrt=no_root)
    deltas = [taken.delta[0] for taken in steps]
    for t, taken in enumerate(steps):
        assert taken.e_delta2 == [sum((1 - rho) * rho ** (t - k) * deltas[k] ** 2 for k in range(t + 1))]
        assert taken.theta == [3 + lr * sum(deltas[: t + 1])]


@given(fractions, fractions.map(abs), fractions.map(abs), rhos, st.fractions(F(1, 1000), 10))
def test_e2_is_the_negative_root_of_its_square(g, e_g2, e_delta2, rho, eps):
    """Delta^2 (E[g2]_t + eps) = (E[Delta2]_{t-1} + eps) g^2, and Delta points against g."""
    taken = step(F(0), g, e_g2, e_delta2, rho=rho, eps=eps)
    delta = fraction(taken.delta[0])
    wanted = (e_delta2 + eps) * g**2 / (rho * e_g2 + (1 - rho) * g**2 + eps)
    assert close([delta**2], [wanted]) and delta * g <= 0


@pytest.mark.parametrize("g", [F(1, 10**9), F(1), F(10**9)])
def test_constant_gradients_make_the_average_fill_up(g):
    """E[g2]_t = (1 - rho^t) g^2; and with rho = 0, Delta_t^2 = (Delta_{t-1}^2 + eps) g^2 / (g^2 + eps)."""
    rho, eps = F(9, 10), F(1, 10**6)
    for t, taken in enumerate(walk(F(0), [g] * 30, rho=rho, eps=eps), 1):
        assert close(taken.e_g2, [(1 - rho**t) * g**2])
    ratio = g**2 / (g**2 + eps)
    for t, taken in enumerate(walk(F(0), [g] * 30, rho=0, eps=eps), 1):
        assert close(taken.e_delta2, [eps * sum(ratio**k for k in range(1, t + 1))])


def test_lr_stays_out_of_the_accumulators():
    one, other = (walk([1.0], [[3.0], [-1.0], [2.0]], rho=0.9, eps=1e-6, lr=lr) for lr in (1, 0.125))
    for a, b in zip(one, other, strict=True):
        assert a[:-1] == b[:-1] and a.theta != b.theta


def test_symbols_give_the_equations_of_the_spec():
    sympy = pytest.importorskip("sympy")
    theta, g, e_g2, e_delta2 = sympy.symbols("theta g e_g2 e_delta2", real=True)
    lr, rho, eps, decay = sympy.symbols("lr rho eps weight_decay", positive=True)
    state = [theta, 2], [g, 3], [e_g2, 4], [e_delta2, 5]
    taken = step(*state, lr=lr, rho=rho, eps=eps, weight_decay=decay, sqrt=sympy.sqrt)
    for i, (theta, g, e_g2, e_delta2) in enumerate(zip(*state, strict=True)):
        g = g + decay * theta
        new_e_g2 = rho * e_g2 + (1 - rho) * g**2
        delta = -sympy.sqrt(e_delta2 + eps) / sympy.sqrt(new_e_g2 + eps) * g
        new_e_delta2 = rho * e_delta2 + (1 - rho) * delta**2
        wanted = g, new_e_g2, delta, new_e_delta2, theta + lr * delta
        assert [sympy.simplify(got[i] - want) for got, want in zip(taken[3:], wanted, strict=True)] == [0] * 5


# G1 to G4, X1

PLAIN = {"rho": F(1, 2), "eps": F(1), "sqrt": no_root}  # what follows the decay does not matter here


def before_e1(g, theta=None, **options):
    """What the record says of the gradient: g, clipped_norm, clipped_value, decayed."""
    zero = [F(0)] * len(g)
    return list(step(zero if theta is None else theta, g, zero, zero, **PLAIN | options)[:4])


def test_g1_takes_one_norm_over_all_entries():
    g = [F(2), F(-3), F(6)]  # 7^2 = 4 + 9 + 36; pairs have no rational norm, single entries another one
    options = {"grad_clip_norm": F(1), "sqrt": lambda x: root(x) if x == 49 else no_root(x)}
    assert before_e1(g, **options)[1] == [F(2, 7), F(-3, 7), F(6, 7)]


def test_g1_takes_arrays_of_any_shape_end_to_end():
    g = [np.array([[2.0], [-3.0]], np.float32), np.float32(6)]
    zero = [np.zeros_like(x) for x in g]
    taken = step(zero, g, zero, zero, rho=0.9, eps=1e-6, grad_clip_norm=1)
    assert taken.g == [2, -3, 6] and close(taken.clipped_norm, [F(2, 7), F(-3, 7), F(6, 7)])


@pytest.mark.parametrize(("c", "factor"), [(F(4), F(4, 5)), (F(5), 1), (F(6), 1), (F(5) + F(1, 10**100), 1)])
def test_g1_below_at_and_above_the_threshold(c, factor):
    options = {"grad_clip_norm": c, "sqrt": lambda x: root(x) if x == 25 else no_root(x)}
    assert before_e1([F(3), F(-4)], **options)[1] == [3 * factor, -4 * factor]


def test_g1_lets_a_zero_gradient_pass():
    taken = step([1, 2], [0, 0], [0, 0], [0, 0], rho=0.9, eps=1e-6, grad_clip_norm=1)
    assert taken.clipped_norm == taken.delta == [0, 0] and taken.theta == [1, 2]


def test_g2_bounds_both_sides():
    g = [F(-3), F(-2), F(-1), F(0), F(1), F(2), F(3)]
    assert before_e1(g, grad_clip_value=F(2))[2] == [-2, -2, -1, 0, 1, 2, 2]


def test_g4_norm_then_value_then_decay():
    """g = (3, 4) has norm 5; clipped to 2 it is (6/5, 8/5); then to (6/5, 3/2); then decay adds theta / 2."""
    options = {"grad_clip_norm": F(2), "grad_clip_value": F(3, 2), "weight_decay": F(1, 2)}
    got = before_e1([F(3), F(4)], [F(-2), F(10)], sqrt=lambda x: root(x) if x == 25 else no_root(x), **options)
    assert got == [[3, 4], [F(6, 5), F(8, 5)], [F(6, 5), F(3, 2)], [F(1, 5), F(13, 2)]]


def test_the_decayed_gradient_is_what_enters_e1_and_e2():
    taken = step([F(4)], [F(1)], [F(0)], [F(0)], rho=F(0), eps=F(1), weight_decay=F(1, 2), sqrt=lambda x: x)
    assert taken.decayed == [3] and taken.e_g2 == [9] and taken.delta == [F(-3, 10)]


@pytest.mark.parametrize("name", FORMATS)
def test_x1_the_largest_root(name):
    """Its square stays finite and that of the next number does not."""
    fmt = FORMATS[name]
    largest = largest_root(fmt)
    assert round_to(largest, fmt) == largest and round_to(largest**2, fmt) <= fmt.max
    assert round_to((largest + ulp(largest, fmt)) ** 2, fmt) == INF


def test_x1_saturates_on_entry_to_e1_and_in_e2():
    """A first float32 gradient of 1e20 moves theta by 0.0031623; the record still shows 1e20."""
    options = {"rho": F(9, 10), "eps": F(1, 10**6), "largest": largest_root(float32)}
    taken = step([0, 0, 0], [10**20, -(10**20), 1], [0] * 3, [0] * 3, **options)
    largest = largest_root(float32)
    assert close(taken.decayed, [10**20, -(10**20), 1])
    assert close(taken.e_g2, [largest**2 / 10, largest**2 / 10, F(1, 10)])
    for delta, g in zip(taken.delta, [largest, -largest, F(1)], strict=True):
        assert close([fraction(delta) ** 2], [F(1, 10**6) * g**2 / (g**2 / 10 + F(1, 10**6))]) and delta * g < 0
    assert f"{float(taken.theta[0]):.7f}" == "-0.0031623" and f"{float(taken.theta[1]):.7f}" == "0.0031623"


def test_x1_comes_after_the_decay():
    """Neither 10^19 nor the decay is beyond the largest root, but their sum is."""
    largest = largest_root(float32)
    taken = step([F(10**19)], [F(10**19)], [0], [0], largest=largest, weight_decay=1, **PLAIN)
    assert taken.decayed == [2 * 10**19] and taken.e_g2 == [largest**2 / 2]


@pytest.mark.parametrize(("g", "e_g2"), [(INF, INF), (-INF, INF), (NAN, NAN)])
def test_x1_leaves_infinity_and_nan_alone(g, e_g2):
    taken = step(1.0, g, 0.0, 0.0, rho=0.9, eps=1e-6, largest=largest_root(float32))
    assert repr(float(taken.e_g2[0])) == repr(e_g2)
    assert all(math.isnan(x[0]) for x in (taken.delta, taken.e_delta2, taken.theta))


@pytest.mark.parametrize(("g", "wanted"), [(INF, [NAN, 0.0]), (NAN, [NAN, NAN])])
def test_clips_let_nan_through(g, wanted):
    """An infinite norm wipes out what is finite, as in IEEE arithmetic; clip by value keeps NaN and bounds infinity."""
    options = {"rho": 0.9, "eps": 1e-6}
    taken = step([0, 0], [g, 1.0], [0, 0], [0, 0], grad_clip_norm=1, grad_clip_value=1, **options)
    assert repr([float(x) for x in taken.clipped_norm]) == repr(wanted)
    assert repr([float(x) for x in taken.clipped_value]) == repr(wanted)
    by_value = step(0, g, 0, 0, grad_clip_value=1, **options).clipped_value[0]
    assert math.isnan(by_value) if math.isnan(g) else by_value == 1


# Kinds of numbers


@given(st.lists(entries, min_size=1, max_size=3), rhos.map(float))
def test_fractions_and_mpf_agree(entries, rho):
    """The whole step with every option: in mpf, and in fractions with roots of 300 digits after the point."""

    def long_root(x):
        return F(math.isqrt(x.numerator * x.denominator * 10**600), x.denominator * 10**300)

    options = {"rho": rho, "eps": 2.0**-20, "lr": 0.1, "weight_decay": 0.01, "grad_clip_norm": 1e3}
    options |= {"grad_clip_value": 3.3, "largest": 2.5}
    state = [list(column) for column in zip(*entries, strict=True)]
    got = step(*state, **options)
    options = {name: F(value) for name, value in options.items()}
    wanted = step(*([F(x) for x in column] for column in state), **options, sqrt=long_root)
    for name, a, b in zip(Step._fields, got, wanted, strict=True):
        terms = [abs(F(x)) for x in (1, *b, *(state[0] if name in ("decayed", "theta") else []))]  # a sum may cancel
        assert all(abs(fraction(x) - y) <= CLOSE * max(terms) for x, y in zip(a, b, strict=True)), name


@pytest.mark.parametrize(("kind", "sqrt"), [(float, math.sqrt), (np.float32, np.sqrt), (F, root), (exact, None)])
def test_a_step_stays_in_its_kind_of_number(kind, sqrt):
    """All roots here are even and all results dyadic, so no kind has to round."""
    of = (lambda x: exact(x)[0]) if kind is exact else kind
    options = {"lr": 0.5, "rho": 0.75, "eps": 48, "weight_decay": 0.5, "grad_clip_norm": 20, "grad_clip_value": 12}
    options = {name: of(value) for name, value in (options | {"largest": 10}).items()}
    taken = step([of(4)], [of(6)], [of(0)], [of(52)], **options, sqrt=sqrt)
    assert taken == Step([6], [6], [6], [8], [16], [-10], [64], [-1])
    assert {type(x[0]) for x in taken} == {type(of(0))}


def test_options_given_as_floats_count_as_what_they_are():
    """1 - 0.3 is not a double: it must not be rounded to one. Nor may a float32 rho count as the double near it."""
    for rho in (0.3, np.float32(0.3), ml_dtypes.bfloat16(0.3)):
        taken = step(0.0, 2.0, 0.0, 0.0, rho=rho, eps=1e-6, weight_decay=np.float16(0.1))
        assert close(taken.e_g2, [(1 - fraction(rho)) * 4])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16, np.int64, bool])
def test_exact_rounds_nothing(dtype):
    x = np.array([[0.1, 1e4, 3.0], [5e-324, -0.7, 1 / 3]]).astype(dtype)
    assert [fraction(v) for v in exact(x)] == [fraction(v) for v in x.ravel()]
    assert exact(x.T) == exact([list(x[:, 0]), x[:, 1], (x[0, 2], x[1, 2])])


def test_exact_takes_infinity_and_nan_and_refuses_the_rest():
    assert repr([float(x) for x in exact(np.array([INF, -INF, NAN], np.float16))]) == "[inf, -inf, nan]"
    assert exact([]) == [] and exact(np.zeros((0, 3))) == []
    assert exact(exact([0.1, F(1, 2)])) == [0.1, 0.5]
    for x in (1j, np.complex64(1), None, {"a": 1.0}):
        with pytest.raises(TypeError):
            exact([1.0, x])


def test_the_precision_is_our_own():
    with mpmath.workprec(20):
        rough = walk(4, [8, 6.4], rho=0.9, eps=1e-6)
        assert mpmath.mp.prec == 20
    fine = walk(4, [8, 6.4], rho=0.9, eps=1e-6)
    assert rough == fine and mpmath.mp.prec == 53
    with module.CONTEXT.workprec(4000):
        finer = walk(4, [8, 6.4], rho=0.9, eps=1e-6)
    assert close(fine[-1].theta, [fraction(x) for x in finer[-1].theta])


def test_lists_of_different_lengths_are_refused():
    for k in range(4):
        state = [[1.0, 2.0] for _ in range(4)]
        state[k] = [1.0]
        with pytest.raises(ValueError):
            step(*state, rho=0.9, eps=1e-6)


def test_the_oracle_shares_no_module_with_what_it_judges():
    script = "import sys, braintools_adadelta.oracle.exact, braintools_adadelta.oracle.ulp; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    ours = {name for name in loaded if name.startswith("braintools_adadelta.")}
    assert {name.split(".")[1] for name in ours} == {"oracle"}
