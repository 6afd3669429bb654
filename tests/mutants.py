"""Adadelta in plain numpy: once right, in several ways, and then wrong in the ways that frameworks shipped.

A mutant's ``clause`` is the one that must reject it; ``seen in`` is where it was shipped.
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
            for k, g in self.doors(h, grads).items():
                e_g2 = h["e_g2"][k] = np.asarray(self.average_g(h["e_g2"][k], g, h))
                delta = self.delta(g, e_g2, h["e_delta2"][k], h)
                h["e_delta2"][k] = np.asarray(self.average_delta(h["e_delta2"][k], delta, g, h))
                h["params"][k] = np.asarray(self.apply(h["params"][k], delta, h))
        return h

    def doors(self, h, grads):
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


RIGHT = [Numpy, Lerp, RootOfRatio, ReciprocalRoot, WeightsInWorkingPrecision, FactorFirst, Minus, Hidden]

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
    """ConvNetJS, shogun, climin."""

    clause = "E3"

    def average_delta(self, e, delta, g, h):
        return self.average(e, h["lr"] * delta, h["rho"])


class LrIgnored(Numpy):
    """brainpy before 7f2e3afe, old Paddle, MXNet 1."""

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

    def doors(self, h, grads):
        decayed = {k: super(DecayFirst, self).decay(g, h["params"][k], h) for k, g in grads.items()}
        return super().doors(h | {"weight_decay": 0}, decayed)


class ValueBeforeNorm(Numpy):
    clause = "G4"

    def doors(self, h, grads):
        if h["grad_clip_value"] is not None:
            grads = {k: self.clip_value(g, h["grad_clip_value"]) for k, g in grads.items()}
        return super().doors(h | {"grad_clip_value": None}, grads)


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


WRONG = [cls for cls in globals().values() if isinstance(cls, type) and hasattr(cls, "clause")]
