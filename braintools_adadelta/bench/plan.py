"""What is measured: the workloads, and how thoroughly."""

from collections import namedtuple
from math import prod

# Rounds of turns; seconds of a turn; seconds after which one at a workload has enough, after three rounds; fresh processes
# for each first call and import; and seconds after which one is left out.
Effort = namedtuple("Effort", "rounds seconds enough fresh patience")


def workload(leaves, *shape):
    return {"leaves": leaves, "shape": list(shape)}


def size(load):
    """Return the number of parameters of a workload."""
    return load["leaves"] * prod(load["shape"])


def one_leaf(*exponents):
    return {f"10^{k}": workload(1, 10**k) for k in exponents}


def in_leaves(total, *counts):
    return {f"{k} leaves" if k > 1 else "1 leaf": workload(k, total // k) for k in counts}


def of_four(*counts):
    return {f"{k} of four": workload(k, 4) for k in counts}


FULL = {
    "memory": {"one of 16M": workload(1, 2**24)},
    "large": {
        "one of 16M": workload(1, 2**24),
        "1000 x 1000": workload(1, 1000, 1000),
        "100 of 64 x 64": workload(100, 64, 64),
        "400 of 16 x 16": workload(400, 16, 16),
    },
    "small": of_four(2, 20, 200, 1000),
    "sizes": one_leaf(3, 4, 5, 6, 7, 8),
    "leaves": in_leaves(2**20, 1, 8, 64, 500, 2000),
    "first": of_four(20, 200, 1000),
    "training": {"digits": {}, "recurrent": {}, "spiking": {}},
}
QUICK = {  # no first calls and no networks, which need processes of their own
    "memory": {"one of 1M": workload(1, 2**20)},
    "large": {"one of 1M": workload(1, 2**20), "100 of 16 x 16": workload(100, 16, 16)},
    "small": of_four(2, 20),
    "sizes": one_leaf(3, 6),
    "leaves": in_leaves(2**16, 1, 16),
    "first": {},
    "training": {},
}
TINY = {  # does it work?
    "memory": {"one of 1000": workload(1, 1000)},
    "large": {"one of 1000": workload(1, 1000)},
    "small": of_four(2),
    "sizes": one_leaf(2, 3),
    "leaves": in_leaves(64, 1, 8),
    "first": of_four(1),
    "training": {"digits": {}},
}
PLANS = {
    "full": (FULL, Effort(9, 0.1, 5, 3, 120)),
    "quick": (QUICK, Effort(3, 0.02, 1, 1, 30)),
    "tiny": (TINY, Effort(2, 0.001, 1, 1, 120)),
}
SECTIONS = ["memory", "large", "small", "sizes", "leaves", "first", "import", "training"]
TURNS = ["large", "small", "sizes", "leaves"]

# A first call is measured where something is compiled, memory where one program is the whole step.
COMPILES = {("braintools_adadelta", "eager"), ("braintools_adadelta", "jit"), ("braintools", "eager"),
            ("braintools", "jit"), ("optax", "jit")}  # fmt: skip
ONE_PROGRAM = [
    ("braintools_adadelta", "eager"),
    *((name, form) for name in ("braintools_adadelta", "braintools", "optax", "keras") for form in ("jit", "donated")),
]
IMPORTS = {
    "braintools_adadelta": "from braintools_adadelta import Adadelta",  # the package itself loads what is asked for
    "brainstate": "import brainstate",
    "braintools": "import braintools",
    "optax": "import optax",
    "torch": "import torch",
    "keras": "import keras",
}
