"""What implementations are tried on: hyperparameters, shapes and regions of the input, each named once."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from braintools_adadelta.conformance.judge import Case

# The defaults of most frameworks hide bugs: lr = 1, one rho, and an eps too small to be seen.
HYPER = {
    "defaults": {"lr": 1.0, "rho": 0.9, "eps": 1e-6},
    "large_eps": {"lr": 0.5, "rho": 0.625, "eps": 1.0},
    "no_memory": {"lr": 2.0, "rho": 0.0, "eps": 0.01},
    "long_memory": {"lr": 0.1, "rho": 0.99, "eps": 1e-8},
}
# Leaves of equal and of different shapes, a scalar, two axes, nothing at all; not in alphabetical order.
SHAPES = {"w": (2, 2), "a": (3,), "b": (3,), "scale": (), "empty": (0,)}
ALIKE = {"v": (2,), "u": (2,)}

# |g| by what becomes of it, for eps = 1e-6 in float32.
REGIONS = {"ordinary": (2.0**-10, 2.0**10), "eps_dominates": (2.0**-40, 2.0**-14)}


def numbers(dtype, region):
    """Draw zero or a number of either sign whose magnitude is in `region`."""
    low, high = REGIONS[region]
    size = st.floats(low, high, width=np.dtype(dtype).itemsize * 8)
    return st.one_of(size, size.map(lambda x: -x), st.just(0.0))


@st.composite
def runs(draw, dtype, options, *, shapes=SHAPES, steps=3, region=None, theta=None, lrs=None):
    """Draw a training run. Each of its gradients lies in one region, or anywhere in all of them."""
    regions = [region] if region else list(REGIONS)

    def arrays(elements):
        return {
            name: draw(hnp.arrays(dtype, shape, elements=elements, fill=st.nothing())) for name, shape in shapes.items()
        }

    params = arrays(numbers(dtype, "ordinary") if theta is None else st.just(theta))
    grads = [arrays(numbers(dtype, draw(st.sampled_from(regions)))) for _ in range(steps)]
    return Case(params, grads, options, [] if lrs is None else draw(lrs))
