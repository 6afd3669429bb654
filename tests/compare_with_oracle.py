"""Compare the end of a run with the exact one, within the derived bound on what rounding may add up to."""

import jax
import numpy as np
import platform_arithmetic

from braintools_adadelta.oracle import ulp
from braintools_adadelta.oracle.bounds import ANY, bounds
from braintools_adadelta.oracle.exact import exact, largest_root, step


def components(tree):
    return [x for leaf in jax.tree.leaves(tree) for x in np.ravel(np.asarray(leaf))]


def assert_near_exact(theta, params, grads, *, lrs=None, dtype="float32", form=ANY, **options):
    """Assert that the tree `theta` is where the exact run from `params` through `grads` ends, up to rounding."""
    fmt = ulp.FORMATS[dtype]
    m = platform_arithmetic.machine_here(fmt)
    options["largest"] = largest_root(fmt)
    truth, carried = exact(components(params)), None
    e_g2 = e_delta2 = exact([0.0] * len(truth))
    for t, g in enumerate(grads):
        lr = {} if lrs is None else {"lr": lrs[t]}
        after = step(truth, components(g), e_g2, e_delta2, **lr, **options)
        carried = bounds(after, truth, e_g2, e_delta2, fmt=fmt, form=form, carried=carried, m=m, **lr, **options)
        truth, e_g2, e_delta2 = after.theta, after.e_g2, after.e_delta2
    for k, (got, want, allowed) in enumerate(zip(components(theta), truth, carried.theta, strict=True)):
        error = abs(exact(got)[0] - want)
        assert error <= allowed, f"number {k}: got {got}, exactly {float(want)}, bound {float(allowed):.2g}"
