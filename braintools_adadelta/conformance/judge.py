"""The judge: run an implementation beside the oracle and compare every number with its derived bound."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any, NamedTuple

import numpy as np

from braintools_adadelta.conformance import Implementation
from braintools_adadelta.conformance.method import ADADELTA, Method
from braintools_adadelta.oracle import ulp
from braintools_adadelta.oracle.bounds import ANY
from braintools_adadelta.oracle.exact import CONTEXT as mp
from braintools_adadelta.oracle.exact import exact, largest_root

FIELDS = ADADELTA.fields


class Case(NamedTuple):
    """A training run: what an implementation is given."""

    params: dict[str, np.ndarray]
    grads: list[dict[str, np.ndarray]]
    options: dict[str, Any]
    lrs: list[float | None] = []  # the lr to set before each step; None: it stays as it is


class Miss(NamedTuple):
    """One number that is further from the exact answer than rounding can explain."""

    step: int
    field: str
    parameter: str
    index: tuple[int, ...]
    got: float
    exact: float
    ulps: float
    allowed: float

    def __str__(self) -> str:
        return (
            f"step {self.step}: {self.field} of {self.parameter}{list(self.index)} is {self.got!r},"
            f" exactly {self.exact!r}: {self.ulps:.3g} ulps off, rounding explains {self.allowed:.3g}"
        )


class Found(NamedTuple):
    """What was found in a run: its misses, and the worst error of each field, with what rounding explains there.

    Errors are in ulps of the number before or after the step, whichever is larger. Numbers whose ulp is about as
    small as the least normal number are left out.
    """

    misses: list[Miss]
    ulps: dict[str, float]
    allowed: dict[str, float] = {}
    case: Case | None = None


class Deviation(AssertionError):
    """In this case an implementation does not do what the clause says."""

    def __init__(self, message: str, case: Case | None = None, miss: Miss | None = None) -> None:
        super().__init__(message)
        self.case, self.miss = case, miss


def fitted(subject: Any, case: Case) -> Case:
    """Return the case as it is for an implementation that has no lr: with lr 1."""
    if "lr" not in getattr(subject, "lacks", ()):
        return case
    return case._replace(options=case.options | {"lr": 1.0}, lrs=[])


def numbers_of(tree):
    """Return all numbers of `tree` as one list, in the order of the names."""
    return [x for name in sorted(tree) for x in np.ravel(tree[name])]


def places(tree):
    """Return (name, index) for each number of ``numbers_of(tree)``."""
    return [(name, index) for name in sorted(tree) for index in np.ndindex(np.shape(tree[name]))]


def saturates_at(fmt):
    """Return the largest number that clause X1 leaves as it is. For 16 bits it is that of float32 (X2)."""
    wide = max(fmt, ulp.FORMATS["float32"], key=lambda one: one.p)
    return exact(largest_root(wide))[0]  # not as a fraction, which mpmath 1.3 does not compare with an mpf


def pairs(tree, sign=1):
    """Return `tree` as a list of real numbers. A complex one gives its real and `sign` times its imaginary part."""
    numbers = numbers_of(tree)
    return [part for x in numbers for part in ((x.real, sign * x.imag) if np.iscomplexobj(x) else (x,))]


class Run:
    """A training run of `subject`, step by step, and all that it showed.

    An unwatched run is looked at only once, at the end. After each step its arrays of gradients are overwritten.
    """

    def __init__(self, subject: Implementation, case: Case, watched: bool = True) -> None:
        self.subject: Any = subject
        self.case, self.watched = fitted(subject, case), watched
        case = self.case
        self.given: list[Any] = []  # [what, the array handed over, a copy of it]
        self.theta: list[Any] = []
        self.memory: list[Any] = []
        with self.crashes_have_a_case():
            self.handle = subject.start(self.hand("parameters", case.params), **case.options)
            self.record()
        for name, x in case.params.items():
            if not np.array_equal(x, self.theta[0][name]):
                raise Deviation(f"start() made {self.theta[0][name]!r} of the parameter {name!r}, {x!r}", case)

    @contextmanager
    def crashes_have_a_case(self) -> Iterator[None]:
        """What is raised in here says in which case, so that it can be shown and made smaller."""
        try:
            with np.errstate(all="ignore"):
                yield
        except Exception as error:
            error.case = self.case
            raise

    def hand(self, what: str, tree: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return `tree` as arrays that the implementation must not change."""
        arrays = {name: np.array(x) for name, x in tree.items()}
        self.given += [(f"{what} {name!r}", x, x.copy()) for name, x in arrays.items()]
        return arrays

    def advance(self) -> None:
        """Take the next step."""
        t = len(self.theta) - 1
        grads = self.hand(f"gradients (step {t + 1})", self.case.grads[t])
        with self.crashes_have_a_case():
            if self.case.lrs and self.case.lrs[t] is not None:
                self.handle = self.subject.set_lr(self.handle, self.case.lrs[t])
            self.handle = self.subject.step(self.handle, grads)
            if self.watched or t + 1 == len(self.case.grads):
                return self.record()
        self.theta.append(None), self.memory.append(None)
        self.check_given(t + 1)
        self.given.clear()
        for x in grads.values():
            x[...] = np.nan

    def record(self) -> None:
        """Keep the parameters, and the averages unless they are complex: frameworks have those in different forms."""
        hidden = next(iter(self.case.params.values())).dtype.kind == "c"
        self.theta.append(self.subject.params(self.handle))
        self.memory.append(None if hidden else self.subject.accumulators(self.handle))
        self.check()

    def finish(self) -> "Run":
        """Take all further steps and return the run."""
        while len(self.theta) <= len(self.case.grads):
            self.advance()
        return self

    def check_given(self, t: int) -> None:
        """Fail if the caller's arrays were changed."""
        for what, x, before in self.given:
            if x.tobytes() != before.tobytes():
                raise Deviation(f"step {t}: the caller's {what} were changed: {before!r} became {x!r}", self.case)

    def check(self) -> None:
        """Fail where no oracle is needed: the caller's arrays were changed, or names, shapes or dtypes differ."""
        t = len(self.theta) - 1
        self.check_given(t)
        for what, tree in zip(("params", *FIELDS), (self.theta[-1], *(self.memory[-1] or ())), strict=False):
            shapes = {name: np.shape(x) for name, x in tree.items()}
            wanted = {name: np.shape(x) for name, x in self.case.params.items()}
            if shapes != wanted:
                raise Deviation(f"after step {t}, {what} have the shapes {shapes}, not {wanted}", self.case)
        for name, x in self.theta[-1].items():
            was = self.theta[0][name].dtype if t else self.case.params[name].dtype
            changed = x.dtype != was and was.itemsize > 2  # 16 bits may be promoted by accident
            if changed or x.dtype == object:
                when = f"after step {t}" if t else "after start()"
                raise Deviation(f"{when}, the parameter {name!r} is {x.dtype} and was {was}", self.case)


# Three views of the numbers that are shown. One of them must explain all numbers of a whole run.
STORED = "stored"  # each step starts from exactly the numbers that are shown
CARRIED = "carried"  # it starts from numbers that are not shown, or are rounded when shown: errors add up
LAGGED = "lagged"  # the same, and E[Delta2] receives Delta_t at the beginning of step t + 1
VIEWS = (STORED, CARRIED, LAGGED)


def examine(run: Run, fields: Sequence[str] = FIELDS, form: str = ANY, sign: int = 1) -> Found:
    """Return what was :class:`Found` in a finished run, in the first view without a miss, or else in the first view."""
    views = VIEWS if run.memory[-1] is not None else (CARRIED,)
    views = views if run.watched else [view for view in views if view != STORED]
    best = None
    for view in views:
        found = explain(run, view, fields, form, sign)
        best = best or found
        if not found.misses:
            return found
    return best


def exact_step(case, t, theta, state, carried, fmt, form, sign=1, method=ADADELTA):
    """Return step `t` of the case, from `theta` and `state`, in exact numbers, and the bounds around it."""
    options = {"lr": 1.0} | {k: v for k, v in case.options.items() if v is not None} | {"largest": saturates_at(fmt)}
    options["lr"] = [options["lr"], *(lr for lr in case.lrs[: t + 1] if lr is not None)][-1]  # the last that was set
    truth = method.step(theta, exact(pairs(case.grads[t], sign)), *state.values(), **options)
    return truth, method.bounds(truth, theta, *state.values(), fmt=fmt, form=form, carried=carried, **options)


def explain(run: Run, view: str, fields: Sequence[str], form: str, sign: int, method: Method = ADADELTA) -> Found:
    """Compare a finished run with the exact one in one of the `VIEWS`."""
    case = run.case
    dtype = next(iter(case.params.values())).dtype
    wide = dtype.kind == "c"
    fmt = ulp.FORMATS["float32" if dtype == "complex64" else "float64" if dtype == "complex128" else dtype.name]
    where = [(name, (*index, *part)) for name, index in places(case.params) for part in ([[0], [1]] if wide else [()])]
    theta = exact(pairs(run.theta[0]))
    state = {name: exact([0.0] * len(theta)) for name in method.state}
    carried, misses, worst, explained = None, [], {}, {}
    for t in range(len(case.grads)):
        truth, allowed = exact_step(case, t, theta, state, carried, fmt, form, sign, method)
        seen = {} if run.theta[t + 1] is None else {"theta": pairs(run.theta[t + 1])}
        if run.memory[t + 1] is not None:
            seen |= dict(zip(method.state, map(pairs, run.memory[t + 1]), strict=True))
        for field in (f for f in fields if f in seen and len(seen[f]) == len(theta)):
            if view == LAGGED and field == method.lagged:
                wanted, within = state[field], [mp.zero] * len(theta) if carried is None else getattr(carried, field)
            else:
                wanted, within = getattr(truth, field), getattr(allowed, field)
            before = theta if field == "theta" else state[field]
            for place, start, got, want, bound in zip(where, before, seen[field], wanted, within, strict=True):
                error = distance(got, want)
                unit = mp.ldexp(1, max(mag(want) if mp.isfinite(want) else 0, fmt.emin) - fmt.p + 1)
                # After cancellation a sum is only as exact as its terms. Where terms are flushed, ulps mean nothing.
                size = max(mag(start), mag(want)) if mp.isfinite(error) else fmt.emin
                if size >= fmt.emin + fmt.p:
                    ulps, room = (float(x * mp.ldexp(1, fmt.p - 1 - size)) for x in (error, bound))
                    if ulps >= worst.get(field, 0.0):
                        worst[field], explained[field] = ulps, room
                if not error <= bound:
                    place = t + 1, field, *place
                    misses.append(Miss(*place, float(got), float(want), float(error / unit), float(bound / unit)))
        if view == STORED:
            theta, state = exact(seen["theta"]), {name: exact(seen[name]) for name in method.state}
            if any(len(x) != len(theta) for x in state.values()) or not all(
                map(mp.isfinite, sum(state.values(), theta))
            ):
                break
            # Only flushing to zero makes an average negative.
            state = {name: [max(x, mp.zero) for x in xs] for name, xs in state.items()}
        else:
            theta, carried = truth.theta, allowed
            state = {name: getattr(truth, name) for name in method.state}
            if misses:
                break  # later steps would only repeat the miss
    return Found(misses, worst, explained, case)


def mag(x):
    """Return e with 2**e <= abs(x) < 2**(e + 1). For 0 it is a very small number."""
    return int(mp.mag(x)) - 1 if x else -(2**20)


def distance(got, want):
    """Return the absolute error of `got`. If one of them is infinite or NaN, it is 0 if they are the same, else inf."""
    got = exact(got)[0]
    if mp.isfinite(got) and mp.isfinite(want):
        return abs(got - want)
    return mp.zero if got == want or (mp.isnan(got) and mp.isnan(want)) else mp.inf


def run_and_examine(subject: Implementation, case: Case, fields: Sequence[str] = FIELDS, form: str = ANY) -> Found:
    """Run `subject` on `case` and return what was :class:`Found`.

    Complex parameters are pairs of real ones. The gradient may point uphill, or be the conjugate of that, as in JAX.
    """
    run = Run(subject, case).finish()
    found = examine(run, fields, form)
    if found.misses and next(iter(case.params.values())).dtype.kind == "c":
        conjugate = examine(run, fields, form, sign=-1)
        found = found if conjugate.misses else conjugate
    return found


def misses(subject: Implementation, case: Case, fields: Sequence[str] = FIELDS, form: str = ANY) -> list[Miss]:
    """Return every :class:`Miss` of a run, in the order of the data flow."""
    return run_and_examine(subject, case, fields, form).misses


# ------------------------------------------------------------------------------------------------- smallest examples


def smallest(subject, case, miss, kind=Exception, seconds=0.7):
    """Return the simplest case with a miss that can be found in `seconds`, starting from `case`, and its first miss.

    Without a `miss`, the simplest case that ends in an exception of this `kind`, and None.
    """

    fields = FIELDS if miss is None else (miss.field,)

    def fails(case, views=1):
        """Return (case, miss) if the case fails as the first one did."""
        try:
            if views == 1:
                run = Run(subject, case).finish()
                found = explain(run, VIEWS[run.memory[-1] is None], fields, ANY, 1)
            else:
                found = run_and_examine(subject, case, fields)
        except Exception as error:
            return (case, None) if miss is None and isinstance(error, kind) else None
        return (case, found.misses[0]) if found.misses and miss is not None else None

    end, best, again = monotonic() + seconds, (case, miss), True
    while again:
        again = False
        for smaller in simpler(*best):
            if monotonic() > end:
                break
            if found := fails(smaller):
                best, again = found, True
                break
    # To be quick, most cases were tried in one view only.
    return best if best[0] is case or fails(best[0], len(VIEWS)) else (case, miss)


def simpler(case, miss):
    """Yield cases that are simpler than `case`, the simplest first."""
    n = len(case.grads)

    def cut(f, grads=case.grads, lrs=case.lrs):
        return case._replace(params=f(case.params), grads=[f(g) for g in grads], lrs=lrs)

    if miss and n > miss.step:
        yield case._replace(grads=case.grads[: miss.step], lrs=case.lrs[: miss.step])
    if miss and len(places(case.params)) > 1:
        yield cut(lambda tree: {miss.parameter: np.ravel(tree[miss.parameter])[one(case, miss)]})
    for name in case.params:
        if len(case.params) > 1 and not (miss and name == miss.parameter):
            yield cut(lambda tree, name=name: {k: x for k, x in tree.items() if k != name})
    for name, x in case.params.items():
        if x.size > 1:
            yield cut(lambda tree, name=name: tree | {name: np.ravel(tree[name])[:1]})
            yield cut(lambda tree, name=name: tree | {name: np.ravel(tree[name])[-1:]})
    for t in range(n - 1):
        yield case._replace(grads=case.grads[:t] + case.grads[t + 1 :], lrs=case.lrs[:t] + case.lrs[t + 1 :])
    for key, plain in (("weight_decay", 0.0), ("grad_clip_norm", None), ("grad_clip_value", None), ("lr", 1.0)):
        if case.options.get(key, plain) != plain:
            yield case._replace(options=case.options | {key: plain})
    if len(places(case.params)) <= 4 and n <= 6:
        yield from rounder(case)


def rounder(case):
    """Yield cases with simpler numbers."""
    n = len(case.grads)
    for name in case.params:
        for plain in (0.0, 1.0):
            if np.any(case.params[name] != plain) and np.any(case.params[name] != 0):
                yield case._replace(params=case.params | {name: np.full_like(case.params[name], plain)})
    for t, name in ((t, name) for t in range(n) for name in case.params):
        g = case.grads[t][name]
        with np.errstate(all="ignore"):
            power = np.where(g == 0, g, np.copysign(2.0 ** np.round(np.log2(np.abs(g).astype(float))), g.real))
        for plain in (np.zeros_like(g), np.ones_like(g), power.astype(g.dtype)):
            if np.any(g != plain) and not (np.all(g == 1) or np.all(g == 0)):
                grads = [case.grads[t] | {name: plain} if s == t else other for s, other in enumerate(case.grads)]
                yield case._replace(grads=grads)


def one(case, miss):
    """Return the slice of the ravelled parameter that holds only the number of `miss`."""
    shape = np.shape(case.params[miss.parameter])
    k = int(np.ravel_multi_index(miss.index[: len(shape)], shape)) if shape else 0
    return slice(k, k + 1)


def literal(x):
    """Return Python code that makes the array `x`."""
    x = np.asarray(x)
    return f"np.array({x.tolist()!r}, {x.dtype.name!r})"


def literals(tree):
    return "{" + ", ".join(f"{name!r}: {literal(x)}" for name, x in tree.items()) + "}"


def snippet(target, case, miss=None):
    """Return Python code that reproduces a case."""
    options = "".join(f", {k}={v!r}" for k, v in told(case))
    lines = ["import numpy as np", "from braintools_adadelta.conformance import adapters"]
    if any(x.dtype.name == "bfloat16" for x in case.params.values()):
        lines[1:1] = ["import ml_dtypes"]
    lines += [f"it = adapters.load({target!r})", f"h = it.start({literals(case.params)}{options})"]
    for t, grads in enumerate(case.grads):
        if case.lrs and case.lrs[t] is not None:
            lines.append(f"h = it.set_lr(h, {case.lrs[t]!r})")
        lines.append(f"h = it.step(h, {literals(grads)})")
    show = "it.params(h)"
    if miss is not None:
        show = {"theta": "it.params(h)", "e_g2": "it.accumulators(h)[0]", "e_delta2": "it.accumulators(h)[1]"}[
            miss.field
        ]
        show += f"[{miss.parameter!r}]"
        lines.append(f"print({show})  # got {miss.got!r}, exactly {miss.exact!r}")
    else:
        lines.append(f"print({show})")
    return "\n".join(lines)


def told(case):
    """Return the options of a case that are on, as pairs."""
    return [(k, v) for k, v in case.options.items() if v is not None and (k, v) != ("weight_decay", 0)]


def summary(case, miss=None):
    """Return what a case is, and what came out, in three lines: dtype and options, inputs, result."""
    numbers = lambda tree: ", ".join(f"{name} = {np.asarray(x).tolist()}" for name, x in tree.items())
    steps = "; ".join(
        ("" if not case.lrs or case.lrs[t] is None else f"lr={case.lrs[t]:g}, ") + numbers(g)
        for t, g in enumerate(case.grads)
    )
    dtype = next(iter(case.params.values())).dtype.name
    lines = [f"{dtype}, " + ", ".join(f"{k}={v:g}" for k, v in told(case))]
    lines.append(f"start {numbers(case.params)}; gradients {steps}")
    if miss is not None:
        off = f"{miss.ulps:.3g} ulps off; rounding explains {miss.allowed:.3g}"
        lines.append(f" => {miss.field} {miss.got!r}, exactly {miss.exact:.9g} ({off})")
    return "\n".join(lines)
