"""What is public says what it takes and gives; mypy judges the rest, in `make style`."""

import inspect
import pickle
import re
import runpy
from pathlib import Path

import pytest

from braintools_adadelta import Adadelta, LRScheduler

ROOT = Path(__file__).parent.parent


def functions_of(cls):
    """Yield the constructor, the public methods and the accessors of the properties of a class, by name."""
    for name, member in vars(cls).items():
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


@pytest.mark.parametrize("cls", [Adadelta, LRScheduler])
def test_a_class_of_layers_is_seen_in_one_piece(cls):
    """In messages, in pickles, and on the page that lists what it has."""
    page = (ROOT / "docs/api/adadelta.md").read_text("utf-8")
    own = re.search(rf"(?s)autoclass:: {cls.__name__}\n(.*?)\n\.\. ", page)[1]
    listed = re.findall(r"   \.\. auto(?:method|property):: (\w+)", own)
    public = {name for name in vars(cls) if not name.startswith("_")} - {"graph_invisible_attrs"}
    assert set(listed) == public and len(listed) == len(public)
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        if name in public:
            assert method.__qualname__ == f"{cls.__name__}.{method.__name__}"
            assert pickle.loads(pickle.dumps(method)) is method
    with pytest.raises(TypeError, match=rf"^{cls.__name__}\.__init__\(\) got an unexpected keyword argument 'foo'"):
        cls(foo=1)


def test_the_typed_program_runs(capsys):
    runpy.run_path(str(ROOT / "examples/typed.py"), run_name="__main__")
    assert capsys.readouterr().out.splitlines()[-1].startswith("3 steps, lr [0.25]")
