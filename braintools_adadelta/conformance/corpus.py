"""Adadelta in plain numpy. `RIGHT` lists correct programs. `WRONG` lists programs with bugs that frameworks shipped.

The ``clause`` of a wrong class is the clause that must reject it. Its docstring says where the bug was shipped.
"""

import numpy as np


class Numpy:
    """The spec, line by line, in the precision of the parameters. Every method is a place where one can go wrong."""

    supports = {"weight_decay", "grad_clip_norm", "grad_clip_value", "float64"}

    @property
    def name(self):
        return type(self).__name__

    def start(self, params, *, lr, rho, eps, weight_decay=0.0, grad_clip_norm=None, grad_clip_value=None):
        handle = {k: v for k, v in locals().items() if k != "self"}
        return handle | {"t": 0, "e_g2": self.zeros(params, eps), "e_delta2": self.zeros(params, eps)}

    def zeros(self, params, eps):
        return {k: np.zeros_like(x) for k, x in params.items()}

    def step(self, h, grads):
        h["t"] += 1
        with np.errstate(all="ignore"):
            for k, g in self.prepared(h, grads).items():
                e_g2 = h["e_g2"][k] = np.asarray(self.average_g(h["e_g2"][k], g, h))
                delta = self.delta(g, e_g2, h["e_delta2"][k], h)
                h["e_delta2"][k] = np.asarray(self.average_delta(h["e_delta2"][k], delta, g, h))
                h["params"][k] = np.asarray(self.apply(h["params"][k], delta, h))
        return h

    def prepared(self, h, grads):
        grads = self.clip_norm(grads, h["grad_clip_norm"])
        if h["grad_clip_value"] is not None:
            grads = {k: self.clip_value(g, h["grad_clip_value"]) for k, g in grads.items()}
        return {k: self.decay(g, h["params"][k], h) for k, g in grads.items()}

    def norm(self, grads):
        return np.sqrt(sum(np.sum(g * g) for g in grads.values()))

    def clip_norm(self, grads, c):
        if c is None or (n := self.norm(grads)) < c:
            return grads
        return {k: g * c / n for k, g in grads.items()}

    def clip_value(self, g, v):
        return np.clip(g, -v, v)

    def decay(self, g, theta, h):
        return g + h["weight_decay"] * theta if h["weight_decay"] else g

    def average_g(self, e, g, h):
        return self.average(e, g, h["rho"])

    def average_delta(self, e, delta, g, h):
        return self.average(e, delta, h["rho"])

    def average(self, e, x, rho):
        return rho * e + (1 - rho) * (x * x)

    def delta(self, g, e_g2, e_delta2, h):
        return -np.sqrt(e_delta2 + h["eps"]) / np.sqrt(e_g2 + h["eps"]) * g

    def apply(self, theta, delta, h):
        return theta + h["lr"] * delta

    def params(self, h):
        return h["params"]

    def accumulators(self, h):
        return h["e_g2"], h["e_delta2"]

    def set_lr(self, h, lr):
        return h | {"lr": lr}


# ------------------------------------------------------------------------------------------- right, in other words


class Right(Numpy):
    supports = Numpy.supports - {"float64"}  # nothing here depends on the precision


class Lerp(Right):
    def average(self, e, x, rho):
        return e + (1 - rho) * (x * x - e)  # Chainer


class RootOfRatio(Right):
    def delta(self, g, e_g2, e_delta2, h):
        return -np.sqrt((e_delta2 + h["eps"]) / (e_g2 + h["eps"])) * g  # Paddle, ensmallen


class ReciprocalRoot(Right):
    def delta(self, g, e_g2, e_delta2, h):
        return -(1 / np.sqrt(e_g2 + h["eps"])) * (g * np.sqrt(e_delta2 + h["eps"]))


class WeightsInWorkingPrecision(Right):
    def average(self, e, x, rho):
        rho = np.asarray(rho, e.dtype)
        return rho * e + (1 - rho) * (x * x)


class FactorFirst(Right):
    def clip_norm(self, grads, c):
        return grads if c is None else {k: g * min(1, c / self.norm(grads)) for k, g in grads.items()}


class Minus(Right):
    def apply(self, theta, delta, h):
        return theta - h["lr"] * -delta


class Hidden(Right):
    accumulators = None  # judged through theta alone


class Native(Right):
    """Every constant and every operation in the precision of the parameters, 16 bits among them."""

    supports = Right.supports | {"float16", "bfloat16"}

    def average(self, e, x, rho):
        one, rho = np.ones((), e.dtype), np.asarray(rho, e.dtype)
        return rho * e + (one - rho) * (x * x)

    def delta(self, g, e_g2, e_delta2, h):
        eps = np.asarray(h["eps"], g.dtype)
        return -np.sqrt(e_delta2 + eps) / np.sqrt(e_g2 + eps) * g

    def apply(self, theta, delta, h):
        return theta + np.asarray(h["lr"], theta.dtype) * delta


class LerpToSquare(Native):
    def average(self, e, x, rho):
        return np.asarray(rho, e.dtype) * (e - x * x) + x * x


class NativeLerp(Native):
    def average(self, e, x, rho):
        return e + np.asarray(1 - rho, e.dtype) * (x * x - e)


class WeightFirst(Native):
    def average(self, e, x, rho):
        return np.asarray(rho, e.dtype) * e + np.asarray(1 - rho, e.dtype) * x * x


class RootOfWeight(Native):
    def average(self, e, x, rho):
        return np.asarray(rho, e.dtype) * e + np.square(np.asarray(np.sqrt(1 - rho), e.dtype) * x)


class FusedMultiplyAdd(Native):
    """rho * e + (one rounding of the rest), as if fused."""

    def average(self, e, x, rho):
        wide = np.float64(np.asarray(rho, e.dtype)) * e.astype(np.float64) + np.float64(
            (1 - rho) * (x * x).astype(np.float64)
        )
        return wide.astype(e.dtype)

    def apply(self, theta, delta, h):
        return (theta.astype(np.float64) + h["lr"] * delta.astype(np.float64)).astype(theta.dtype)


class ReciprocalRootRough(Native):
    """A reciprocal square root that is up to two ulps off."""

    def delta(self, g, e_g2, e_delta2, h):
        eps = np.asarray(h["eps"], g.dtype)
        r = (1 / np.sqrt((e_g2 + eps).astype(np.float64))).astype(g.dtype)
        step = np.finfo(np.float32).eps if g.dtype == np.float32 else 0
        return -(np.sqrt(e_delta2 + eps) * (r * np.asarray(1 + step, g.dtype))) * g


class HalfPowers(Native):
    def delta(self, g, e_g2, e_delta2, h):
        eps = np.asarray(h["eps"], g.dtype)
        return -np.power(e_delta2 + eps, np.asarray(0.5, g.dtype)) * np.power(e_g2 + eps, np.asarray(-0.5, g.dtype)) * g


class GradientFirst(Native):
    def delta(self, g, e_g2, e_delta2, h):
        eps = np.asarray(h["eps"], g.dtype)
        return -g / np.sqrt(e_g2 + eps) * np.sqrt(e_delta2 + eps)


class NativeRootOfRatio(Native):
    def delta(self, g, e_g2, e_delta2, h):
        eps = np.asarray(h["eps"], g.dtype)
        return -np.sqrt((e_delta2 + eps) / (e_g2 + eps)) * g


class SquareOfRatio(Native):
    """E[Delta2] from g^2 times the ratio, without Delta."""

    def average_delta(self, e, delta, g, h):
        eps = np.asarray(h["eps"], g.dtype)
        rho = np.asarray(h["rho"], e.dtype)
        return rho * e + (1 - rho) * ((e + eps) / (h["e_g2"][h["name"]] + eps) * (g * g))

    def prepared(self, h, grads):
        out = super().prepared(h, grads)

        class Named(dict):
            def items(self):
                for k in self:
                    h["name"] = k
                    yield k, self[k]

        return Named(out)


class LrFirst(Native):
    """lr is multiplied with one root before the rest."""

    def apply(self, theta, delta, h):
        return theta + delta

    def step(self, h, grads):
        h["t"] += 1
        with np.errstate(all="ignore"):
            for k, g in self.prepared(h, grads).items():
                eps, lr = np.asarray(h["eps"], g.dtype), np.asarray(h["lr"], g.dtype)
                h["e_g2"][k] = np.asarray(self.average_g(h["e_g2"][k], g, h))
                above, below = np.sqrt(h["e_delta2"][k] + eps), np.sqrt(h["e_g2"][k] + eps)
                h["params"][k] = np.asarray(h["params"][k] - (lr * above) * g / below)
                h["e_delta2"][k] = np.asarray(self.average(h["e_delta2"][k], above * g / below, h["rho"]))
        return h


class Lagged(Native):
    """E[Delta2] takes in the last Delta at the start of the next step; it is shown as it is stored."""

    def average_delta(self, e, delta, g, h):
        h.setdefault("last", {})[h["name"]] = delta
        return e

    def delta(self, g, e_g2, e_delta2, h):
        return super().delta(g, e_g2, self.catch_up(h), h)

    def catch_up(self, h):
        name = h["name"]
        last = h.get("last", {}).get(name)
        if last is not None:
            h["e_delta2"][name] = np.asarray(self.average(h["e_delta2"][name], last, h["rho"]))
        return h["e_delta2"][name]

    def step(self, h, grads):
        h["t"] += 1
        with np.errstate(all="ignore"):
            for k, g in self.prepared(h, grads).items():
                h["name"] = k
                h["e_g2"][k] = np.asarray(self.average_g(h["e_g2"][k], g, h))
                delta = self.delta(g, h["e_g2"][k], None, h)
                self.average_delta(h["e_delta2"][k], delta, g, h)
                h["params"][k] = np.asarray(self.apply(h["params"][k], delta, h))
        return h


class Float16State(Native):
    """float16-state, optax 0.2.8: accumulators in the parameter's 16 bits, so that the square of 300 overflows.

    That is extreme input, which decides for ours alone: elsewhere it is reported.
    """


class WideInside(Right):
    """Everything is kept in double precision and shown rounded."""

    supports = Native.supports

    def start(self, params, **options):
        self_dtypes = {k: x.dtype for k, x in params.items()}
        return super().start({k: x.astype(np.float64) for k, x in params.items()}, **options) | {"dtypes": self_dtypes}

    def step(self, h, grads):
        return super().step(h, {k: g.astype(np.float64) for k, g in grads.items()})

    def rounded(self, h, tree):
        return {k: x.astype(h["dtypes"][k]) for k, x in tree.items()}

    def params(self, h):
        return self.rounded(h, h["params"])

    def accumulators(self, h):
        return self.rounded(h, h["e_g2"]), self.rounded(h, h["e_delta2"])


class WideAccumulators(Right):
    """16-bit parameters, averages in float32, one rounding at the end."""

    supports = Native.supports

    def zeros(self, params, eps):
        return {k: np.zeros(x.shape, np.float32) for k, x in params.items()}

    def prepared(self, h, grads):
        wide = h | {"params": {k: x.astype(np.float32) for k, x in h["params"].items()}}
        return super().prepared(wide, {k: g.astype(np.float32) for k, g in grads.items()})

    def apply(self, theta, delta, h):
        return (theta.astype(np.float32) + h["lr"] * delta).astype(theta.dtype)


class PairwiseNorm(Native):
    def norm(self, grads):
        return np.sqrt(np.sum(np.square(np.concatenate([np.ravel(g) for g in grads.values()]))))


class NormOfLeafNorms(Native):
    def norm(self, grads):
        norms = [np.sqrt(np.sum(g * g)) for g in grads.values()]
        return np.sqrt(sum(n * n for n in norms))


class NormInUnits(Native):
    def norm(self, grads):
        unit = max(np.max(np.abs(g), initial=0) for g in grads.values())
        return unit * np.sqrt(sum(np.sum(np.square(g / unit)) for g in grads.values())) if unit else unit


class NormWide(Native):
    def norm(self, grads):
        return np.sqrt(sum(np.sum(np.square(g.astype(np.float64))) for g in grads.values()))

    def clip_norm(self, grads, c):
        return (
            grads
            if c is None
            else {k: (g * min(1.0, c / max(self.norm(grads), 1e-300))).astype(g.dtype) for k, g in grads.items()}
        )


class NormByLoop(Native):
    def norm(self, grads):
        total = 0
        for g in reversed(list(grads.values())):
            for x in np.ravel(g):
                total = total + x * x
        return np.sqrt(total)


class DivideByMax(Native):
    def clip_norm(self, grads, c):
        return grads if c is None else {k: g / max(1, self.norm(grads) / c) for k, g in grads.items()}


class InPlace(Native):
    """Buffers of its own, written to in place, and shown as they are."""

    def start(self, params, **options):
        return super().start({k: x.copy() for k, x in params.items()}, **options)

    def apply(self, theta, delta, h):
        theta += np.asarray(h["lr"], theta.dtype) * delta
        return theta

    def average_g(self, e, g, h):
        rho = np.asarray(h["rho"], e.dtype)
        e *= rho
        e += (1 - rho) * (g * g)
        return e


class InSortedOrder(Native):
    def step(self, h, grads):
        return super().step(h, {k: grads[k] for k in sorted(grads)})


class Functional(Native):
    """A handle is never changed."""

    def step(self, h, grads):
        return super().step({k: dict(v) if isinstance(v, dict) else v for k, v in h.items()}, grads)


class HiddenNative(Native):
    accumulators = None


class FlushesToZero(Native):
    def average(self, e, x, rho):
        out = super().average(e, x, rho)
        return np.where(abs(out) < np.finfo(np.float32).tiny, 0, out).astype(out.dtype)


class ComplexParts(Right):
    """A complex parameter is two real ones."""

    supports = Right.supports | {"complex64"}
    accumulators = None

    def average(self, e, x, rho):
        if not np.iscomplexobj(x):
            return super().average(e, x, rho)
        return rho * e + (1 - rho) * (x.real**2 + 1j * x.imag**2)

    def delta(self, g, e_g2, e_delta2, h):
        if not np.iscomplexobj(g):
            return super().delta(g, e_g2, e_delta2, h)
        f = super().delta
        return f(g.real, e_g2.real, e_delta2.real, h) + 1j * f(g.imag, e_g2.imag, e_delta2.imag, h)

    def norm(self, grads):
        return np.sqrt(sum(np.sum(g.real**2 + g.imag**2) for g in grads.values()))

    def clip_value(self, g, v):
        return np.clip(g.real, -v, v) + 1j * np.clip(g.imag, -v, v) if np.iscomplexobj(g) else np.clip(g, -v, v)


class ComplexConjugate(ComplexParts):
    """JAX's gradient, of which the conjugate points uphill."""

    def step(self, h, grads):
        return super().step(h, {k: np.conj(g) for k, g in grads.items()})


RIGHT = [cls for cls in globals().values() if isinstance(cls, type) and cls not in (Right,)]

# ----------------------------------------------------------------------------------------------------------- wrong


class Nd4jPrecedence(Numpy):
    """deeplearning4j/nd4j#1239."""

    clause = "E1"

    def average_g(self, e, g, h):
        return (h["rho"] * e + (1 - h["rho"])) * g * g if h["t"] > 1 else super().average_g(e, g, h)


class Nd4jFirstFix(Numpy):
    """nd4j c97f624cf."""

    clause = "E3"

    def average_delta(self, e, delta, g, h):
        return h["rho"] * e + delta * delta


class Nd4jLeak(Numpy):
    """nd4j 4243d32c8: eps is added in place."""

    clause = "E1"

    def average_g(self, e, g, h):
        return super().average_g(e, g, h) + h["eps"]


class TensorflowLazy(Numpy):
    """tensorflow/tensorflow#9058: the step reads E[Delta2]_t."""

    clause = "E2"

    def delta(self, g, e_g2, e_delta2, h):
        right = super().delta(g, e_g2, e_delta2, h)
        return super().delta(g, e_g2, self.average(e_delta2, right, h["rho"]), h)


class FluxEps(Numpy):
    """FluxML/Flux.jl#1158."""

    clause = "E2"

    def delta(self, g, e_g2, e_delta2, h):
        return -np.sqrt(e_delta2) / (np.sqrt(e_g2) + h["eps"]) * g


class FluxStart(Numpy):
    """Flux 387686eb4: accumulators start at eps."""

    clause = "S2"

    def zeros(self, params, eps):
        return {k: np.full_like(x, eps) for k, x in params.items()}


class OptimisersRaw(Numpy):
    """Optimisers.jl 4160122."""

    clause = "E3"

    def average_delta(self, e, delta, g, h):
        return self.average(e, g, h["rho"])


class GradDescentReset(Numpy):
    """GradDescent.jl: accumulators are zeroed at every call."""

    clause = "E1"

    def step(self, h, grads):
        return super().step(h | {k: self.zeros(h["params"], 0) for k in ("e_g2", "e_delta2")}, grads)


class LrInAccumulator(Numpy):
    """shogun, climin: lr is in Delta before E3 squares it."""

    clause = "E3"

    def average_delta(self, e, delta, g, h):
        return self.average(e, h["lr"] * delta, h["rho"])


class LrIgnored(Numpy):
    """brainpy before 7f2e3afe, old Paddle, MXNet 1, ConvNetJS 0.3.0: lr is ignored."""

    clause = "E4"

    def apply(self, theta, delta, h):
        return theta + delta


class DecoupledScaled(Numpy):
    """braintools before 0.2.0, Keras 3."""

    clause = "G3"

    def decay(self, g, theta, h):
        return g

    def apply(self, theta, delta, h):
        return theta + h["lr"] * (delta - h["weight_decay"] * theta)


class DecoupledUnscaled(DecoupledScaled):
    """apache/mxnet#9363."""

    def apply(self, theta, delta, h):
        return theta + h["lr"] * delta - h["weight_decay"] * theta


class NormPerTensor(Numpy):
    """tensorflow#29108, Keras clipnorm, Knet."""

    clause = "G1"

    def clip_norm(self, grads, c):
        return {k: super(NormPerTensor, self).clip_norm({k: g}, c)[k] for k, g in grads.items()}


class TorchClip(Numpy):
    """torch clip_grad_norm_."""

    clause = "G1"

    def norm(self, grads):
        return super().norm(grads) + 1e-6


class MxnetRaw(Numpy):
    """MXNet Scala 0d6d15413f: the clipped gradient is not used."""

    clause = "G2"

    def clip_value(self, g, v):
        return g


class OneSided(Numpy):
    clause = "G2"

    def clip_value(self, g, v):
        return np.minimum(g, v)


class DecayFirst(Numpy):
    clause = "G4"

    def prepared(self, h, grads):
        decayed = {k: super(DecayFirst, self).decay(g, h["params"][k], h) for k, g in grads.items()}
        return super().prepared(h | {"weight_decay": 0}, decayed)


class ValueBeforeNorm(Numpy):
    clause = "G4"

    def prepared(self, h, grads):
        if h["grad_clip_value"] is not None:
            grads = {k: self.clip_value(g, h["grad_clip_value"]) for k, g in grads.items()}
        return super().prepared(h | {"grad_clip_value": None}, grads)


class DynetTimes(Numpy):
    """DyNet 1f9721e9: multiplies by RMS[g]."""

    clause = "E2"

    def delta(self, g, e_g2, e_delta2, h):
        return -np.sqrt(e_delta2 + h["eps"]) * np.sqrt(e_g2 + h["eps"]) * g


class TfjsStale(Numpy):
    """TF.js since 2017: the denominator reads E[g2]_{t-1}."""

    clause = "E2"

    def average_g(self, e, g, h):
        self.stale = e
        return super().average_g(e, g, h)

    def delta(self, g, e_g2, e_delta2, h):
        return super().delta(g, self.stale, e_delta2, h)


class BreezeTwice(Numpy):
    """Breeze: g_t enters E[g2] twice."""

    clause = "E1"

    def average_g(self, e, g, h):
        return super().average_g(super().average_g(e, g, h), g, h)


class MlxKey(Numpy):
    """ml-explore/mlx#603: E[Delta2] is written under another name than it is read."""

    clause = "E3"

    def average_delta(self, e, delta, g, h):
        return np.zeros_like(e)


class LightfmShared(Numpy):
    """lightfm#32: another parameter's E[Delta2]."""

    clause = "E2"

    def step(self, h, grads):
        self.read = h["e_delta2"]
        return super().step(h, grads)

    def delta(self, g, e_g2, e_delta2, h):
        other = next(x for x in self.read.values() if x.shape == g.shape)
        return super().delta(g, e_g2, other, h)


class SparseRows(Numpy):
    """TensorFlow SparseApplyAdadelta: accumulators of zero gradients do not decay."""

    clause = "E1"

    def average_g(self, e, g, h):
        return np.where(g == 0, e, super().average_g(e, g, h))


class MaxNorm(Numpy):
    """CNN_sentence: matrices shrink at every step."""

    clause = "E4"

    def apply(self, theta, delta, h):
        n = np.linalg.norm(theta)
        return super().apply(theta, delta, h) * (n / (1e-7 + n) if theta.ndim == 2 else 1)


class RhoFloat32(Numpy):
    """H2O: rho is rounded to float32 in a float64 update."""

    clause = "E1"

    def average(self, e, x, rho):
        return super().average(e, x, float(np.float32(rho)))


class ConstantsFloat32(RhoFloat32):
    """Paddle: rho and eps are rounded to float32 in a float64 update."""

    def delta(self, g, e_g2, e_delta2, h):
        return super().delta(g, e_g2, e_delta2, h | {"eps": float(np.float32(h["eps"]))})


class LrFloat32(Numpy):
    """mlx: lr is rounded to float32 in a float64 update."""

    clause = "E4"
    needs = {"float64"}

    def apply(self, theta, delta, h):
        return super().apply(theta, delta, h | {"lr": float(np.float32(h["lr"]))})


class EpsHardCoded(Numpy):
    """Breeze."""

    clause = "E2"

    def delta(self, g, e_g2, e_delta2, h):
        return super().delta(g, e_g2, e_delta2, h | {"eps": 1e-6})


class LrSetter(Numpy):
    """braintools before 0.2.0: setting the lr changes only what is reported."""

    clause = "L1"

    def set_lr(self, h, lr):
        return h


class AdagradSum(Numpy):
    clause = "E1"

    def average_g(self, e, g, h):
        return e + g * g


class EpsInDenominatorOnly(Numpy):
    clause = "E2"

    def delta(self, g, e_g2, e_delta2, h):
        return -np.sqrt(e_delta2) / np.sqrt(e_g2 + h["eps"]) * g


class WrongSign(Numpy):
    clause = "E2"

    def delta(self, g, e_g2, e_delta2, h):
        return -super().delta(g, e_g2, e_delta2, h)


# ------------------------------------------------------------------------------- wrong, in ways that may yet be shipped


def rewrite(name, clause, doc, base=Numpy, needs=(), **methods):
    """Make a wrong class from the methods that differ."""
    cls = type(name, (base,), {"__doc__": doc, "clause": clause, "needs": set(needs), **methods})
    globals()[name] = cls


def average(name, clause, doc, f):
    """A wrong version of both averages: f(e, x, rho)."""
    rewrite(name, clause, doc, average=lambda self, e, x, rho: f(e, x, rho))


def average_g(name, clause, doc, f, **more):
    """A wrong version of E1: f(self, e, g, h)."""
    rewrite(name, clause, doc, average_g=f, **more)


def average_delta(name, clause, doc, f, **more):
    """A wrong version of E3: f(self, e, delta, g, h)."""
    rewrite(name, clause, doc, average_delta=f, **more)


def delta(name, clause, doc, f, **more):
    """A wrong version of E2: f(g, e_g2, e_delta2, eps)."""
    rewrite(name, clause, doc, delta=lambda self, g, e, d, h: f(g, e, d, h["eps"]), **more)


def theta(name, clause, doc, f, **more):
    """A wrong version of E4: f(theta, delta, h)."""
    rewrite(name, clause, doc, apply=lambda self, theta, delta, h: f(theta, delta, h), **more)


sq = np.sqrt
plain = Numpy()

average("RhoSwapped", "E1", "rho weighs what is new", lambda e, x, rho: (1 - rho) * e + rho * (x * x))
average("NoSquare", "E1", "the size instead of the square", lambda e, x, rho: rho * e + (1 - rho) * abs(x))
average("NoWeight", "E1", "(1 - rho) forgotten", lambda e, x, rho: rho * e + x * x)
average("WeightSquared", "E1", "(1 - rho) inside the square", lambda e, x, rho: rho * e + ((1 - rho) * x) ** 2)
average("WeightTenth", "E1", "1 - rho written as a number", lambda e, x, rho: rho * e + 0.1 * (x * x))
average("NeverForgets", "E1", "rho forgotten", lambda e, x, rho: e + (1 - rho) * (x * x))
average("Greatest", "E1", "as AMSGrad does", lambda e, x, rho: np.maximum(e, rho * e + (1 - rho) * (x * x)))
average(
    "OfTheLeaf",
    "E1",
    "one average for a whole leaf",
    lambda e, x, rho: rho * e + (1 - rho) * np.mean(x * x) * np.ones_like(x) if x.size else e,
)
average(
    "RhoRounded",
    "E1",
    "rho kept with three digits",
    lambda e, x, rho: round(rho, 3) * e + (1 - round(rho, 3)) * (x * x),
)
average(
    "HalfPrecision",
    "E1",
    "averages kept in 16 bits",
    lambda e, x, rho: (rho * e + (1 - rho) * (x * x)).astype(np.float16).astype(e.dtype),
)
average(
    "SinglePrecision",
    "E1",
    "averages kept in 32 bits",
    lambda e, x, rho: np.float32(rho * e + (1 - rho) * (x * x)).astype(e.dtype),
)
SinglePrecision.needs = {"float64"}  # noqa: F821
average(
    "Transposed",
    "E1",
    "the average of a square matrix is transposed",
    lambda e, x, rho: rho * (e.T if x.shape == x.T.shape else e) + (1 - rho) * (x * x),
)

average_g("RhoSwappedG", "E1", "rho swapped in one average", lambda s, e, g, h: s.average(e, g, 1 - h["rho"]))
average_g("FixedRho", "E1", "rho is 0.9 whatever is asked for", lambda s, e, g, h: s.average(e, g, 0.9))
average_g(
    "FirstWhole",
    "E1",
    "starts at the first square",
    lambda s, e, g, h: g * g if h["t"] == 1 else s.average(e, g, h["rho"]),
)
average_g(
    "BiasCorrected",
    "E1",
    "Adam's correction, stored",
    lambda s, e, g, h: s.average(e, g, h["rho"]) / (1 - h["rho"] ** h["t"]),
)
average_g(
    "EveryOther",
    "E1",
    "averaged at every other step",
    lambda s, e, g, h: s.average(e, g, h["rho"]) if h["t"] % 2 else e,
)
average_g(
    "Restart",
    "E4",
    "starts anew after a hundred steps",
    lambda s, e, g, h: s.average(e * (h["t"] % 100 != 0), g, h["rho"]),
)
average_g(
    "Growing",
    "E1",
    "rho creeps up with the step",
    lambda s, e, g, h: s.average(e, g, min(h["rho"], (1 + h["t"]) / (10 + h["t"]))),
)
average_g(
    "SkipsTiny",
    "E1",
    "small squares are left out",
    lambda s, e, g, h: s.average(e, np.where(abs(g) < 1e-4, 0, g), h["rho"]),
)
average_g("Clamped", "E1", "squares beyond 100 are cut", lambda s, e, g, h: s.average(e, np.clip(g, -10, 10), h["rho"]))
average_g("CrossTalk", "E1", "the sum of a row leaks in", lambda s, e, g, h: s.average(e, g + 1e-4 * g.sum(), h["rho"]))
average_g("ScaledByLr", "E1", "lr in the gradient", lambda s, e, g, h: s.average(e, h["lr"] * g, h["rho"]))
average_g(
    "MeanRemoved",
    "E1",
    "the gradient is centred",
    lambda s, e, g, h: s.average(e, g - (g.mean() if g.size else 0), h["rho"]),
)

average_delta(
    "RhoSwappedDelta", "E3", "rho swapped in one average", lambda s, e, d, g, h: s.average(e, d, 1 - h["rho"])
)
average_delta("FixedRhoDelta", "E3", "rho is 0.95 whatever is asked for", lambda s, e, d, g, h: s.average(e, d, 0.95))
average_delta(
    "NoSquareDelta",
    "E3",
    "the size instead of the square",
    lambda s, e, d, g, h: h["rho"] * e + (1 - h["rho"]) * abs(d),
)
average_delta("KeepsEps", "E3", "eps is stored", lambda s, e, d, g, h: s.average(e, d, h["rho"]) + h["eps"])
average_delta(
    "LateStart",
    "E3",
    "begins with the second step",
    lambda s, e, d, g, h: e if h["t"] == 1 else s.average(e, d, h["rho"]),
)
average_delta("Product", "E3", "Delta times g", lambda s, e, d, g, h: h["rho"] * e + (1 - h["rho"]) * abs(d * g))
average_delta("NoDecay", "E3", "a running sum", lambda s, e, d, g, h: e + (1 - h["rho"]) * d * d)
average_delta("NoMemory", "E3", "the last square alone", lambda s, e, d, g, h: d * d)
average_delta(
    "SparseDelta",
    "E3",
    "a zero gradient stops it",
    lambda s, e, d, g, h: np.where(g == 0, e, s.average(e, d, h["rho"])),
)
average_delta(
    "LrDivided",
    "E3",
    "the lr is taken out of what it is not in",
    lambda s, e, d, g, h: s.average(e, d / h["lr"] if h["lr"] else d, h["rho"]),
)
average_delta(
    "LrFolded", "E3", "sqrt(lr) in the average", lambda s, e, d, g, h: s.average(e, d * h["lr"] ** 0.5, h["rho"])
)
average_delta(
    "DeltaPlusDecay", "E3", "the square of Delta + g", lambda s, e, d, g, h: s.average(e, d + 1e-5 * g, h["rho"])
)
average_delta(
    "RestartDelta",
    "E4",
    "starts anew after fifty steps",
    lambda s, e, d, g, h: s.average(e * (h["t"] != 50), d, h["rho"]),
)
average_delta(
    "BiasCorrectedDelta",
    "E3",
    "Adam's correction",
    lambda s, e, d, g, h: s.average(e, d, h["rho"]) / (1 - h["rho"] ** h["t"]),
)
average_delta(
    "ClampedDelta", "E3", "never above 1e-2", lambda s, e, d, g, h: np.minimum(s.average(e, d, h["rho"]), 1e-2)
)

delta("EpsOutside", "E2", "eps beside both roots", lambda g, e, d, eps: -(sq(d) + eps) / (sq(e) + eps) * g)
delta("EpsOutsideBelow", "E2", "eps beside the lower root", lambda g, e, d, eps: -sq(d + eps) / (sq(e) + eps) * g)
delta("EpsOutsideAbove", "E2", "eps beside the upper root", lambda g, e, d, eps: -(sq(d) + eps) / sq(e + eps) * g)
delta("EpsSquared", "E2", "eps squared in the roots", lambda g, e, d, eps: -sq(d + eps**2) / sq(e + eps**2) * g)
delta("EpsRoot", "E2", "the root of eps in the roots", lambda g, e, d, eps: -sq(d + eps**0.5) / sq(e + eps**0.5) * g)
delta("EpsTwice", "E2", "eps twice below", lambda g, e, d, eps: -sq(d + eps) / sq(e + 2 * eps) * g)
delta(
    "EpsAboveOnly",
    "E2",
    "no eps below",
    lambda g, e, d, eps: -np.where(g == 0, 0, sq(d + eps) / sq(np.where(e == 0, 1, e))) * g,
)
delta("EpsOnRatio", "E2", "eps added to the ratio", lambda g, e, d, eps: -sq((d + eps) / (e + eps) + eps) * g)
delta("EpsFloor", "E2", "eps as a floor", lambda g, e, d, eps: -sq(np.maximum(d, eps)) / sq(np.maximum(e, eps)) * g)
delta("EpsKeras", "E2", "another library's eps", lambda g, e, d, eps: -sq(d + 1e-7) / sq(e + 1e-7) * g)
delta("EpsBoth", "E2", "eps inside and outside", lambda g, e, d, eps: -sq(d + eps) / (sq(e + eps) + eps) * g)
delta("Inverted", "E2", "the ratio upside down", lambda g, e, d, eps: -sq(e + eps) / sq(d + eps) * g)
delta("NoRootAbove", "E2", "no root above", lambda g, e, d, eps: -(d + eps) / sq(e + eps) * g)
delta("NoRootBelow", "E2", "no root below", lambda g, e, d, eps: -sq(d + eps) / (e + eps) * g)
delta("NoRoots", "E2", "no roots", lambda g, e, d, eps: -(d + eps) / (e + eps) * g)
delta("SignOnly", "E2", "the sign of g", lambda g, e, d, eps: -sq(d + eps) / sq(e + eps) * np.sign(g))
delta("Rmsprop", "E2", "nothing above", lambda g, e, d, eps: -g / sq(e + eps))
delta("Positive", "E2", "the size of g", lambda g, e, d, eps: -sq(d + eps) / sq(e + eps) * abs(g))
delta(
    "Bounded",
    "E2",
    "steps beyond 1/4 are cut",
    lambda g, e, d, eps: np.clip(-sq(d + eps) / sq(e + eps) * g, -0.25, 0.25),
)
delta(
    "Approximate",
    "E2",
    "a reciprocal root of 12 bits",
    lambda g, e, d, eps: -sq(d + eps) * (1 / sq(e + eps)).astype(np.float16).astype(g.dtype) * g,
)
delta(
    "LeafNorm",
    "E2",
    "one denominator for a leaf",
    lambda g, e, d, eps: -sq(d + eps) / sq((e.mean() if e.size else 0) + eps) * g,
)
delta("Scaled", "E2", "a factor that nobody asked for", lambda g, e, d, eps: -0.999 * sq(d + eps) / sq(e + eps) * g)
delta(
    "SmallIsNothing",
    "E2",
    "a threshold for g",
    lambda g, e, d, eps: -sq(d + eps) / sq(e + eps) * np.where(abs(g) < 1e-8, 0, g),
)
delta(
    "SingleInside",
    "E2",
    "roots in 32 bits",
    lambda g, e, d, eps: (-np.float32(sq(d + eps)) / np.float32(sq(e + eps))).astype(g.dtype) * g,
    needs={"float64"},
)
delta(
    "NoEps",
    "E2",
    "eps only where the average is zero",
    lambda g, e, d, eps: -sq(np.where(d == 0, eps, d)) / sq(np.where(e == 0, eps, e)) * g,
)
delta("EpsOne", "E2", "eps is 1e-6 above", lambda g, e, d, eps: -sq(d + 1e-6) / sq(e + eps) * g)


def momentum(self, g, e_g2, e_delta2, h):
    last = h.setdefault("last", {})
    last[g.shape] = Numpy.delta(self, g, e_g2, e_delta2, h) + 0.1 * last.get(g.shape, 0 * g)
    return last[g.shape]


rewrite("Momentum", "E2", "a tenth of the last step is added", delta=momentum)
rewrite(
    "CorrectedInside",
    "E2",
    "Adam's correction below",
    delta=lambda s, g, e, d, h: Numpy.delta(s, g, e / (1 - h["rho"] ** h["t"]), d, h),
)
rewrite("Warmup", "E4", "ten steps of warm-up", apply=lambda s, t, d, h: t + h["lr"] * min(1, h["t"] / 10) * d)
theta("LrTwice", "E4", "lr twice", lambda t, d, h: t + h["lr"] ** 2 * d)
theta("LrDecays", "E4", "lr decays with the step", lambda t, d, h: t + h["lr"] / (1 + 1e-3 * (h["t"] - 1)) * d)
theta("LrRootT", "E4", "lr over the root of the step", lambda t, d, h: t + h["lr"] / h["t"] ** 0.5 * d)
theta("Uphill", "E4", "up instead of down", lambda t, d, h: t - h["lr"] * d)
theta("Half", "E4", "half a step", lambda t, d, h: t + h["lr"] * d / 2)
theta("Shrinks", "E4", "a little decay that nobody asked for", lambda t, d, h: (1 - 1e-5) * t + h["lr"] * d)
theta(
    "Sixteen", "E4", "the parameter passes through 16 bits", lambda t, d, h: np.float16(t + h["lr"] * d).astype(t.dtype)
)
theta(
    "ThirtyTwo",
    "E4",
    "the parameter passes through 32 bits",
    lambda t, d, h: np.float32(t + h["lr"] * d).astype(t.dtype),
    needs={"float64"},
)
theta("LrClamped", "E4", "no lr above 1", lambda t, d, h: t + min(h["lr"], 1) * d)
theta("LrOnTheta", "E4", "lr on the sum", lambda t, d, h: h["lr"] * (t + d))
theta("StopsLate", "E4", "nothing moves after a hundred steps", lambda t, d, h: t + h["lr"] * d * (h["t"] <= 100))
theta(
    "Tail",
    "E4",
    "what does not fill a block of 8 stays",
    lambda t, d, h: t + h["lr"] * d * (np.arange(t.size).reshape(t.shape) < max(t.size // 8 * 8, 8)),
)
theta(
    "Blocked",
    "E4",
    "nothing beyond the first 128 moves",
    lambda t, d, h: t + h["lr"] * d * (np.arange(t.size).reshape(t.shape) < 128),
)
theta("MatricesOnly", "E4", "vectors are left alone", lambda t, d, h: t + h["lr"] * d if t.ndim > 1 else t)
theta(
    "Grid", "E4", "weights on a grid", lambda t, d, h: np.round((t + h["lr"] * d) * 2**12) / np.asarray(2**12, t.dtype)
)


class LagReadTwice(Numpy):
    """The step reads E[Delta2]_{t-2}."""

    clause = "E2"

    def delta(self, g, e_g2, e_delta2, h):
        return super().delta(g, e_g2, h["older"], h)

    def step(self, h, grads):
        older = h.get("before", self.zeros(h["params"], 0))
        h["before"] = dict(h["e_delta2"])
        for k in list(grads):
            one = h | {"older": older[k], "params": {k: h["params"][k]}, "t": h["t"]}
            super().step(one, {k: grads[k]})
            h["params"][k] = one["params"][k]
        h["t"] += 1
        return h


class StaleGradient(Numpy):
    """Delta is made of the last gradient."""

    clause = "E2"

    def step(self, h, grads):
        self.previous = h.get("previous", grads)
        h["previous"] = {k: g.copy() for k, g in grads.items()}
        return super().step(h, grads)

    def delta(self, g, e_g2, e_delta2, h):
        old = next(x for k, x in self.previous.items() if x.shape == g.shape)
        return super().delta(old, e_g2, e_delta2, h)


class ByPosition(Numpy):
    """TF.js: accumulators are found by position."""

    clause = "E1"

    def step(self, h, grads):
        for name in ("e_g2", "e_delta2"):
            if {k: x.shape for k, x in h[name].items()} == {
                k: g.shape for k, g in zip(h[name], grads.values(), strict=False)
            }:
                h[name] = dict(zip(grads, h[name].values(), strict=False))
        return super().step(h, grads)


class GradientsByPosition(Numpy):
    """Gradients are matched with parameters by position."""

    clause = "E1"

    def step(self, h, grads):
        if all(g.shape == x.shape for g, x in zip(grads.values(), h["params"].values(), strict=False)):
            grads = dict(zip(h["params"], grads.values(), strict=False))
        return super().step(h, grads)


class SharedByShape(Numpy):
    """Leaves of one shape share an average."""

    clause = "E1"

    def average_g(self, e, g, h):
        shared = h.setdefault("shared", {})
        shared[g.shape] = out = super().average_g(shared.get(g.shape, e), g, h)
        return out


class OneForTheClass(Numpy):
    """Accumulators live in the class, by name."""

    clause = "S2"
    memory = {}

    def step(self, h, grads):
        for name in ("e_g2", "e_delta2"):
            h[name] = {k: self.memory.get((name, k, g.shape), h[name][k]) for k, g in grads.items()}
        h = super().step(h, grads)
        self.memory.update({(name, k, g.shape): h[name][k] for name in ("e_g2", "e_delta2") for k, g in grads.items()})
        return h


class OneForTheObject(Numpy):
    """A second start forgets the first: the handle is the object."""

    clause = "S2"

    def start(self, params, **options):
        self.h = super().start(params, **options)
        return None

    def step(self, h, grads):
        self.h = super().step(self.h, grads)

    def params(self, h):
        return self.h["params"]

    def accumulators(self, h):
        return super().accumulators(self.h)

    def set_lr(self, h, lr):
        self.h["lr"] = lr


class SharedLr(Numpy):
    """The options live in the object."""

    clause = "S2"

    def start(self, params, **options):
        self.options = options
        return super().start(params, **options)

    def step(self, h, grads):
        return super().step(h | self.options, grads)

    set_lr = None


class GradientSquaredInPlace(Numpy):
    """The caller's gradient is squared in place."""

    clause = "E1"

    def average_g(self, e, g, h):
        out = super().average_g(e, g, h)
        g *= 1.5
        return out

    def delta(self, g, e_g2, e_delta2, h):
        return super().delta(g / 1.5, e_g2, e_delta2, h)


class GradientDecayedInPlace(Numpy):
    """torch/optim 62d97dd: the caller's gradient is changed in place."""

    clause = "G3"

    def decay(self, g, theta, h):
        g += np.asarray(h["weight_decay"] * theta, g.dtype)
        return g


class GradientClippedInPlace(Numpy):
    clause = "G2"

    def clip_value(self, g, v):
        return np.clip(g, -v, v, out=g)


class ParametersInPlace(Numpy):
    """The caller's parameters are trained."""

    clause = "E4"

    def apply(self, theta, delta, h):
        theta += np.asarray(h["lr"] * delta, theta.dtype)
        return theta


class AccumulatorsStartAtOne(Numpy):
    clause = "S2"

    def zeros(self, params, eps):
        return {k: np.ones_like(x) for k, x in params.items()}


class StartsTiny(Numpy):
    clause = "S2"

    def zeros(self, params, eps):
        return {k: np.full_like(x, 1e-12) for k, x in params.items()}


class ParametersFlattened(Numpy):
    """Shapes are forgotten."""

    clause = "S2"

    def params(self, h):
        return {k: np.ravel(x) for k, x in h["params"].items()}


class EmptyFails(Numpy):
    """Parameters without elements raise an exception."""

    clause = "S4"

    def average(self, e, x, rho):
        assert x.size, "nothing to average"
        return super().average(e, x, rho)


class LrOffByOne(Numpy):
    """The lr that is set is in force from the next step on."""

    clause = "L1"

    def step(self, h, grads):
        h = super().step(h, grads)
        return h | {"lr": h.get("next", h["lr"])}

    def set_lr(self, h, lr):
        return h | {"next": lr}


class LrSetResets(Numpy):
    clause = "L1"

    def set_lr(self, h, lr):
        return h | {"lr": lr, "e_g2": self.zeros(h["params"], 0), "e_delta2": self.zeros(h["params"], 0)}


class LrZeroIgnored(Numpy):
    clause = "L1"

    def set_lr(self, h, lr):
        return h | {"lr": lr or h["lr"]}


class LrForgotten(Numpy):
    """After a step the lr is the first one again."""

    clause = "L1"

    def start(self, params, **options):
        return super().start(params, **options) | {"first": options["lr"]}

    def step(self, h, grads):
        return super().step(h, grads) | {"lr": h["first"]}


class LrMultiplied(Numpy):
    """The lr that is set multiplies the one in force."""

    clause = "L1"

    def set_lr(self, h, lr):
        return h | {"lr": lr * h["lr"]}


class LrOnce(Numpy):
    """Only the first setting counts."""

    clause = "L1"

    def set_lr(self, h, lr):
        return h if "set" in h else h | {"lr": lr, "set": True}


def norm(name, doc, f, **more):
    """A wrong version of the norm: f(list of arrays)."""
    rewrite(
        name,
        "G1",
        doc,
        norm=lambda self, grads: f([g for g in grads.values() if g.size]),
        needs={"grad_clip_norm"},
        **more,
    )


def clip_norm(name, doc, f):
    """A wrong version of G1 by f(self, g, c, n), for each leaf."""
    rewrite(
        name,
        "G1",
        doc,
        needs={"grad_clip_norm"},
        clip_norm=lambda s, gs, c: gs if c is None else {k: f(s, g, c, s.norm(gs)) for k, g in gs.items()},
    )


total = lambda gs: sum(np.sum(g * g) for g in gs)
norm("NormMean", "a mean instead of a sum", lambda gs: sq(total(gs) / sum(g.size for g in gs)))
norm("NormOne", "the sum of sizes", lambda gs: sum(np.sum(abs(g)) for g in gs))
norm("NormMax", "the largest size", lambda gs: max(np.max(abs(g)) for g in gs))
norm("NormSquared", "no root", total)
norm("NormFirst", "of the first leaf", lambda gs: sq(total(gs[:1])))
norm("NormLast", "all but the last leaf", lambda gs: sq(total(gs[:-1])))
norm(
    "NormMatrices",
    "without vectors",
    lambda gs: sq(total([g for g in gs if g.ndim > 1] or gs)),
)
norm("NormOfNorms", "the sum of the leaves' norms", lambda gs: sum(sq(np.sum(g * g)) for g in gs))
norm("NormEps", "1e-6 under the root", lambda gs: sq(total(gs) + 1e-6))
norm("NormFloor", "never below 1e-2", lambda gs: np.maximum(sq(total(gs)), 1e-2))
norm(
    "NormHalf",
    "summed in 16 bits",
    lambda gs: sum(float(np.sum((g * g).astype(np.float16), dtype=np.float16)) for g in gs) ** 0.5,
)
norm("NormUnique", "leaves of one shape count once", lambda gs: sq(total({g.shape: g for g in gs}.values())))
clip_norm("NormAlways", "small gradients are scaled up", lambda s, g, c, n: g * c / n if n else g)
clip_norm("NormZeroes", "too large gradients are dropped", lambda s, g, c, n: g if n < c else 0 * g)
clip_norm("NormHarder", "scaled by c / n twice", lambda s, g, c, n: g if n < c else g * (c / n) ** 2)
clip_norm("NormUnit", "scaled to norm 1", lambda s, g, c, n: g if n < c else g / n)
clip_norm("NormSoft", "c / (n + c)", lambda s, g, c, n: g * c / (n + c))
clip_norm("NormNanAtZero", "0/0 for zero gradients", lambda s, g, c, n: g * np.minimum(1, c / n * (n / n)))
clip_norm("NormIgnored", "not clipped", lambda s, g, c, n: g)
clip_norm("NormStrict", "clips only from 1.01 c", lambda s, g, c, n: g if n < 1.01 * c else g * c / n)
clip_norm("NormAgainstOne", "clips what is above 1", lambda s, g, c, n: g if n < 1 else g * c / n)


def clip_value(name, doc, f):
    rewrite(name, "G2", doc, clip_value=lambda self, g, v: f(g, v), needs={"grad_clip_value"})


clip_value("ValueZeroes", "what is too large is dropped", lambda g, v: np.where(abs(g) > v, 0, g))
clip_value("ValueLower", "from below only", np.maximum if False else lambda g, v: np.maximum(g, -v))
clip_value(
    "ValueScales", "the leaf is scaled", lambda g, v: g * np.minimum(1, v / max(abs(g).max(), 1e-30)) if g.size else g
)
clip_value("ValueSoft", "tanh", lambda g, v: v * np.tanh(g / v))
clip_value("ValueHalf", "cut at v / 2", lambda g, v: np.clip(g, -v / 2, v / 2))
clip_value("ValueOneToV", "between 0 and v", lambda g, v: np.clip(g, 0, v))
clip_value(
    "ValueEdge",
    "what meets the threshold is dropped",
    lambda g, v: np.where(abs(g) >= v, np.where(abs(g) == v, 0, np.sign(g) * v), g),
)
clip_value("ValueMatrices", "vectors are not cut", lambda g, v: np.clip(g, -v, v) if g.ndim > 1 else g)
clip_value("ValueAtLeastOne", "never cuts below 1", lambda g, v: np.clip(g, -max(v, 1), max(v, 1)))


def decay(name, doc, f, clause="G3", **more):
    rewrite(
        name, clause, doc, decay=lambda self, g, t, h: f(g, t, h["weight_decay"], h), needs={"weight_decay"}, **more
    )


decay("DecayUp", "weights grow", lambda g, t, w, h: g - w * t)
decay("DecayHalf", "half of it", lambda g, t, w, h: g + w * t / 2)
decay("DecayDouble", "twice, as the derivative of w theta^2", lambda g, t, w, h: g + 2 * w * t)
decay("DecayLr", "times lr", lambda g, t, w, h: g + h["lr"] * w * t)
decay("DecaySign", "L1 instead of L2", lambda g, t, w, h: g + w * np.sign(t))
decay("DecayMatrices", "vectors are spared", lambda g, t, w, h: g + w * t if t.ndim > 1 else g)
decay("DecaySparse", "nothing where the gradient is zero", lambda g, t, w, h: np.where(g == 0, g, g + w * t))
decay("DecayIgnored", "not at all", lambda g, t, w, h: g)
decay("DecaySquare", "of the square", lambda g, t, w, h: g + w * t * abs(t))
decay("DecayOnce", "at the first step", lambda g, t, w, h: g + w * t if h["t"] == 1 else g)
decay("DecayLate", "not at the first step", lambda g, t, w, h: g + w * t if h["t"] > 1 else g)
decay("DecayPercent", "w is taken for a percentage", lambda g, t, w, h: g + w / 100 * t)
decay("DecayInterpolates", "(1 - w) g + w theta", lambda g, t, w, h: (1 - w) * g + w * t)


class DecayFromStart(Numpy):
    """Decay towards zero of the first parameters."""

    clause = "G3"

    def step(self, h, grads):
        h.setdefault("first", dict(h["params"]))
        keep = h["params"]
        prepared = {k: self.decay(g, h["first"][k], h) for k, g in grads.items()}
        h = super().step(h | {"weight_decay": 0, "keep": h["weight_decay"]}, prepared)
        return h | {"weight_decay": h["keep"], "params": keep}


class DecayPastAverage(Numpy):
    """Decay is in Delta and not in E[g2]."""

    clause = "G3"

    def decay(self, g, theta, h):
        self.undecayed = g
        return super().decay(g, theta, h)

    def prepared(self, h, grads):
        out = super().prepared(h, grads)
        self.plain = {id(out[k]): self.clip(h, grads)[k] for k in out}
        return out

    def clip(self, h, grads):
        return Numpy.prepared(self, h | {"weight_decay": 0}, grads)

    def average_g(self, e, g, h):
        return super().average_g(e, self.plain[id(g)], h)


class ValueUnlessNorm(Numpy):
    """if clip by norm, else if clip by value."""

    clause = "G4"

    def prepared(self, h, grads):
        return super().prepared(h | {"grad_clip_value": None} if h["grad_clip_norm"] else h, grads)


class NormUnlessValue(Numpy):
    clause = "G4"

    def prepared(self, h, grads):
        return super().prepared(h | {"grad_clip_norm": None} if h["grad_clip_value"] else h, grads)


class DecayBetween(Numpy):
    """Norm, decay, value."""

    clause = "G4"

    def prepared(self, h, grads):
        grads = self.clip_norm(grads, h["grad_clip_norm"])
        grads = {k: self.decay(g, h["params"][k], h) for k, g in grads.items()}
        v = h["grad_clip_value"]
        return grads if v is None else {k: self.clip_value(g, v) for k, g in grads.items()}


class DecayUnlessClip(Numpy):
    clause = "G4"

    def prepared(self, h, grads):
        return super().prepared(h | {"weight_decay": 0} if h["grad_clip_value"] and h["grad_clip_norm"] else h, grads)


class ClipTwice(Numpy):
    """Clipped before and after the decay."""

    clause = "G4"

    def prepared(self, h, grads):
        return {
            k: g if h["grad_clip_value"] is None else self.clip_value(g, h["grad_clip_value"])
            for k, g in super().prepared(h, grads).items()
        }


class Complex(Numpy):
    """What a complex parameter is: two real ones."""

    supports = Numpy.supports | {"complex64"}
    accumulators = None
    needs = {"complex64"}

    def average(self, e, x, rho):
        if not np.iscomplexobj(x):
            return super().average(e, x, rho)
        return rho * e + (1 - rho) * (x.real**2 + 1j * x.imag**2)

    def delta(self, g, e_g2, e_delta2, h):
        right = super().delta
        if not np.iscomplexobj(g):
            return right(g, e_g2, e_delta2, h)
        return right(g.real, e_g2.real, e_delta2.real, h) + 1j * right(g.imag, e_g2.imag, e_delta2.imag, h)

    def norm(self, grads):
        return np.sqrt(sum(np.sum(g.real**2 + g.imag**2) for g in grads.values()))

    def clip_value(self, g, v):
        return np.clip(g.real, -v, v) + 1j * np.clip(g.imag, -v, v) if np.iscomplexobj(g) else np.clip(g, -v, v)


class ComplexSquare(Complex):
    """Optimisers.jl before adc0e85, optax 0.2.8, braintools 0.3.0."""

    clause = "X3"
    average, delta = Numpy.average, Numpy.delta


class ComplexModulus(Complex):
    """One average for both parts."""

    clause = "X3"
    delta = Numpy.delta

    def average(self, e, x, rho):
        return rho * e + (1 - rho) * abs(x) ** 2


class ComplexReal(Complex):
    """The imaginary part is lost."""

    clause = "X3"

    def apply(self, theta, delta, h):
        return theta + h["lr"] * delta.real


class ComplexNormSquare(Complex):
    """The norm of the complex squares."""

    clause = "X3"

    def norm(self, grads):
        return abs(np.sqrt(sum(np.sum(g * g) for g in grads.values()) + 0j))


class ComplexNotClipped(Complex):
    """Only real numbers are clipped by value."""

    clause = "X3"

    def clip_value(self, g, v):
        return g if np.iscomplexobj(g) else super().clip_value(g, v)


class ComplexSetLr(Complex):
    """A new lr does not reach complex parameters."""

    clause = "X3"

    def set_lr(self, h, lr):
        return h if any(map(np.iscomplexobj, h["params"].values())) else super().set_lr(h, lr)


def first(n, x):
    """Return `x` with zeros behind its first `n` numbers."""
    return np.where(np.arange(x.size).reshape(x.shape) < n, x, 0 * x)


rewrite(
    "ComplexDecayConj",
    "X3",
    "the conjugate decays",
    Complex,
    {"complex64", "weight_decay"},
    decay=lambda s, g, t, h: g + h["weight_decay"] * np.conj(t) if h["weight_decay"] else g,
)
rewrite(
    "ComplexLarge",
    "X3",
    "only 128 numbers are moved",
    Complex,
    {"complex64"},
    apply=lambda s, t, d, h: t + h["lr"] * (first(128, d) if t.dtype.kind == "c" else d),
)

# What was wrong only in results that are no numbers, at the start, or where nobody had looked.
rewrite(
    "ClipGivesNan",
    "G1",
    "a clip makes everything NaN",
    clip_norm=lambda s, g, c: g if c is None else {k: x * np.nan for k, x in g.items()},
)
theta(
    "LongNan", "E4", "more than 64 numbers become NaN", lambda t, d, h: t + h["lr"] * d * (np.nan if t.size > 64 else 1)
)
rewrite(
    "StartsInSixteen",
    "E1",
    "parameters pass through 16 bits when it starts",
    start=lambda s, p, **o: Numpy.start(s, {k: x.astype(np.float16).astype(x.dtype) for k, x in p.items()}, **o),
)
rewrite(
    "StartsClipped",
    "E1",
    "parameters are clipped when it starts",
    start=lambda s, p, **o: Numpy.start(s, {k: np.clip(x, -5, 5) for k, x in p.items()}, **o),
)
theta("Promotes", "E4", "float32 becomes float64", lambda t, d, h: t + np.float64(h["lr"]) * d)
rewrite(
    "LrInSixteen",
    "L1",
    "the lr that is set passes through 16 bits",
    set_lr=lambda s, h, lr: h | {"lr": float(np.float16(lr))},
)
rewrite("LrOrOne", "E4", "an lr of 0 is none given", start=lambda s, p, lr, **o: Numpy.start(s, p, lr=lr or 1.0, **o))
rewrite(
    "EpsFloor", "E2", "eps is at least 1e-8", start=lambda s, p, eps, **o: Numpy.start(s, p, eps=max(eps, 1e-8), **o)
)
rewrite(
    "LrSetStops",
    "L1",
    "an lr that is set is forgotten after five steps",
    set_lr=lambda s, h, lr: h | {"lr": lr, "first": h.get("first", h["lr"]), "until": h["t"] + 5},
    apply=lambda s, t, d, h: t + (h["lr"] if h["t"] <= h.get("until", h["t"]) else h["first"]) * d,
)
rewrite(
    "ClipStops",
    "G4",
    "no clip after seven steps",
    step=lambda s, h, g: Numpy.step(s, h | ({"grad_clip_norm": None} if h["t"] > 6 else {}), g),
)
rewrite(
    "DecayStops",
    "G4",
    "no decay after seven steps",
    step=lambda s, h, g: Numpy.step(s, h | ({"weight_decay": 0} if h["t"] > 6 else {}), g),
)
rewrite(
    "ClipTolerant",
    "G1",
    "a norm just over the threshold is left",
    clip_norm=lambda s, g, c: g if c is None or s.norm(g) < 1.001 * c else Numpy.clip_norm(s, g, c),
)


class ClipShared(Numpy):
    """The last start decides on the clip of all."""

    clause = "G4"

    def start(self, params, **options):
        self.last = {"grad_clip_norm": options.get("grad_clip_norm")}
        return super().start(params, **options)

    def step(self, h, grads):
        return super().step(h | self.last, grads)


class SetLrShared(Numpy):
    """Setting the lr sets it for all."""

    clause = "L1"
    last = {}

    def start(self, params, **options):
        self.last = {}
        return super().start(params, **options)

    def set_lr(self, h, lr):
        self.last = {"lr": lr}
        return h

    def step(self, h, grads):
        return super().step(h | self.last, grads)


class Lazy(Numpy):
    """A step is taken when somebody looks: the last one only."""

    clause = "E4"
    pending = None

    def step(self, h, grads):
        return h | {"pending": grads}

    def params(self, h):
        if h.get("pending"):
            super().step(h, h.pop("pending"))
        return super().params(h)

    def accumulators(self, h):
        return super().accumulators(h)


class LookingMoves(Numpy):
    """To look at the parameters twice after a step moves them."""

    clause = "E4"

    def params(self, h):
        twice, h["seen"] = h.get("seen") == h["t"], h["t"]
        return {k: x + twice for k, x in h["params"].items()}


def shared_by(name, doc, key):
    """Accumulators are found by a part of the name."""

    def step(self, h, grads):
        h["t"] += 1
        for k, g in self.prepared(h, grads).items():
            one = key(k)
            h["e_g2"][one] = np.resize(self.average_g(np.resize(h["e_g2"].get(one, g * 0), g.shape), g, h), g.shape)
            before = np.resize(h["e_delta2"].get(one, g * 0), g.shape)
            delta = self.delta(g, h["e_g2"][one], before, h)
            h["e_delta2"][one] = np.asarray(self.average_delta(before, delta, g, h))
            h["params"][k] = np.asarray(self.apply(h["params"][k], delta, h))
        return h

    rewrite(name, "E1", doc, step=step, accumulators=None)


shared_by("LastPartOfName", "accumulators by what follows the last dot", lambda k: k.rpartition(".")[2])
shared_by("CaseOfName", "accumulators by name, capitals or not", str.lower)
theta(
    "First1024",
    "E4",
    "only 1024 numbers are moved",
    lambda t, d, h: t + h["lr"] * first(1024, d),
)
average_g(
    "Centralized",
    "E1",
    "gradients of four axes are centred",
    lambda s, e, g, h: s.average(e, g - g.mean((1, 2, 3), keepdims=True) if g.ndim == 4 else g, h["rho"]),
)
average_g(
    "Restarts",
    "E4",
    "starts anew after 200 steps",
    lambda s, e, g, h: s.average(0 * e if h["t"] == 201 else e, g, h["rho"]),
    accumulators=None,
)
average_g(
    "LateLeak",
    "E4",
    "eps leaks into E[g2] after ten steps",
    lambda s, e, g, h: s.average(e, g, h["rho"]) + (h["eps"] if h["t"] > 10 else 0),
    accumulators=None,
)

for name, limit, needs in (("LimitedGradient", 1e4, set()), ("SaturatesAsFloat32", 1.8446742e19, {"float64"})):
    cut = lambda s, e, g, h, limit=limit: s.average(e, np.clip(g, -limit, limit), h["rho"])
    average_g(name, "E1", f"gradients are cut at {limit:g} though nobody asked", cut, needs=needs)
rewrite(
    "FlushesTiny",
    "E2",
    "float64 gradients below 1e-20 are zero",
    needs={"float64"},
    step=lambda s, h, g: Numpy.step(s, h, {k: np.where(abs(x) < 1e-20, 0, x).astype(x.dtype) for k, x in g.items()}),
)


class Narrow(Numpy):
    """Native 16 bits, too."""

    supports = Numpy.supports | {"float16", "bfloat16"}

    def is_narrow(self, h):
        return any(x.dtype.itemsize == 2 for x in h["params"].values())


SIXTEEN = {"float16"}
rewrite(
    "NarrowSetLr",
    "L1",
    "a new lr does not reach 16 bits",
    Narrow,
    SIXTEEN,
    set_lr=lambda s, h, lr: h if s.is_narrow(h) else Numpy.set_lr(s, h, lr),
)
rewrite(
    "NarrowDecay",
    "G4",
    "16 bits do not decay without a clip",
    Narrow,
    SIXTEEN | {"weight_decay"},
    decay=lambda s, g, t, h: g if g.dtype.itemsize == 2 and h["grad_clip_norm"] is None else Numpy.decay(s, g, t, h),
)
rewrite(
    "NarrowLarge",
    "E4",
    "only 64 numbers of 16 bits are moved",
    Narrow,
    SIXTEEN,
    apply=lambda s, t, d, h: t + h["lr"] * (first(64, d) if t.dtype.itemsize == 2 else d),
)
rewrite(
    "NarrowLong",
    "E4",
    "16 bits rest after eight steps",
    Narrow,
    SIXTEEN,
    apply=lambda s, t, d, h: t if t.dtype.itemsize == 2 and h["t"] > 8 else t + h["lr"] * d,
)

rewrite(
    "DecaySparesNames",
    "G3",
    "what is called bias, gamma or beta does not decay (mindspore)",
    needs={"weight_decay"},
    prepared=lambda s, h, grads: (
        Numpy.prepared(s, h, grads)
        | {
            k: Numpy.prepared(s, h | {"weight_decay": 0}, grads)[k]
            for k in grads
            if any(x in k for x in ("bias", "gamma", "beta"))
        }
    ),
)
rewrite(
    "StartsDouble",
    "E4",
    "float32 parameters become float64 in start()",
    start=lambda s, params, **more: Numpy.start(s, {k: x.astype(np.float64) for k, x in params.items()}, **more),
)

WRONG = [cls for cls in globals().values() if isinstance(cls, type) and hasattr(cls, "clause")]
