"""The clauses of the spec, one test each or a few: what every implementation must do.

Select an implementation with ``--implementation NAME``; without it, ours and braintools' are judged.
"""

import inspect

import numpy as np
import pytest

from braintools_adadelta import spec
from braintools_adadelta.conformance.cases import ALIKE, HYPER, LARGE, MANY, NARROW, SHAPES, SINGLE, kind, runs
from braintools_adadelta.conformance.judge import Case, Deviation, Found, Run, examine, judge

DTYPES = ["float32", "float64"]
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
TABLE = [(d, k) for d in DTYPES for k in HYPER] + [(d, k) for d in ("float16", "bfloat16") for k in NARROW]
each_setting = pytest.mark.parametrize(("dtype", "hyper"), TABLE, ids=["-".join(row) for row in TABLE])


def need(implementation, *options):
    """Skip, with the reason, what an implementation does not offer."""
    for option in options:
        if option != "float32" and option not in implementation.supports:
            pytest.skip(f"{option} is not offered")
        if option == "bfloat16":
            pytest.importorskip("ml_dtypes")


def need_accumulators(implementation):
    if not implementation.shows:
        pytest.skip("accumulators are not shown: what they do is judged through theta")


def demand(implementation, found, case, *fields):
    """Fail with the first number that rounding cannot explain."""
    implementation.ulps = {k: max(v, implementation.ulps.get(k, 0.0)) for k, v in found.ulps.items()} | {
        k: v for k, v in implementation.ulps.items() if k not in found.ulps
    }
    misses = [miss for miss in found.misses if miss.field in (fields or found.ulps)]
    if misses:
        raise Deviation("\n".join([f"{case.options}", *map(str, misses[:5])]), case, misses[0])


def conforms(implementation, case, *fields):
    """Run the case, and fail with the first number that rounding cannot explain."""
    demand(implementation, judge(implementation, case), case, *fields)


def hyper_of(dtype, hyper):
    return (NARROW if dtype in ("float16", "bfloat16") else HYPER)[hyper]


def examined(implementation, dtype, hyper, examples, rng):
    """Yield the runs that E1, E3 and E4 are judged by, each made once for all three."""
    rows = implementation.found.setdefault((dtype, hyper), [])
    for k in examples:
        if k == len(rows):
            case = runs(rng, dtype, hyper_of(dtype, hyper), shapes=MANY if k == 2 else SHAPES, steps=4)
            rows.append((case, attempt(implementation, case)))
        yield rows[k]


def attempt(implementation, case):
    """Return what was found in the run of a case, or why there is no run."""
    try:
        return judge(implementation, case)
    except Exception as error:
        return error


def conform(implementation, rows, *fields):
    for case, found in rows:
        if not isinstance(found, Found):
            raise found
        demand(implementation, Found(found.misses, {k: v for k, v in found.ulps.items() if k in fields}), case, *fields)


# -------------------------------------------------------------------------------------------------------- S: start


@pytest.mark.parametrize("name", spec.SIGNATURE)
def test_S1_signature(implementation, name):
    """The arguments of the spec, in its order, with its defaults."""
    if not inspect.isclass(implementation.cls):
        if name not in implementation.defaults:
            pytest.skip("no defaults are shown")
        if implementation.defaults[name] != spec.SIGNATURE[name]:
            pytest.xfail(f"known: other-defaults: {name} is {implementation.defaults[name]!r}")
        return
    parameters = inspect.signature(implementation.cls.__init__).parameters
    assert list(parameters)[1 : 1 + len(spec.SIGNATURE)] == list(spec.SIGNATURE)
    assert parameters[name].default == spec.SIGNATURE[name]


@each_dtype
def test_S2_start(implementation, dtype):
    """Accumulators start at zero: a zero gradient leaves them there, and moves nothing."""
    need(implementation, dtype)
    params = {"w": np.array([[1.0, -2.0]], dtype), "b": np.array(3.0, dtype)}
    case = Case(params, [{k: np.zeros_like(x) for k, x in params.items()}] * 2, HYPER["defaults"])
    run = Run(implementation, case).finish()
    for tree in (tree for pair in run.memory for tree in pair or ()):
        if any(np.any(x != 0) for x in tree.values()):
            raise Deviation(f"before any gradient but zero an accumulator is {tree}", case)
    for tree in run.theta:
        if any(np.any(tree[k] != x) for k, x in params.items()):
            raise Deviation(f"a zero gradient changed the parameters to {tree}", case)


@each_dtype
def test_S2_share(implementation, dtype, rng):
    """Two optimizers share nothing, though their parameters have the same names, and one starts after the other moved."""
    need(implementation, dtype)
    cases = [runs(rng, dtype, HYPER[name], shapes=ALIKE, steps=3) for name in ("large_eps", "no_memory")]
    first = Run(implementation, cases[0])
    first.advance()
    second = Run(implementation, cases[1])
    for run in (second, first, second, first, second):
        run.advance()
    for run in (first, second):
        demand(implementation, examine(run), run.case)


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
    """What belongs together is found by name: gradients come in another order than the parameters, or than before."""
    need(implementation, dtype)
    case = runs(rng, dtype, HYPER["large_eps"], shapes={"v": (2,), "u": (2,), "w": (2,)}, steps=3, reorder=False)
    orders = ["uwv", "vuw", "wvu"] if when == "start" else ["vuw", "uwv", "wvu"]
    grads = [{name: g[name] for name in order} for order, g in zip(orders, case.grads, strict=True)]
    conforms(implementation, case._replace(grads=grads))


@each_setting
def test_E2_delta(implementation, dtype, hyper, examples, rng):
    """Delta_t = - sqrt(E[Delta2]_{t-1} + eps) / sqrt(E[g2]_t + eps) * g_t: for theta_0 = 0, lr = 1 the new theta."""
    need(implementation, dtype)
    for _ in examples:
        case = runs(rng, dtype, hyper_of(dtype, hyper) | {"lr": 1.0}, steps=3, theta=0.0)
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
    """The same after many steps: nothing warms up, decays, counts or starts anew."""
    need(implementation, dtype)
    options = {"lr": 0.5, "rho": 0.9, "eps": 1e-4}
    conforms(implementation, runs(rng, dtype, options, shapes=SINGLE, steps=120, regions=["ordinary", "near_eps"]))


@each_dtype
def test_E4_large(implementation, dtype, rng):
    """The same in every one of many elements."""
    need(implementation, dtype)
    conforms(implementation, runs(rng, dtype, HYPER["large_eps"], shapes=LARGE, steps=2))


@each_dtype
def test_E4_tiny(implementation, dtype):
    """Gradients so small that eps alone is in both roots still move the parameter, by about g: from 0 it shows."""
    need(implementation, dtype)
    tiny = np.array([1e-9, -1e-12, 1e-15, 0.0], dtype)
    grads = [{"w": tiny}, {"w": -3 * tiny}, {"w": np.zeros(4, dtype)}, {"w": tiny}]
    for hyper in ("defaults", "large_eps", "long_memory"):
        conforms(implementation, Case({"w": np.zeros(4, dtype)}, grads, HYPER[hyper]))


# ----------------------------------------------------------------------------------------------------------- L: lr


@each_dtype
@pytest.mark.parametrize("hyper", ["defaults", "large_eps"])
def test_L1_lr(implementation, dtype, hyper, rng, examples):
    """The lr in force when the step is taken: set anew before each step, 0 among them, or left as it is."""
    need(implementation, dtype)
    if not implementation.sets_lr:
        pytest.skip("no way to set the lr is offered")
    for k in examples:
        lrs = (
            [[0.25, 0.0, 3.0, None], [None, 3.0, None, 0.0]][k] if k < 2 else rng.permutation([0, 0.25, 1, 3]).tolist()
        )
        conforms(implementation, runs(rng, dtype, HYPER[hyper], lrs=lrs))


# -------------------------------------------------------------------------------------------------- G: the gradient

# Adadelta forgets a constant factor of all gradients, but for eps: clips show for a large eps, or near its root.
CLIP = HYPER["large_eps"] | {"lr": 0.75}
SMALL = {"lr": 1.0, "rho": 0.9, "eps": 1e-6}


def exactly(dtype, **options):
    """Return runs that meet thresholds exactly (a 3-4-5 triangle over two leaves) and have zeros in the wrong place."""
    params = {"v": np.array([3.0], dtype), "u": np.array([[-4.0]], dtype)}
    tree = lambda v, u: {"u": np.array([[u]], dtype), "v": np.array([v], dtype)}
    grads = [tree(3, -4), tree(0, 0), tree(-5, 0), tree(0, 2), tree(3.01, -4.02), tree(400, 300)]
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
    """g <- g + weight_decay * theta: through Adadelta, not past it."""
    need(implementation, dtype, "weight_decay")
    for case in exactly(dtype, weight_decay=weight_decay):
        conforms(implementation, case)
    for _ in examples:
        conforms(implementation, runs(rng, dtype, HYPER[hyper] | {"weight_decay": weight_decay}, steps=3))


ORDER = {"grad_clip_norm": 2.0, "grad_clip_value": 1.5, "weight_decay": 0.5}


@each_dtype
@pytest.mark.parametrize("off", [None, *ORDER], ids=lambda x: f"without_{x}" if x else "all")
def test_G4_order(implementation, off, dtype, rng, examples):
    """G1, G2, G3, then E1: decay is not clipped. All three, and each two of them."""
    options = {name: x for name, x in ORDER.items() if name != off}
    need(implementation, dtype, *options)
    for _ in examples:
        conforms(implementation, runs(rng, dtype, CLIP | options, shapes=ALIKE, steps=3, regions="ordinary"))
    # Two parameters for which each of the six orders gives another gradient.
    params = {"u": np.array([-2.0, 6.0], dtype)}
    conforms(implementation, Case(params, [{"u": np.array([3.0, 1.0], dtype)}] * 2, CLIP | options))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_G4_narrow(implementation, dtype, rng, examples):
    """The same in 16 bits."""
    need(implementation, dtype, *ORDER)
    for _ in examples:
        conforms(
            implementation, runs(rng, dtype, NARROW["large_eps"] | ORDER, shapes=ALIKE, steps=3, regions="near_eps")
        )


# ---------------------------------------------------------------------------------------------------------- X: range


def overflow(dtype):
    """Return the largest finite number of `dtype`."""
    return float(np.finfo(dtype).max)


@each_dtype
def test_X1_saturate(implementation, dtype):
    """A component whose square would overflow counts as the largest whose square is finite; the weight lives on."""
    need(implementation, dtype)
    huge = overflow(dtype) / 2
    params = {"w": np.array([0.5, 0.5], dtype)}
    grads = [{"w": np.array(g, dtype)} for g in ([huge, 1.0], [-huge, 1.0], [1.0, -1.0])]
    conforms(implementation, Case(params, grads, HYPER["defaults"]))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_X1_narrow(implementation, dtype):
    """The square of 300 is no float16. Where it is stored as one, the weight is frozen for ever."""
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
    """The squares are zero: eps alone stands in the roots."""
    need(implementation, dtype)
    tiny = float(np.finfo(dtype).tiny)
    grads = [{"w": np.array([tiny**0.6, -(tiny**0.7), tiny * 8], dtype)} for _ in range(3)]
    conforms(implementation, Case({"w": np.zeros(3, dtype)}, grads, HYPER["defaults"]))


@each_dtype
@pytest.mark.parametrize("size", ["huge", "tiny"])
def test_X1_norm(implementation, size, dtype):
    """The squares of the norm overflow, or vanish."""
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
    """A NaN or infinite component spoils its own weight and no other."""
    need(implementation, dtype)
    grads = [{"w": np.array(g, dtype), "b": np.array([2.0], dtype)} for g in ([1.0, -1.0], [bad, 2.0], [1.0, 3.0])]
    params = {"w": np.array([0.5, 0.5], dtype), "b": np.array([1.0], dtype)}
    run = Run(implementation, Case(params, grads, HYPER["defaults"])).finish()
    if np.isfinite(run.theta[-1]["w"][0]):
        raise Deviation(f"the gradient {bad} left no trace: the weight is {run.theta[-1]['w'][0]!r}", run.case)
    clean = Case(params, [{k: np.where(np.isfinite(x), x, 0) for k, x in g.items()} for g in grads], HYPER["defaults"])
    for tree in run.theta:
        tree["w"][0] = 0
    mine, other = run.theta[-1], Run(implementation, clean).finish().theta[-1]
    if mine["w"][1] != other["w"][1] or mine["b"] != other["b"]:
        raise Deviation(f"the gradient {bad} of one weight spoiled another: {mine}", run.case)


# --------------------------------------------------------------------------------------------------------- X3: complex


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("hyper", ["large_eps", "no_memory"])
def test_X3_complex(implementation, dtype, hyper, rng, examples):
    """The real and the imaginary part each have averages of their own, as two real parameters have."""
    need(implementation, dtype)
    for _ in examples:
        conforms(implementation, runs(rng, dtype, HYPER[hyper], steps=3))
