"""A class that is written in layers, seen in one piece."""

from types import FunctionType
from typing import TypeVar

Class = TypeVar("Class", bound=type)


def in_one_piece(cls: Class) -> Class:
    """Give the class `cls` what its first base and the layers below that have, as if it had been written there.

    Otherwise Python's messages, help and pickled methods would name layers, which are nobody's business.
    """
    for layer in cls.__bases__[0].__mro__[:-1]:
        for name, member in vars(layer).items():
            if name in vars(cls) or (name.startswith("__") and not isinstance(member, FunctionType | property)):
                continue
            setattr(cls, name, member)
            for part in (member.fget, member.fset) if isinstance(member, property) else (member,):
                if getattr(part, "__qualname__", "").startswith(f"{layer.__qualname__}."):
                    part.__qualname__, part.__module__ = f"{cls.__qualname__}.{part.__name__}", cls.__module__
    return cls
