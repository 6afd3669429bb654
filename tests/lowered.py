"""The compiled update, as abstract programs: what tools/accelerators.py compiles for devices that are not here."""

import hashlib
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from test_operations import text_of

from braintools_adadelta.leaf import enter
from braintools_adadelta.states import as_arrays
from braintools_adadelta.transform import Options, start
from braintools_adadelta.update import update_all


class Case(NamedTuple):
    """One kind of update."""

    dtype: Any = jnp.float32
    options: dict = {}
    decay: bool = False
    skip: bool = False
    groups: int = 1


CASES = {
    "float32": Case(),
    "float32, decay and clip by value": Case(options={"grad_clip_value": 1.0}, decay=True),
    "float32, clip by norm": Case(options={"grad_clip_norm": 1.0}),
    "float32, skip": Case(skip=True),
    "float32, two groups": Case(groups=2),
    "bfloat16": Case(jnp.bfloat16),
    "bfloat16, clip by norm": Case(jnp.bfloat16, {"grad_clip_norm": 1.0}),
    "float16": Case(jnp.float16),
    "complex64": Case(jnp.complex64),
    "float64": Case(jnp.float64),
}


def abstract(shape, dtype, spread=False):
    """Return an abstract array that is nowhere; scalars are not to be `spread` over devices."""
    return jax.ShapeDtypeStruct(shape, dtype)


def program(case, leaves, shape, place=abstract):
    """Return the arguments of update_all for a :class:`Case`; `place` makes an abstract array."""
    parameters = {f"w{k}": place(shape, case.dtype, True) for k in range(leaves)}
    before = jax.eval_shape(lambda theta: start(jax.tree.map(enter, theta)), parameters)
    before = jax.tree.map(lambda x: place(x.shape, x.dtype, True), before)
    scalar = lambda dtype: place((), dtype)
    options = jax.eval_shape(lambda: as_arrays(Options(**case.options)))
    options = jax.tree.map(lambda x: place(x.shape, x.dtype), options)
    groups = tuple(tuple(f"w{k}" for k in range(first, leaves, case.groups)) for first in range(case.groups))
    arguments = (parameters, parameters, before, [scalar(jnp.float32)] * case.groups)
    counts = (scalar(jnp.int32),) * (1 + case.skip)
    decays = [[scalar(jnp.float32)] * case.decay for _ in groups]
    return (*arguments, counts, options, decays), {"groups": groups, "skip": case.skip}


def fingerprint(case):
    """Return a hash of the operations of a :class:`Case`, one by one, which does not depend on the version of JAX."""
    with jax.enable_x64(case.dtype == jnp.float64):
        (*arguments, options, decays), static = program(case, leaves=case.groups, shape=(8,))
        numbers = lambda x: [[jax.ShapeDtypeStruct((), x.dtype)] * 2] * 2  # versions differ in how they take a row
        options = options._replace(rho={name: numbers(x) for name, x in options.rho.items()})
        arguments += options, decays
        jaxpr = jax.make_jaxpr(partial(update_all, **static))(*arguments).jaxpr
    names = [f"in{k}" for k in range(len(jaxpr.invars))], [f"out{k}" for k in range(len(jaxpr.outvars))]
    return hashlib.sha256("\n".join(text_of(jaxpr, *names)).encode()).hexdigest()[:16]
