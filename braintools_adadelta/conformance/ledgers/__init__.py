"""The known deviations: one file for each known implementation, strict both ways for the versions that it names."""

import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple


NPM = "npm:"  # before a requirement that npm installs, not pip


class Entry(NamedTuple):
    """A known deviation: the tests that must fail, and why."""

    test: str  # a regular expression for the names of tests, which begin with the clause: "X1_norm"
    name: str  # a short name for it
    what: str
    link: str = ""
    where: str = ""  # a regular expression: only the variants of the test whose id has it
    versions: tuple = ()  # of the package; without it, all
    bug: str = ""  # the bug of the corpus that it is


class Ledger(NamedTuple):
    """All that is known of one implementation."""

    package: str
    versions: tuple  # those for which it is strict, the newest first
    entries: tuple
    distribution: str = ""  # what to install, if its name is not that of the package
    beside: tuple = ()  # other requirements with which the ledger was made
    npm: bool = False  # it is a package of npm

    def pinned(self, versions):
        """Say whether the ledger was made for these `versions`; one that names none holds for all."""
        return not self.versions or public(versions.get(self.package)) in self.versions

    def entry(self, test, node, versions):
        """Return the entry for the test function `test` in the variant `node`, or None."""
        version = public(versions.get(self.package))
        version = version if version in self.versions else next(iter(self.versions), None)
        fits = lambda e: (
            re.fullmatch(e.test, test) and re.search(e.where, node) and (not e.versions or version in e.versions)
        )
        return next(filter(fits, self.entries), None)

    def requirements(self):
        """Return what must be installed to judge each of its versions: a tuple for each, the newest first."""
        if self.npm:
            return [(f"{NPM}{self.package}@{version}",) for version in self.versions]
        return [(f"{self.distribution or self.package}=={version}", *self.beside) for version in self.versions]


def public(version):
    """Return a version without its local part: 2.13.0+cpu is 2.13.0."""
    return version and version.partition("+")[0]


def read(name):
    """Return the :class:`Ledger` of the known implementation `name`, or None."""
    path = files(__name__) / f"{name}.toml"
    if not name.replace("_", "").replace("-", "").isalnum() or not path.is_file():
        return None
    page = tomllib.loads(path.read_text("utf-8"))
    return read(page["same_as"]) if "same_as" in page else made(page)


def read_file(path, tests=()):
    """Return the ledger in a file of one's own. `tests` are the names that an entry may have."""
    try:
        ledger = made(tomllib.loads(Path(path).read_text("utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is no ledger: {type(error).__name__}: {error}") from error
    for entry in ledger.entries:
        if not any(re.fullmatch(entry.test, test) for test in tests):
            raise ValueError(f"{path}: no test is named {entry.test!r}: a report names its tests, such as {tests[0]!r}")
    return ledger


def made(page):
    """Return the ledger that a page of TOML is. One for an implementation of one's own may lack a package."""
    entries = tuple(Entry(**entry) for entry in page.get("deviation", []))
    for entry in entries:
        re.compile(entry.where), re.compile(entry.test)
    more = {
        "npm": page.get("npm", False),
        "distribution": page.get("distribution", ""),
        "beside": tuple(page.get("beside", ())),
    }
    return Ledger(page.get("package", ""), tuple(page.get("versions", ())), entries, **more)
