"""The update for CPU, CUDA, ROCm and TPU: lowered here for each, and what it is made of; run where there is one."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import lowered
import numpy as np
import platform_arithmetic
import pytest

from braintools_adadelta.conformance import adapters
from braintools_adadelta.conformance.cases import EMPTY, HYPER, SCALARS, SHAPES
from braintools_adadelta.conformance.judge import FIELDS, STORED, Case, Run, explain
from braintools_adadelta.conformance.method import ADADELTA
from braintools_adadelta.oracle.bounds import PLAIN
from braintools_adadelta.oracle.ulp import float32
from braintools_adadelta.update import REUSING, compiled_for

PLATFORMS = ["cpu", "cuda", "rocm", "tpu"]
OPTIONS = {"none": {}, "all": {"grad_clip_norm": 1.0, "grad_clip_value": 1.0, "weight_decay": 0.1}}


def lower(leaves=1, dtype=jnp.float32, weight_decay=0.0, skip=False, **options):
    """Return the update of so many parameters, ready to be compiled, and what it is called with."""
    case = lowered.Case(dtype, options, decay=bool(weight_decay), skip=skip)
    return compiled_for((), REUSING), lowered.program(case, leaves, (8, 3))


def stablehlo(platform, leaves=1, dtype=jnp.float32, **options):
    update, (arguments, static) = lower(leaves, dtype, **options)
    text = jax.export.export(update, platforms=[platform])(*arguments, **static).mlir_module()
    return re.sub(r"(?m)^#loc.*$|loc\([^()]*(\([^()]*\))?\)", "", text)  # where in which file it came from


def count(op, text):
    return len(re.findall(rf"stablehlo\.{op}\b", text))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_lowers_without_double_precision_or_custom_calls(platform, name, dtype):
    text = stablehlo(platform, 2, dtype, **OPTIONS[name])
    assert "f64" not in text and "custom_call" not in text and "callback" not in text
    assert "stablehlo.sqrt" in text  # and there is something in it


@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_a_leaf_costs(platform):
    """One root and one division a leaf; a clip by norm adds one of each in all."""
    for n in (1, 2, 5):
        text = stablehlo(platform, n)
        assert [count(op, text) for op in ("sqrt", "rsqrt", "divide")] == [n, 0, n]
    text = stablehlo(platform, 5, **OPTIONS["all"])
    assert count("sqrt", text) == 5 + 1 and count("divide", text) == 5 + 1


@pytest.mark.parametrize("platform", PLATFORMS)
def test_accumulators_are_donated(platform):
    text = stablehlo(platform, 3)
    signature = text[text.index("@main") : text.index("{\n", text.index("@main"))]
    assert len(re.findall(r"tf\.aliasing_output|jax\.buffer_donor", signature)) == 2 * 3


def test_the_compiled_update_holds_no_copy_of_the_accumulators():
    update, (arguments, static) = lower()
    memory = update.lower(*arguments, **static).compile().memory_analysis()
    assert memory.alias_size_in_bytes == 2 * 8 * 3 * 4


@pytest.mark.parametrize("skip", [False, True])
def test_what_is_compiled_grows_as_the_number_of_parameters(skip):
    """The norm and the flag are needed by every parameter: XLA must not compute them anew for each."""
    sizes = []
    for leaves in (10, 40):
        update, (arguments, static) = lower(leaves, grad_clip_norm=1.0, skip=skip)
        sizes.append(update.lower(*arguments, **static).compile().as_text().count(" = "))
    assert sizes[1] <= 4 * sizes[0]


@pytest.mark.accelerator
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_within_the_bound_of_its_platform(options):
    """Here, whatever this is; on a CPU, too, so that the test itself does not rot."""
    method = ADADELTA._replace(bounds=partial(ADADELTA.bounds, m=platform_arithmetic.machine_here(float32)))
    rng = np.random.default_rng(0)
    draw = lambda: {
        k: np.asarray(rng.normal(size=shape) * 10.0 ** rng.integers(-3, 3), np.float32)
        for k, shape in (SHAPES | SCALARS | EMPTY).items()
    }
    ours = adapters.load("braintools_adadelta")
    for _ in range(20):
        run = Run(ours, Case(draw(), [draw() for _ in range(4)], HYPER["defaults"] | options)).finish()
        assert not explain(run, STORED, FIELDS, PLAIN, 1, method).misses
