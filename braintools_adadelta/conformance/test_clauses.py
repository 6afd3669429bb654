"""The clauses of the spec: what every implementation must do. Each clause has one test or a few.

Select an implementation with ``--adadelta-implementation NAME``. Without it, ours and that of braintools are judged.
"""

import inspect

import numpy as np
import pytest

from braintools_adadelta import spec
from braintools_adadelta.conformance.adapters import LACKS
from braintools_adadelta.conformance.cases import (
    ALIKE,
    EMPTY,
    HUGE,
    HYPER,
    LARGE,
    MANY,
    NAMES,
    NARROW,
    SCALARS,
    SHAPES,
    SINGLE,
    SPECIAL,
    kind,
    regions_of,
    runs,
)
from braintools_adadelta.conformance.judge import FIELDS, Case, Deviation, Found, Run, examine, run_and_examine

DTYPES = ["float32", "float64"]
SIXTEEN = ["float16", "bfloat16"]
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_sixteen = pytest.mark.parametrize("dtype", SIXTEEN)
# Without eps, a constant factor of all gradients changes nothing. So clips show only for a large eps, or near its root.
CLIP = HYPER["large_eps"] | {"lr": 0.75}
SMALL = {"lr": 1.0, "rho": 0.9, "eps": 1e-6}
ORDER = {"grad_clip_norm": 2.0, "grad_clip_value": 1.5, "weight_decay": 0.5}
TABLE = [(d, k) for d in DTYPES for k in HYPER] + [(d, k) for d in SIXTEEN for k in NARROW]
each_setting = pytest.mark.parametrize(("dtype", "hyper"), TABLE, ids=["-".join(row) for row in TABLE])


def need(implementation, *options):
    """Skip the test if the implementation does not offer one of the `options`."""
    for option in options:
        if option != "float32" and option not in implementation.supports:
            pytest.skip(f"{option} is not offered")


def need_all_but(implementation, what):
    """Skip the test if the implementation says that it has nothing of the kind."""
    if what in implementation.lacks:
        pytest.skip(f"lacks: {LACKS[what]}, its adapter says")


def need_accumulators(implementation):
    if not implementation.shows:
        pytest.skip("accumulators are not shown: they are judged through theta")


def need_set_lr(implementation):
    need_all_but(implementation, "lr")
    if not implementation.sets_lr:
        pytest.skip("no way to set the lr is offered")


def demand(implementation, found, *fields):
    """Fail with the first number that rounding cannot explain."""
    for field, ulps in found.ulps.items():
        if ulps >= implementation.ulps.get(field, (0.0,))[0]:
            implementation.ulps[field] = ulps, found.allowed[field]
    misses = [miss for miss in found.misses if miss.field in (fields or FIELDS)]
    if misses:
        raise Deviation("\n".join([f"{found.case.options}", *map(str, misses[:5])]), found.case, misses[0])


def conforms(implementation, case, *fields):
    """Run the case, and fail with the first number that rounding cannot explain."""
    demand(implementation, run_and_examine(implementation, case), *fields)


def hyper_of(dtype, hyper):
    return (NARROW if dtype in SIXTEEN else HYPER)[hyper]


def tried(rng, dtype, hyper, examples, **options):
    """Yield the runs that judge the equations: one with many parameters and far numbers, then random ones."""
    for shapes, far in [(MANY, True), *[(SHAPES, False) for _ in examples]]:
        yield runs(rng, dtype, hyper, shapes=shapes, regions=list(regions_of(dtype, far)), **options)


def examined(implementation, dtype, hyper, examples, rng):
    """Return the runs that judge E1, E3 and E4, with what was found. Each is made only once for all three."""
    if (dtype, hyper) not in implementation.found:
        cases = tried(rng, dtype, hyper_of(dtype, hyper), examples, steps=4)
        implementation.found[dtype, hyper] = [attempt(implementation, case) for case in cases]
    return implementation.found[dtype, hyper]


def attempt(implementation, case):
    """Return what was found in the run of a case, or the error that ended it."""
    try:
        return run_and_examine(implementation, case)
    except Exception as error:
        return error


def conform(implementation, rows, *fields):
    for found in rows:
        if not isinstance(found, Found):
            raise found
        demand(implementation, found._replace(ulps={k: v for k, v in found.ulps.items() if k in fields}), *fields)


PAIR = ("large_eps", "no_memory")


def apart(implementation, *cases):
    """Run two cases of three steps in turns and judge both. The second starts after the first step of the first."""
    first = Run(implementation, cases[0])
    first.advance()
    second = Run(implementation, cases[1])
    for run in (second, first, second, first, second):
        run.advance()
    for run in (first, second):
        demand(implementation, examine(run))


# -------------------------------------------------------------------------------------------------------- S: start


@pytest.mark.parametrize("name", spec.SIGNATURE)
def test_S1_signature(implementation, name):
    """The arguments of the spec, in its order, with its defaults."""
    if not inspect.isclass(implementation.cls):
        if name not in implementation.defaults:
            pytest.skip("no defaults are shown")
        if implementation.defaults[name] != spec.SIGNATURE[name]:
            pytest.xfail(f"other: {name} is {implementation.defaults[name]!r}, in the spec {spec.SIGNATURE[name]!r}")
        return
    parameters = inspect.signature(implementation.cls.__init__).parameters
    assert list(parameters)[1 : 1 + len(spec.SIGNATURE)] == list(spec.SIGNATURE)
    assert parameters[name].default == spec.SIGNATURE[name]


@each_dtype
def test_S2_start(implementation, dtype):
    """Accumulators start at zero. A zero gradient changes neither them nor the parameters."""
    need(implementation, dtype)
    params = {"w": np.array([[1.0, -2.0]], dtype), "b": np.array([3.0], dtype)}
    case = Case(params, [{k: np.zeros_like(x) for k, x in params.items()}] * 2, HYPER["defaults"])
    run = Run(implementation, case).finish()
    for tree in (tree for pair in run.memory for tree in pair or ()):
        if any(np.any(x != 0) for x in tree.values()):
            raise Deviation(f"after zero gradients only, an accumulator is {tree}", case)
    for tree in run.theta:
        if any(np.any(tree[k] != x) for k, x in params.items()):
            raise Deviation(f"a zero gradient changed the parameters to {tree}", case)


@pytest.mark.parametrize("dtype", [*DTYPES, *SIXTEEN])
def test_S2_share(implementation, dtype, rng):
    """Two optimizers share nothing, though their parameters have the same names and one starts after the other."""
    need(implementation, dtype)
    apart(implementation, *(runs(rng, dtype, hyper_of(dtype, k), shapes=ALIKE, steps=3) for k in PAIR))


def odd_shapes(implementation, what, shapes, option, dtype, rng):
    """Judge a run with parameters of these shapes, "plain" or with the option that is named."""
    on = {option: ORDER[option]} if option in ORDER else {}
    need(implementation, dtype, *on)
    need_all_but(implementation, what)
    conforms(implementation, runs(rng, dtype, CLIP | on, shapes=shapes, steps=3, regions="near_eps"))


ODD = [("plain", d) for d in (*DTYPES, *SIXTEEN)] + [(o, d) for o in ORDER for d in DTYPES]
each_odd = pytest.mark.parametrize(("option", "dtype"), ODD, ids=["-".join(row) for row in ODD])


@each_odd
def test_S4_scalars(implementation, option, dtype, rng):
    """Parameters without axes."""
    odd_shapes(implementation, "scalars", SCALARS, option, dtype, rng)


@each_odd
def test_S4_empty(implementation, option, dtype, rng):
    """Parameters without elements change nothing for the others."""
    odd_shapes(implementation, "empty", EMPTY, option, dtype, rng)


# ---------------------------------------------------------------------------------------------------- E: equations


@each_setting
def test_E1_average_gradient(implementation, dtype, hyper, examples, rng):
    """E[g2]_t = rho E[g2]_{t-1} + (1 - rho) g_t^2."""
    need(implementation, dtype)
    need_accumulators(implementation)
    conform(implementation, examined(implementation, dtype, hyper, examples, rng), "e_g2")


@each_dtype
@pytest.mark.parametrize("when", ["start", "later"])
def test_E1_names(implementation, when, dtype, rng):
    """Gradients and parameters are matched by name: the order of the gradients differs, or changes between steps."""
    need(implementation, dtype)
    case = runs(rng, dtype, HYPER["large_eps"], shapes=NAMES, steps=3, reorder=False)
    orders = [(1, 2, 0), (0, 1, 2), (2, 0, 1)] if when == "start" else [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
    grads = [{list(g)[k]: g[list(g)[k]] for k in order} for order, g in zip(orders, case.grads, strict=True)]
    conforms(implementation, case._replace(grads=grads))


@each_setting
def test_E2_delta(implementation, dtype, hyper, examples, rng):
    """Delta_t = - sqrt(E[Delta2]_{t-1} + eps) / sqrt(E[g2]_t + eps) * g_t: for theta_0 = 0, lr = 1 the new theta."""
    need(implementation, dtype)
    for case in tried(rng, dtype, hyper_of(dtype, hyper) | {"lr": 1.0}, examples, steps=3, theta=0.0):
        conforms(implementation, case, "theta")


@each_setting
def test_E3_average_delta(implementation, dtype, hyper, examples, rng):
    """E[Delta2]_t = rho E[Delta2]_{t-1} + (1 - rho) Delta_t^2, and lr is not in Delta."""
    need(implementation, dtype)
    need_accumulators(implementation)
    conform(implementation, examined(implementation, dtype, hyper, examples, rng), "e_delta2")


@each_setting
def test_E4_apply(implementation, dtype, hyper, examples, rng):
    """theta_t = theta_{t-1} + lr_t Delta_t."""
    need(implementation, dtype)
    conform(implementation, examined(implementation, dtype, hyper, examples, rng), "theta")


@each_dtype
def test_E4_long(implementation, dtype, rng):
    """The same after many steps: nothing warms up, decays, counts or starts again."""
    need(implementation, dtype)
    options = {"lr": 0.5, "rho": 0.9, "eps": 1e-4}
    conforms(implementation, runs(rng, dtype, options, shapes=SINGLE, steps=120, regions=["ordinary", "near_eps"]))
    conforms(implementation, runs(rng, dtype, HYPER["large_eps"], shapes=SINGLE, steps=260, regions="near_eps"))


@each_dtype
def test_E4_large(implementation, dtype, rng):
    """The same in every one of many elements."""
    need(implementation, dtype)
    conforms(implementation, runs(rng, dtype, HYPER["large_eps"], shapes=LARGE, steps=2))
    conforms(implementation, runs(rng, dtype, HYPER["large_eps"], shapes=HUGE, steps=1, regions="near_eps"))


@each_sixteen
def test_E4_narrow(implementation, dtype, rng):
    """The same in 16 bits, after some steps and in many elements."""
    need(implementation, dtype)
    long = runs(rng, dtype, NARROW["large_eps"], shapes=SINGLE, steps=12, regions="near_eps", theta=0.0)
    conforms(implementation, long)
    conforms(implementation, runs(rng, dtype, NARROW["large_eps"], shapes=LARGE, steps=2))


@each_dtype
def test_E4_unseen(implementation, dtype, rng):
    """The same if nobody looks before the end, and the caller reuses its arrays of gradients."""
    need(implementation, dtype)
    case = runs(rng, dtype, HYPER["large_eps"], shapes=ALIKE, steps=4, regions="near_eps")
    run = Run(implementation, case, watched=False).finish()
    demand(implementation, examine(run))
    again = implementation.params(run.handle)
    if any(not np.array_equal(x, again[name]) for name, x in run.theta[-1].items()):
        raise Deviation(f"two calls of params() return {run.theta[-1]} and then {again}", case)


@each_dtype
def test_E4_lr_zero(implementation, dtype, rng):
    """With lr = 0 from the start, no parameter moves."""
    need(implementation, dtype)
    need_all_but(implementation, "lr")
    conforms(implementation, runs(rng, dtype, HYPER["large_eps"] | {"lr": 0.0}, shapes=ALIKE, steps=2))


@each_dtype
def test_E4_tiny(implementation, dtype):
    """Gradients far below the root of eps still move the parameter by about g. It starts at 0, so that this shows."""
    need(implementation, dtype)
    tiny = np.array([1e-9, -1e-12, 1e-15, 0.0], dtype)
    grads = [{"w": tiny}, {"w": -3 * tiny}, {"w": np.zeros(4, dtype)}, {"w": tiny}]
    for hyper in ("defaults", "large_eps", "long_memory"):
        conforms(implementation, Case({"w": np.zeros(4, dtype)}, grads, HYPER[hyper]))


# ----------------------------------------------------------------------------------------------------------- L: lr


LRS = [0.0, 0.1, 1.0, 3.3]


@each_dtype
@pytest.mark.parametrize("hyper", ["defaults", "large_eps"])
def test_L1_lr(implementation, dtype, hyper, rng, examples):
    """A step uses the lr that is in force when it is taken: it is set before the step, to 0 too, or stays as it is."""
    need(implementation, dtype)
    need_set_lr(implementation)
    for k in examples:
        lrs = [[0.25, 0.0, 3.0, None], [None, 3.0, None, 0.0]][k] if k < 2 else rng.permutation(LRS).tolist()
        conforms(implementation, runs(rng, dtype, HYPER[hyper], lrs=lrs))


@pytest.mark.parametrize("dtype", [*DTYPES, *SIXTEEN])
def test_L1_stays(implementation, dtype, rng):
    """An lr that was set stays until it is set again. 0.1 is a number that has to be rounded."""
    need(implementation, dtype)
    need_set_lr(implementation)
    lrs = [None, 0.1, *[None] * 8, 0.7, *[None] * 5]
    options = hyper_of(dtype, "large_eps") | {"lr": 0.0}
    conforms(implementation, runs(rng, dtype, options, shapes=ALIKE, steps=16, lrs=lrs, regions="near_eps"))


@each_dtype
def test_L1_share(implementation, dtype, rng):
    """The lr of one optimizer is not that of another."""
    need(implementation, dtype)
    need_set_lr(implementation)
    cases = [runs(rng, dtype, HYPER[k], shapes=ALIKE, steps=3) for k in PAIR]
    apart(implementation, cases[0]._replace(lrs=[None, 0.1, None]), cases[1]._replace(lrs=[0.3, None, None]))


# -------------------------------------------------------------------------------------------------- G: the gradient


def exactly(dtype, **options):
    """Return runs that meet thresholds exactly (a 3-4-5 triangle over two leaves) and contain zero gradients."""
    params = {"v": np.array([3.0], dtype), "u": np.array([[-4.0]], dtype)}
    tree = lambda v, u: {"u": np.array([[u]], dtype), "v": np.array([v], dtype)}
    grads = [tree(3, -4), tree(0, 0), tree(-5, 0), tree(0, 2), tree(3.01, -4.02), tree(400, 300)]
    grads += [tree(3.0015, -4.002), tree(2.9985, 3.998)]  # just above 5 and just below
    return [Case(params, grads, hyper | options) for hyper in (CLIP, HYPER["no_memory"])]


@each_dtype
@pytest.mark.parametrize("c", [1e-3, 1.0, 5.0, 50.0])
def test_G1_clip_norm(implementation, c, dtype, rng, examples):
    """One norm over all parameters; g if n < c, else g * c / n."""
    need(implementation, dtype, "grad_clip_norm")
    for case in exactly(dtype, grad_clip_norm=c):
        conforms(implementation, case)
    for k in examples:
        shapes = [SHAPES, ALIKE, MANY][k % 3]
        hyper, region = (SMALL, "near_eps") if c == 1e-3 else (CLIP, "ordinary")
        conforms(
            implementation, runs(rng, dtype, hyper | {"grad_clip_norm": c}, shapes=shapes, steps=3, regions=region)
        )


@each_dtype
def test_G1_large(implementation, dtype, rng):
    """The norm over many elements."""
    need(implementation, dtype, "grad_clip_norm")
    for c in (20.0, 4000.0):
        options = CLIP | {"grad_clip_norm": c}
        conforms(implementation, runs(rng, dtype, options, shapes=LARGE, steps=1, regions="ordinary"))


@each_dtype
@pytest.mark.parametrize("v", [1e-3, 1.0, 5.0, 50.0])
def test_G2_clip_value(implementation, v, dtype, rng, examples):
    """g <- min(max(g, -v), v), elementwise."""
    need(implementation, dtype, "grad_clip_value")
    for case in exactly(dtype, grad_clip_value=v):
        conforms(implementation, case)
    hyper, region = (SMALL, "near_eps") if v == 1e-3 else (CLIP, "ordinary")
    for _ in examples:
        conforms(implementation, runs(rng, dtype, hyper | {"grad_clip_value": v}, steps=3, regions=region))


@each_dtype
@pytest.mark.parametrize("weight_decay", [0.01, 0.5, 3.0])
@pytest.mark.parametrize("hyper", ["large_eps", "no_memory"])
def test_G3_weight_decay(implementation, weight_decay, hyper, dtype, rng, examples):
    """g <- g + weight_decay * theta: the decay is a part of the gradient that Adadelta sees."""
    need(implementation, dtype, "weight_decay")
    for case in exactly(dtype, weight_decay=weight_decay):
        conforms(implementation, case)
    for _ in examples:
        conforms(implementation, runs(rng, dtype, HYPER[hyper] | {"weight_decay": weight_decay}, steps=3))


@each_dtype
def test_G3_names(implementation, dtype, rng):
    """No parameter is spared because of its name."""
    need(implementation, dtype, "weight_decay")
    shapes = {name: (2,) for name in SPECIAL}
    conforms(implementation, runs(rng, dtype, CLIP | {"weight_decay": 0.5}, shapes=shapes, steps=2, regions="near_eps"))


@each_dtype
@pytest.mark.parametrize("off", [None, *ORDER], ids=lambda x: f"without_{x}" if x else "all")
def test_G4_order(implementation, off, dtype, rng, examples):
    """G1, G2, G3, then E1: the decay is not clipped. All three options, and each two of them."""
    options = {name: x for name, x in ORDER.items() if name != off}
    need(implementation, dtype, *options)
    for _ in examples:
        conforms(implementation, runs(rng, dtype, CLIP | options, shapes=ALIKE, steps=3, regions="ordinary"))
    # Two parameters for which each of the six orders gives another gradient.
    params = {"u": np.array([-2.0, 6.0], dtype)}
    conforms(implementation, Case(params, [{"u": np.array([3.0, 1.0], dtype)}] * 2, CLIP | options))


@each_sixteen
@pytest.mark.parametrize("only", [None, *ORDER], ids=lambda x: f"only_{x}" if x else "all")
def test_G4_narrow(implementation, only, dtype, rng, examples):
    """The same in 16 bits, with all three options and with each alone."""
    options = {name: x for name, x in ORDER.items() if only in (None, name)}
    need(implementation, dtype, *options)
    for _ in examples:
        case = runs(rng, dtype, NARROW["large_eps"] | options, shapes=ALIKE, steps=3, regions="near_eps")
        conforms(implementation, case)


@each_dtype
@pytest.mark.parametrize("only", [None, *ORDER], ids=lambda x: f"only_{x}" if x else "all")
def test_G4_long(implementation, only, dtype, rng):
    """Every option still works after many steps."""
    options = {name: x for name, x in ORDER.items() if only in (None, name)}
    need(implementation, dtype, *options)
    conforms(implementation, runs(rng, dtype, CLIP | options, shapes=ALIKE, steps=14, regions="near_eps"))


@each_dtype
@pytest.mark.parametrize("option", ORDER)
def test_G4_share(implementation, option, dtype, rng):
    """The options of one optimizer are not those of another."""
    need(implementation, dtype, option)
    cases = [runs(rng, dtype, HYPER[k] | {option: ORDER[option] / 4**i}, shapes=ALIKE, steps=3, regions="ordinary")
             for i, k in enumerate(PAIR)]  # fmt: skip
    apart(implementation, *cases)


# ---------------------------------------------------------------------------------------------------------- X: range


def overflow(dtype):
    """Return the largest finite number of `dtype`."""
    return float(np.finfo(dtype).max)


@each_dtype
def test_X1_saturate(implementation, dtype):
    """A component whose square would overflow counts as the largest with a finite square. Later the weight moves."""
    need(implementation, dtype)
    huge = overflow(dtype) / 2
    params = {"w": np.array([0.5, 0.5], dtype)}
    grads = [{"w": np.array(g, dtype)} for g in ([huge, 1.0], [-huge, 1.0], [1.0, -1.0])]
    conforms(implementation, Case(params, grads, HYPER["defaults"]))


@each_sixteen
def test_X1_narrow(implementation, dtype):
    """The square of 300 is not finite in float16. Where it is stored as float16, the weight never moves again."""
    need(implementation, dtype)
    spike = 300.0 if dtype == "float16" else 1e30
    grads = [{"w": np.array(g, kind(dtype))} for g in ([spike, 1.0], [1.0, 1.0], [-spike, -1.0], [1.0, -1.0])]
    conforms(implementation, Case({"w": np.array([0.5, 0.5], kind(dtype))}, grads, NARROW["middle"]))


@each_dtype
def test_X1_near_overflow(implementation, dtype):
    """The squares are only just finite."""
    need(implementation, dtype)
    root = overflow(dtype) ** 0.5
    grads = [{"w": np.array([x, -x / 4, 1.0], dtype)} for x in (root / 2, root * 0.99, 0.0, -root / 16)]
    for hyper in ("defaults", "no_memory"):
        conforms(implementation, Case({"w": np.zeros(3, dtype)}, grads, HYPER[hyper]))


@each_dtype
def test_X1_underflow(implementation, dtype):
    """The squares underflow to zero: only eps is left in the roots."""
    need(implementation, dtype)
    tiny = float(np.finfo(dtype).tiny)
    grads = [{"w": np.array([tiny**0.6, -(tiny**0.7), tiny * 8], dtype)} for _ in range(3)]
    conforms(implementation, Case({"w": np.zeros(3, dtype)}, grads, HYPER["defaults"]))


@each_dtype
@pytest.mark.parametrize("size", ["huge", "tiny"])
def test_X1_norm(implementation, size, dtype):
    """The squares in the norm overflow, or underflow."""
    need(implementation, dtype, "grad_clip_norm")
    big = overflow(dtype) ** 0.75
    g = np.array([3 * big, -4 * big], dtype) if size == "huge" else np.array([3 / big, -4 / big], dtype)
    params = {"w": np.zeros(2, dtype)}
    conforms(
        implementation, Case(params, [{"w": g}] * 2, CLIP | {"grad_clip_norm": 1.0 if size == "huge" else 1 / big})
    )


@each_dtype
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
def test_X1_nonfinite(implementation, bad, dtype):
    """A NaN or infinite component changes its own weight to NaN or infinity, and no other weight."""
    need(implementation, dtype)
    grads = [{"w": np.array(g, dtype), "b": np.array([2.0], dtype)} for g in ([1.0, -1.0], [bad, 2.0], [1.0, 3.0])]
    params = {"w": np.array([0.5, 0.5], dtype), "b": np.array([1.0], dtype)}
    run = Run(implementation, Case(params, grads, HYPER["defaults"])).finish()
    if np.isfinite(run.theta[-1]["w"][0]):
        raise Deviation(f"the gradient {bad} was ignored: the weight is {run.theta[-1]['w'][0]!r}", run.case)
    clean = Case(params, [{k: np.where(np.isfinite(x), x, 0) for k, x in g.items()} for g in grads], HYPER["defaults"])
    for tree in run.theta:
        tree["w"][0] = 0
    mine, other = run.theta[-1], Run(implementation, clean).finish().theta[-1]
    if mine["w"][1] != other["w"][1] or mine["b"] != other["b"]:
        raise Deviation(f"the gradient {bad} of one weight changed another: {mine}", run.case)


# --------------------------------------------------------------------------------------------------------- X3: complex


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("hyper", ["large_eps", "no_memory"])
def test_X3_complex(implementation, dtype, hyper, rng, examples):
    """The real and the imaginary part each have their own averages, like two real parameters."""
    need(implementation, dtype)
    for _ in examples:
        conforms(implementation, runs(rng, dtype, HYPER[hyper], steps=3))


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("option", [*ORDER, "lr"])
def test_X3_options(implementation, option, dtype, rng):
    """The norm is over all real and imaginary parts. Each part is clipped by value, and each part decays."""
    lrs = [None, 0.1, None, 0.7, None, None] if option == "lr" else None
    need(implementation, dtype, *([] if lrs else [option]))
    if lrs:
        need_set_lr(implementation)
    options = CLIP | ({} if lrs else {option: ORDER[option]})
    conforms(implementation, runs(rng, dtype, options, shapes=ALIKE, steps=6, lrs=lrs, regions="near_eps"))


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_X3_large(implementation, dtype, rng):
    """The same in every one of many elements."""
    need(implementation, dtype)
    conforms(implementation, runs(rng, dtype, HYPER["large_eps"], shapes=LARGE, steps=1))
