"""Find an implementation by its name: a known one, or any other that can be imported."""

import inspect
import sys
import traceback
from functools import cached_property, lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec, module_from_spec, spec_from_file_location
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
    "pytorch_optimizer": ("pytorch_optimizer", "PytorchOptimizer", ("pytorch_optimizer", "torch")),
    "mlx": ("mlx", "Mlx", ("mlx",)),
    "paddle": ("paddle", "Paddle", ("paddlepaddle",)),
    "brainpy": ("brainpy", "Brainpy", ("brainpy", "jax")),
    "pymc": ("pymc", "Pymc", ("pymc", "pytensor")),
    "climin": ("climin", "Climin", ("climin",)),
    "tfjs": ("programs", "tfjs", ()),
    "cpp": ("programs", "cpp", ()),
}
DEFAULT = ["braintools_adadelta", "braintools"]  # what is judged when no name is given
OPTIONS = ("weight_decay", "grad_clip_norm", "grad_clip_value")
# What an implementation may offer beyond the equations in float32. `ALWAYS` is judged without being named, too.
OFFERS = {*OPTIONS, "float16", "bfloat16", "float64", "complex64", "complex128"}
ALWAYS = {"float32", "lr", "set_lr", "accumulators"}
# What every implementation is asked for, unless it says that it has nothing of the kind.
LACKS = {"lr": "no lr", "scalars": "no parameters without axes", "empty": "no empty parameters"}


PROGRAM = "run:"  # what follows is the command line of a program that speaks the protocol


class UsageError(Exception):
    """The implementation that was asked for cannot be judged."""


class Crash(Exception):
    """A method of an implementation raised an exception, whatever its kind."""


def names_of(target, it, member, allowed, why):
    """Return the set `member` of `it`, or raise a UsageError if it has other names than the `allowed` ones."""
    found = getattr(it, member, None) or ()
    if isinstance(found, str) or not {*found} <= {*allowed}:
        raise UsageError(
            f"{target}: {member} = {found!r} is not allowed: it must be a {type(allowed).__name__} with names among"
            f" {', '.join(sorted(allowed))} ({why})."
        )
    return found


class Subject:
    """An implementation as the judge sees it: with every member, with its options filled in, with arrays of numpy.

    What an implementation raises arrives as a :class:`Crash`: SystemExit and pytest's own outcomes end no test run.
    """

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
        why = "options that are not in it are not judged"
        self.supports = frozenset(names_of(target, it, "supports", OFFERS | ALWAYS, why)) - ALWAYS
        self.lacks = frozenset(names_of(target, it, "lacks", {*LACKS}, "what it does not have, and is not judged by"))
        self.defaults = dict(names_of(target, it, "defaults", SIGNATURE, "the defaults that its users meet"))
        if "bfloat16" in self.supports and find_spec("ml_dtypes") is None:
            raise UsageError(f"{target} supports bfloat16, which needs ml_dtypes here: pip install ml_dtypes")
        self.sets_lr = callable(getattr(it, "set_lr", None)) and "lr" not in self.lacks
        self.failed = False
        self.found = {}  # runs that several clauses use

    @property
    def versions(self):
        """The versions of the packages that it uses."""
        return {name: installed(name) for name in self.packages} or dict(getattr(self.it, "versions", None) or {})

    def call(self, method, *arguments, **options):
        """Call a method of the implementation."""
        try:
            return getattr(self.it, method)(*arguments, **options)
        except BaseException as error:
            raise Crash(f"{method}() raised {type(error).__name__}: {error}\n({place_of(error)})") from error

    def start(self, params, **options):
        offered = {name: SIGNATURE[name] for name in OPTIONS if name in self.supports} | options
        return self.call("start", params, **{k: v for k, v in offered.items() if k not in self.lacks})

    def step(self, handle, grads):
        return self.call("step", handle, grads)

    def set_lr(self, handle, lr):
        return self.call("set_lr", handle, lr)

    def params(self, handle):
        return arrays(self.call("params", handle), "params()")

    def accumulators(self, handle):
        """Return copies of (e_g2, e_delta2), or None if they are not shown."""
        pair = self.call("accumulators", handle) if callable(getattr(self.it, "accumulators", None)) else None
        if pair is not None and not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise Crash(f"accumulators() returned {pair!r:.200}: it must be a pair of dicts, or None.")
        return None if pair is None else tuple(arrays(tree, "accumulators()") for tree in pair)

    @cached_property
    def shows(self):
        """Whether accumulators are shown."""
        handle = self.start({"w": np.ones(1, np.float32)}, lr=1.0, rho=0.9, eps=1e-6)
        return self.accumulators(handle) is not None


def place_of(error):
    """Say where an exception was raised: the file, below where it is installed, the line and the function."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    path = last.filename.removeprefix(f"{Path(__file__).parents[3]}/").rpartition("site-packages/")[2]
    return f"{path}:{last.lineno}, in {last.name}"


def arrays(tree, what):
    """Return copies of the arrays in `tree`: an implementation may still write to its own."""
    if not hasattr(tree, "items"):
        raise Crash(f"{what} returned {tree!r:.200}: it must be a dict of arrays by name.")
    try:
        return {str(name): np.array(x) for name, x in tree.items()}
    except BaseException as error:
        raise Crash(f"{what} returned what numpy cannot read: {type(error).__name__}: {error}") from error


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
    if target.startswith(PROGRAM):
        from .program import Program

        return Subject(target, Program(target.removeprefix(PROGRAM)))
    place, _, wanted = target.rpartition(":")
    if not place:
        raise UsageError(
            f"no implementation is named {target!r}: choose from {', '.join(KNOWN)}, or give module:Object,"
            " path/to/file.py:Object or 'run:COMMAND' (a program in any language)."
        )
    try:
        found = module_at(place)
        for name in wanted.split("."):
            found = getattr(found, name)
    except BaseException as error:
        raise UsageError(f"{target} cannot be imported: {type(error).__name__}: {error}") from error
    if inspect.isclass(found) and hasattr(found, "register_trainable_weights"):
        from .brainstate import BrainstateAdadelta

        return Subject(target, BrainstateAdadelta(wanted, found))
    try:
        return Subject(target, found() if inspect.isclass(found) else found)
    except UsageError:
        raise
    except BaseException as error:
        raise UsageError(f"{target}() cannot be made: {type(error).__name__}: {error}") from error


def module_at(place):
    """Return the module with the name `place`, or the one in the file `place`."""
    if not place.endswith(".py"):
        if "" not in sys.path:  # before what is installed, but behind the standard library
            sys.path.insert(next((k for k, x in enumerate(sys.path) if x.endswith("-packages")), len(sys.path)), "")
        return import_module(place)
    path = Path(place).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    # For modules beside it. Behind what is installed, because the file may be called like the framework that it adapts.
    sys.path += [folder for folder in (str(path.parent), str(Path.cwd())) if folder not in sys.path]
    name = f"adapter_in_{path.stem}"
    spec = spec_from_file_location(name, path)
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
