"""What known implementations do otherwise: one commented file each, strict both ways for the versions it names."""

import tomllib
from importlib.resources import files
from typing import NamedTuple


class Entry(NamedTuple):
    """A known deviation: the tests that must fail, and why."""

    test: str  # the clause and the name of its test: "X1_overflow"
    name: str  # one word for it
    what: str
    link: str = ""
    where: str = ""  # only the variants of the test whose id contains this


class Ledger(NamedTuple):
    """All that is known of one implementation."""

    versions: dict[str, list[str]]  # package: the versions for which the ledger is strict
    entries: list[Entry]

    def pinned(self, versions):
        """Say whether these `versions` of its packages are those for which the ledger was made."""
        return all(versions.get(package) in known for package, known in self.versions.items())

    def entry(self, test, node):
        """Return the entry for the test function `test` in the variant `node`, or None."""
        return next((e for e in self.entries if e.test == test and all(w in node for w in e.where.split())), None)


def read(name):
    """Return the :class:`Ledger` of the implementation `name`, or None."""
    path = files(__name__) / f"{name}.toml"
    if not name.replace("_", "").replace("-", "").isalnum() or not path.is_file():
        return None
    page = tomllib.loads(path.read_text("utf-8"))
    return Ledger(page.get("versions", {}), [Entry(**entry) for entry in page.get("deviation", [])])
