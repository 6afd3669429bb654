"""What is public says what it takes and gives; mypy judges the rest, in `make style`."""

import inspect
import runpy
from pathlib import Path

import pytest

from braintools_adadelta import Adadelta, LRScheduler

ROOT = Path(__file__).parent.parent


def functions_of(cls):
    """Yield the constructor, the public methods and the accessors of the properties of a class, by name."""
    ours = [one for one in cls.__mro__ if one.__module__.startswith("braintools_adadelta.")]
    for name, member in (pair for one in ours for pair in vars(one).items()):
        if not name.startswith("_") or name == "__init__":
            parts = [member.fget, member.fset] if type(member) is property else [member]
            yield from ((name, part) for part in parts if inspect.isfunction(part))


@pytest.mark.parametrize("cls", [Adadelta, LRScheduler])
def test_public_methods_have_types(cls):
    found = dict(functions_of(cls))
    assert len(found) > 10
    for name, function in found.items():
        _, *arguments = inspect.signature(function).parameters.values()  # without self
        bare = [x.name for x in arguments if x.annotation is inspect.Parameter.empty]
        assert not bare and "return" in function.__annotations__, f"{cls.__name__}.{name}: {bare or 'return'}"


def test_the_typed_program_runs(capsys):
    runpy.run_path(str(ROOT / "examples/typed.py"), run_name="__main__")
    assert capsys.readouterr().out.splitlines()[-1].startswith("3 steps, lr [0.25]")
