"""What the kit knows of the optimizer that it judges, as one object. A second optimizer would supply another one.

docs/another_optimizer.md says what else it would need.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from braintools_adadelta.conformance.clauses import CLAUSES
from braintools_adadelta.oracle.bounds import bounds
from braintools_adadelta.oracle.exact import step
from braintools_adadelta.spec import Clause


class Method(NamedTuple):
    """An optimizer: its clauses, its exact step with what rounding may do to it, and where it is tried."""

    name: str
    clauses: dict[str, Clause]  # {id: Clause}
    state: tuple[str, ...]  # what an implementation may show beside theta, in the order of the data flow; zero at first
    lagged: str  # the state that may take in its number at the beginning of the next step
    step: Callable[..., Any]  # step(theta, g, *state, **options) -> what has the fields of `state` and theta
    bounds: Callable[..., Any]  # bounds(step, theta, *state, fmt=..., form=..., carried=..., **options) -> the same fields
    hyper: dict[str, dict[str, Any]]  # {name: options}
    narrow: dict[str, dict[str, Any]]  # the same for 16 bits

    @property
    def fields(self) -> tuple[str, ...]:
        """What is compared in a run."""
        return (*self.state, "theta")


ADADELTA = Method(
    name="Adadelta",
    clauses=CLAUSES,
    state=("e_g2", "e_delta2"),
    lagged="e_delta2",
    step=step,
    bounds=bounds,
    # The defaults of most frameworks hide bugs: lr is 1, rho is always the same, and eps is too small to matter.
    hyper={
        "defaults": {"lr": 1.0, "rho": 0.9, "eps": 1e-6},
        "large_eps": {"lr": 0.5, "rho": 0.625, "eps": 1.0},
        "no_memory": {"lr": 2.0, "rho": 0.0, "eps": 0.01},
        "long_memory": {"lr": 0.1, "rho": 0.99, "eps": 1e-8},
        "no_end": {"lr": 3.0, "rho": 0.9995, "eps": 1e-3},
        "small_eps": {"lr": 0.3, "rho": 0.95, "eps": 1e-12},
    },
    # In 16 bits, eps must be a normal number. In float16, the squares must also be finite.
    narrow={
        "large_eps": {"lr": 0.5, "rho": 0.625, "eps": 1.0},
        "no_memory": {"lr": 2.0, "rho": 0.0, "eps": 0.01},
        "middle": {"lr": 0.25, "rho": 0.9, "eps": 2.0**-10},
    },
)
