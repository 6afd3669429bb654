"""What a step computes, operation by operation, is what operations.txt says: a change of form changes no bit.

Where other operations are wanted, `python tests/test_operations.py` writes the file anew.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from braintools_adadelta.states import as_arrays
from braintools_adadelta.transform import Accumulators, Options, step

FILE = Path(__file__).with_name("operations.txt")
INPUTS = ("theta", "g", "E[g2]", "E[Delta2]")
OUTPUTS = ("E[g2]'", "Delta", "E[Delta2]'", "theta'")
OPTIONS = {"grad_clip_norm": 3.0, "grad_clip_value": 0.75, "weight_decay": 0.25}
CASES = {  # dtype, rho, number of arrays, options
    "plain": ("float32", 0.9, 1, {}),
    "plain, float64": ("float64", 0.9, 1, {}),
    "rho = 5/8": ("float32", 5 / 8, 1, {}),
    "rho = 1/2": ("float32", 0.5, 1, {}),
    "rho is traced": ("float32", "traced", 1, {}),
    "rho in parts, as the optimizer gives it": ("float32", "parts", 1, {}),
    "both clips and decay, over two arrays": ("float32", 5 / 8, 2, OPTIONS),
}


def flat_equations(jaxpr, alias):
    """Yield the operations of `jaxpr` and of the functions that it calls; `alias` says which variables are the same."""
    for equation in jaxpr.eqns:
        inner = equation.params.get("jaxpr") or equation.params.get("call_jaxpr")
        if inner is None:
            yield equation
            continue
        inner = getattr(inner, "jaxpr", inner)
        alias |= dict(zip(inner.invars, equation.invars, strict=True))
        yield from flat_equations(inner, alias)
        alias |= dict(zip(equation.outvars, inner.outvars, strict=True))


def text_of(jaxpr, inputs, outputs):
    """Return the operations that lead to the outputs, each after those that it needs, whatever the order in `jaxpr`."""
    alias, lines = {}, []
    made_by = {x: equation for equation in flat_equations(jaxpr, alias) for x in equation.outvars}
    names = dict(zip(jaxpr.invars, inputs, strict=True))

    def name_of(x):
        if hasattr(x, "val"):
            return str(x.val)
        if x in alias:
            return name_of(alias[x])
        if x not in names:
            equation = made_by[x]
            operands = [name_of(y) for y in equation.invars]
            several = len(equation.outvars) > 1
            for k, y in enumerate(equation.outvars):
                names[y] = f"%{len(lines)}" + f".{k}" * several
            lines.append(f"  %{len(lines)} = {equation.primitive.name}({', '.join(operands)}) : {x.aval.str_short()}")
        return names[x]

    found = [f"  {name} = {name_of(x)}" for name, x in zip(outputs, jaxpr.outvars, strict=True)]
    return lines + found


def operations(case):
    dtype, kind, count, options = CASES[case]
    with jax.enable_x64(dtype == "float64"):
        xs = [jnp.ones(2 + k, dtype) for k in range(count)]
        parts = {name: [tuple(pair) for pair in rho] for name, rho in as_arrays(Options()).rho.items()}
        rho = {"traced": jnp.ones((), dtype), "parts": parts}.get(kind)

        def call(theta, g, e_g2, e_delta2, lr, rho):
            rho = kind if rho is None else rho
            after = step(theta, g, Accumulators(e_g2, e_delta2), lr, Options(rho=rho, **options))
            return after.e_g2, after.delta, after.e_delta2, after.theta

        jaxpr = jax.make_jaxpr(call)(xs, xs, xs, xs, jnp.ones((), dtype), rho).jaxpr
    numbered = lambda names: [f"{name}{k if count > 1 else ''}" for name in names for k in range(count)]
    inputs = [*numbered(INPUTS), "lr", *("rho",) * len(jax.tree.leaves(rho))]
    return "\n".join([f"{case}:", *text_of(jaxpr, inputs, numbered(OUTPUTS))])


@pytest.mark.parametrize("case", CASES)
def test_the_operations_of_a_step(case):
    recorded = {text.split(":", 1)[0]: text for text in FILE.read_text("utf-8").rstrip().split("\n\n")}
    assert operations(case) == recorded[case]


if __name__ == "__main__":
    FILE.write_text("\n\n".join(map(operations, CASES)) + "\n", "utf-8")
