"""The inputs that implementations are tried on: hyperparameters, shapes and regions, each with a name."""

from zlib import crc32

import numpy as np

from braintools_adadelta.conformance.judge import Case
from braintools_adadelta.conformance.method import ADADELTA

HYPER, NARROW = ADADELTA.hyper, ADADELTA.narrow
# Equal and different shapes, up to four axes. The names are not in alphabetical order; some frameworks treat such names
# as special.
SHAPES = {"w": (2, 2), "bias": (3,), "a": (3,), "norm.gamma": (1,), "k": (1, 3, 2), "conv": (2, 1, 1, 2)}
SPECIAL = ("bias", "b", "layer.bias", "gamma", "beta", "bn.beta", "scale", "LayerNorm.weight", "embedding.weight")
SCALARS = {"scale": (), "w": (2,), "offset": ()}
EMPTY = {"empty": (0,), "w": (2,), "none": (2, 0)}
ALIKE = {"v": (2,), "u": (2,)}
MANY = {f"p{k}": (1,) for k in range(12)}  # "p10" comes before "p2" where names are sorted
NAMES = {"up.w": (2,), "down.w": (2,), "down.W": (2,)}  # only the whole name tells them apart
LARGE = {"m": (7, 19), "long": (131,)}
HUGE = {"long": (1100,)}
SINGLE = {"w": (2,)}

# The sizes of |g| in powers of two. Those of near_eps are relative to the root of eps.
REGIONS = {"ordinary": (-3, 10), "near_eps": (-4, 4), "eps_dominates": (-40, -14)}
NARROW_REGIONS = {"ordinary": (-3, 6), "near_eps": (-4, 4), "eps_dominates": (-9, -5)}
# The squares are still far from overflow and underflow. These regions are not mixed with the others, because an average
# forgets large numbers slowly.
FAR = {"large": (10, 30), "tiny": (-60, -40)}
FAR_DOUBLE = {"large": (10, 200), "tiny": (-200, -40)}


def regions_of(dtype, far=False):
    """Return the regions of a dtype: the usual ones, or those far from 1. In float16 these are the same."""
    if dtype == "float16":
        return NARROW_REGIONS
    return (FAR_DOUBLE if dtype in ("float64", "complex128") else FAR) if far else REGIONS


def kind(dtype):
    """Return the dtype with the name `dtype`. That of bfloat16 comes from ml_dtypes."""
    if dtype == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(dtype)


def rng_of(*key, seed=0):
    """Return a generator of random numbers that depends on `key` and `seed` only, not on the process."""
    return np.random.default_rng([seed, crc32(repr(key).encode())])


def numbers(rng, shape, region, dtype, eps):
    """Return numbers of either sign with magnitudes in `region`."""
    if kind(dtype).kind == "c":
        part = "float32" if kind(dtype) == "complex64" else "float64"
        return numbers(rng, shape, region, part, eps) + 1j * numbers(rng, shape, region, part, eps)
    low, high = (regions_of(dtype) | regions_of(dtype, far=True))[region]
    middle = np.log2(eps) / 2 if region == "near_eps" else 0
    size = 2.0 ** (middle + rng.uniform(low, high, shape))
    return (rng.choice([-1.0, 1.0], shape) * size).astype(kind(dtype))


def gradients(rng, shapes, steps, dtype, eps, regions):
    """Return one tree of gradients for each step. A component is drawn from a region, is zero, or keeps its value."""
    out = []
    for _ in range(steps):
        tree = {}
        for name, shape in shapes.items():
            x = np.zeros(shape, kind(dtype))
            which = rng.integers(len(regions) + 1, size=shape)  # the last one stands for zero
            for k, region in enumerate(regions):
                x = np.where(which == k, numbers(rng, shape, region, dtype, eps), x)
            if out:
                x = np.where(rng.random(shape) < 0.1, out[-1][name], x)
            tree[name] = np.asarray(x, kind(dtype))
        out.append(tree)
    if steps > 2:  # where a leaf has room: an exact zero after a number, and one at the first step
        for name, shape in shapes.items():
            for index, zero in ((0, 1), (1, 0)):
                if index < np.prod(shape, dtype=int):
                    for t in range(3):
                        x = out[t][name]
                        x.flat[index] = 0 if t == zero else x.flat[index] or np.sqrt(eps)
    return out


def shuffled(rng, tree):
    """Return `tree` in another order."""
    return {name: tree[name] for name in rng.permutation(list(tree)).tolist()}


def runs(rng, dtype, options, *, shapes=SHAPES, steps=4, regions=None, theta=None, lrs=None, reorder=True):
    """Return a random training run."""
    regions = list(regions_of(dtype)) if regions is None else [regions] if isinstance(regions, str) else regions
    eps = options["eps"]
    params = {
        name: numbers(rng, shape, "ordinary", dtype, eps) if theta is None else np.full(shape, theta, kind(dtype))
        for name, shape in shapes.items()
    }
    params = {name: np.asarray(x, kind(dtype)) for name, x in params.items()}
    grads = gradients(rng, shapes, steps, dtype, eps, regions)
    if reorder:
        grads = (
            [grads[0], *(shuffled(rng, g) for g in grads[1:])]
            if rng.random() < 0.5
            else [shuffled(rng, g) for g in grads]
        )
    return Case(params, grads, options, [] if lrs is None else lrs)
