"""The core leaves JAX no dtype and no rank to promote."""

import jax
import jax.numpy as jnp
import pytest

from braintools_adadelta import scale_by_adadelta
from braintools_adadelta.transform import Options, start, step

THETA = {"w": jnp.ones((2, 3)), "inner": {"b": jnp.ones(3), "scale": jnp.ones(())}}
OPTIONS = {"plain": Options(), "all": Options(weight_decay=0.5, grad_clip_norm=1.0, grad_clip_value=0.25)}

pytestmark = pytest.mark.usefixtures("strict")


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_step(options):
    jax.jit(lambda theta: step(theta, theta, start(theta), 1.0, options))(THETA)


def test_scale_by_adadelta():
    init, update = scale_by_adadelta(0.9, 1e-6)
    jax.jit(update)(THETA, init(THETA))
