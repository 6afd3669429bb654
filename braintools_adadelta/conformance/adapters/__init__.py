"""Find an implementation by its name: a known one, or any other that can be imported."""

import inspect
import sys
from functools import cached_property, lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np

from braintools_adadelta.spec import SIGNATURE

# name: (module of this package, factory in it, packages whose versions are recorded)
KNOWN = {
    "braintools_adadelta": ("brainstate", "ours", ("braintools_adadelta", "jax", "brainstate")),
    "braintools": ("brainstate", "original", ("braintools", "optax", "jax", "brainstate")),
    "optax": ("optax", "Optax", ("optax", "jax")),
    "torch": ("torch", "Torch", ("torch",)),
    "torch-loop": ("torch", "TorchLoop", ("torch",)),
    "keras": ("keras", "Keras", ("keras", "jax")),
    "tensorflow": ("tensorflow", "Tensorflow", ("tensorflow",)),
}
DEFAULT = ["braintools_adadelta", "braintools"]  # what is judged when no name is given
OPTIONS = ("weight_decay", "grad_clip_norm", "grad_clip_value")
OFFERS = {*OPTIONS, "float16", "bfloat16", "float32", "float64", "complex64", "complex128"}


class UsageError(Exception):
    """The implementation that was asked for cannot be judged."""


class Subject:
    """An implementation as the judge sees it: with every member, with its options filled in, with arrays of numpy."""

    def __init__(self, target, it, packages=()):
        self.target, self.it, self.packages = target, it, packages
        for member in ("start", "step", "params"):
            if not callable(getattr(it, member, None)):
                raise UsageError(
                    f"{target}: {it!r} has no method {member}(): an implementation has start, step and params;"
                    " see the documentation of braintools_adadelta.conformance."
                )
        self.name = str(getattr(it, "name", None) or type(it).__name__)
        self.cls = getattr(it, "cls", None)  # a class with the interface of braintools.optim.Adadelta
        self.supports = frozenset(getattr(it, "supports", None) or ())
        if isinstance(getattr(it, "supports", None), str) or not self.supports <= OFFERS:
            raise UsageError(
                f"{target}: supports = {getattr(it, 'supports', None)!r} is not allowed: it must be a set of"
                f" {', '.join(sorted(OFFERS - {'float32'}))} (options that are not in it are not judged)."
            )
        self.defaults = dict(getattr(it, "defaults", None) or {})
        self.sets_lr = callable(getattr(it, "set_lr", None))
        self.failed = False
        self.found = {}  # runs that several clauses use

    @property
    def versions(self):
        """The versions of the packages that it uses."""
        return {name: installed(name) for name in self.packages}

    def start(self, params, **options):
        offered = {name: SIGNATURE[name] for name in OPTIONS if name in self.supports}
        return self.it.start(params, **(offered | options))

    def step(self, handle, grads):
        return self.it.step(handle, grads)

    def set_lr(self, handle, lr):
        return self.it.set_lr(handle, lr)

    def params(self, handle):
        return arrays(self.it.params(handle), "params()")

    def accumulators(self, handle):
        """Return copies of (e_g2, e_delta2), or None if they are not shown."""
        show = getattr(self.it, "accumulators", None)
        pair = show(handle) if callable(show) else None
        if pair is not None and not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise TypeError(f"accumulators() returned {pair!r:.200}: it must be a pair of dicts, or None.")
        return None if pair is None else tuple(arrays(tree, "accumulators()") for tree in pair)

    @cached_property
    def shows(self):
        """Whether accumulators are shown."""
        handle = self.start({"w": np.ones(1, np.float32)}, lr=1.0, rho=0.9, eps=1e-6)
        return self.accumulators(handle) is not None


def arrays(tree, what):
    """Return copies of the arrays in `tree`: an implementation may still write to its own."""
    if not hasattr(tree, "items"):
        raise TypeError(f"{what} returned {tree!r:.200}: it must be a dict of arrays by name.")
    return {str(name): np.array(x) for name, x in tree.items()}


def installed(package):
    for name in (package, f"{package}-cpu"):  # tensorflow has two names
        try:
            return version(name)
        except PackageNotFoundError:
            pass
    return None


@lru_cache
def load(target):
    """Return the :class:`Subject` called `target`: a known name, ``module:Object`` or ``path/to/file.py:Object``."""
    if target in KNOWN:
        module, factory, packages = KNOWN[target]
        try:
            return Subject(target, getattr(import_module(f"{__name__}.{module}"), factory)(), packages)
        except ImportError as error:
            wanted = (error.name or packages[0]).partition(".")[0]
            raise UsageError(f"{target} cannot be imported here ({error}): pip install {wanted}") from error
    place, _, wanted = target.rpartition(":")
    if not place:
        raise UsageError(
            f"no implementation is named {target!r}: choose from {', '.join(KNOWN)}, or give module:Object or"
            " path/to/file.py:Object."
        )
    try:
        found = module_at(place)
        for name in wanted.split("."):
            found = getattr(found, name)
    except (Exception, SystemExit) as error:
        raise UsageError(f"{target} cannot be imported: {type(error).__name__}: {error}") from error
    if inspect.isclass(found) and hasattr(found, "register_trainable_weights"):
        from .brainstate import BrainstateAdadelta

        return Subject(target, BrainstateAdadelta(wanted, found))
    try:
        return Subject(target, found() if inspect.isclass(found) else found)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{target}() cannot be made: {type(error).__name__}: {error}") from error


def module_at(place):
    """Return the module with the name `place`, or the one in the file `place`."""
    if not place.endswith(".py"):
        if "" not in sys.path:
            sys.path.insert(0, "")
        return import_module(place)
    path = Path(place).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # for modules beside it
    spec = spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
