"""Implementations by name: the known ones, and any other that can be imported."""

import inspect
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

KNOWN = {"braintools_adadelta": "brainstate:ours", "braintools": "brainstate:original"}


def load(name):
    """Return the implementation called `name`: a known one, ``module:Object`` or ``path/to/file.py:Object``."""
    if name in KNOWN:
        module, factory = KNOWN[name].split(":")
        return getattr(import_module(f"{__name__}.{module}"), factory)()
    place, _, wanted = name.rpartition(":")
    if not place:
        raise ValueError(f"no implementation is named {name!r}: choose from {', '.join(KNOWN)}, or give module:Object.")
    if place.endswith(".py"):
        spec = spec_from_file_location(Path(place).stem, place)
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        module = import_module(place)
    found = getattr(module, wanted)
    return found() if inspect.isclass(found) else found
