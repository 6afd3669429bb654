"""What does one program of others do, once an Adadelta trains in it? ``python tools/swapped.py JOB``, for ecosystem.py.

JOB is JSON: the path of the program, patches of its text, the variant of Adadelta, and the lr that replaces numbers.
Each registered parameter is saved to parameters.npz twice: as it was at the start and as it is at the end.
"""

import inspect
import itertools
import json
import random
import re
import sys
from pathlib import Path

import brainstate
import braintools.optim as optim
import jax
import jax.numpy as jnp
import numpy as np

from braintools_adadelta import Adadelta

KEPT = ["lr", "weight_decay", "grad_clip_norm", "grad_clip_value"]  # arguments that an Adadelta has too


def source(path, patches):
    """Return the code of a program or a notebook, patched."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        text = re.sub(r"(?m)^[%!].*$", "", "\n\n".join(cells))
    for old, new in patches:
        text, count = re.subn(old, new, text)
        if not count:
            raise ValueError(f"there is no {old!r} in {path}")
    return text


def arrays(state):
    return [np.array(x) for x in jax.tree.leaves(state.value)]


def nudge(x):
    """Return the next higher number, which is the smallest change there is."""
    return jnp.nextafter(x, jnp.inf) if jnp.isrealobj(x) else x


def adapted(cls, base, fixed_lr, known, nudged):
    """Return an Adadelta, `base`, that takes the arguments of `cls`. It adds what it is given to train to `known`."""
    arguments = inspect.signature(cls.__init__)

    class Adapted(base):
        def __init__(self, *args, **kwargs):
            given = arguments.bind(self, *args, **kwargs).arguments
            kept = {name: given[name] for name in KEPT if name in given}
            if fixed_lr and isinstance(kept.get("lr", fixed_lr), float):
                kept["lr"] = fixed_lr
            super().__init__(**kept)

        def register_trainable_weights(self, states):
            for state in jax.tree.leaves(states, is_leaf=lambda x: isinstance(x, brainstate.State)):
                if all(state is not one for one, _ in known):
                    if nudged:
                        state.value = jax.tree.map(nudge, state.value)
                    known.append((state, arrays(state)))
            return super().register_trainable_weights(states)

    return Adapted


def swap(base, lr, known=None, nudged=False):
    """Put `base` in the place of every optimizer of braintools."""
    known = [] if known is None else known
    for name, cls in list(vars(optim).items()):
        if isinstance(cls, type) and issubclass(cls, optim.OptaxOptimizer) and cls is not optim.OptaxOptimizer:
            setattr(optim, name, adapted(cls, base, lr, known, nudged))


def execute(path, patches):
    """Run the program at `path` with the same seeds every time; return its names."""
    make, seeds = np.random.default_rng, itertools.count()
    np.random.default_rng = lambda seed=None: make(next(seeds) if seed is None else seed)
    for seed in random.seed, np.random.seed, brainstate.random.seed:
        seed(0)
    sys.path[0], sys.argv = str(Path(path).parent), [path]
    space = {"__name__": "__main__", "__file__": path}
    exec(compile(source(Path(path), patches), path, "exec"), space)
    return space


def main(path, patches, variant, lr):
    known = []
    swap(Adadelta if variant == "ours" else optim.Adadelta, lr, known, variant == "nudged")
    try:
        execute(path, patches)
    finally:
        pairs = [pair for state, start in known for pair in zip(start, arrays(state), strict=True)]
        np.savez("parameters.npz", *(x for pair in pairs for x in pair))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
