"""Does a test fail when one place of the package is wrong? Change each place in turn and run the tests.

Each constant, operator, comparison, condition, negation and pair of arguments in the modules that compute is
changed in a copy of the module. The run prints each mutant that no test notices. tools/equivalent_mutants.txt must say
why such a mutant does no harm, or the run fails. A mutant that is listed there is tried with the first tests only.
What was noticed is kept in build/mutants.json, and not tried again as long as the module is the same. So a run that was
stopped goes on; --anew forgets it.
(Ready-made tools change the files in place. Editable installs, generated modules and tests in subprocesses do not
allow that here.)
"""

import argparse
import ast
import copy
import hashlib
import importlib
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from tqdm import tqdm

ROOT = Path(__file__).parent.parent
MODULES = "arithmetic", "equations", "transform", "leaf"
# First those that are nearest, then others for what is still alive. Not test_sync, which would notice everything.
NUMBERS = "step", "worst_cases", "exhaustive", "bounds"
FIRST = {
    "arithmetic": NUMBERS,
    "equations": NUMBERS,
    "transform": ("transform", "step", "lowering"),
    "leaf": ("special_parameters", "step"),
}
THEN = (
    "special_parameters", "groups", "registering", "updating", "hyperparameters", "learning_rate", "transform",
    "layouts", "lowering", "bounds", "derivatives", "checkpoints", "interop", "properties", "cost",
    "donation_and_interruption", "copying",
)  # fmt: skip
LOADED = "jax.numpy", "optax", "brainstate", "braintools", "hypothesis", "mpmath", "flint", "pytest"
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
COMPARISONS = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
NAMES = {
    "minimum": "maximum",
    "maximum": "minimum",
    "max": "min",
    "abs": "negative",
    "isfinite": "isnan",
    "sqrt": "square",
}
SYMMETRIC = "minimum", "maximum", "result_type", "promote_types", "wider"


def changes(node):
    """Yield functions that each change a copy of `node` in one way: in place, or by returning a part of it."""
    match node:
        case ast.Constant(value=bool()):
            yield lambda n: setattr(n, "value", not n.value)
        case ast.Constant(value=int() | float()):
            yield lambda n: setattr(n, "value", n.value + 1)
            if node.value not in (0, 1):
                yield lambda n: setattr(n, "value", n.value * 1.001)
        case ast.BinOp() if type(node.op) in OPERATORS:
            yield lambda n: setattr(n, "op", OPERATORS[type(n.op)]())
            if isinstance(node.op, (ast.Add, ast.Mult)):
                yield lambda n: n.left
                yield lambda n: n.right
        case ast.UnaryOp():
            yield lambda n: n.operand
        case ast.Compare():
            for op in COMPARISONS.get(type(node.ops[0]), ()):
                yield lambda n, op=op: setattr(n, "ops", [op()])
        case ast.IfExp():
            yield lambda n: n.body
            yield lambda n: n.orelse
        case ast.If():
            yield lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))
        case ast.Call():
            symmetric = ast.unparse(node.func).split(".")[-1] in SYMMETRIC
            for i in range(0 if symmetric else len(node.args) - 1):
                if not any(isinstance(a, ast.Starred) for a in node.args[i : i + 2]):
                    yield lambda n, i=i: n.args.insert(i, n.args.pop(i + 1))
            if isinstance(node.func, ast.Attribute) and node.func.attr in NAMES:
                yield lambda n: setattr(n.func, "attr", NAMES[n.func.attr])
            if isinstance(node.func, ast.Attribute) and node.func.attr == "astype":
                yield lambda n: n.func.value
        case ast.Tuple(ctx=ast.Load()) if len(node.elts) > 1:
            yield lambda n: n.elts.insert(0, n.elts.pop(1))


class Replace(ast.NodeTransformer):
    def __init__(self, target, new):
        self.target, self.new = target, new

    def visit(self, node):
        return self.new if node is self.target else super().generic_visit(node)


def annotations_of(node):
    """Return the types that `node` states, of which no test can notice a change."""
    return [x for x in (getattr(node, "annotation", None), getattr(node, "returns", None)) if x]


def mutants(module):
    """Yield (name, source) for each mutant of a module."""
    text = (ROOT / f"braintools_adadelta/{module}.py").read_text()
    count = len([1 for node in ast.walk(ast.parse(text)) for _ in changes(node)])
    for k in range(count):
        tree = ast.parse(text)
        node, change = [(node, change) for node in ast.walk(tree) for change in changes(node)][k]
        if any(
            node in ast.walk(outside)
            for outside in tree.body
            if isinstance(outside, (ast.Assign, ast.Import, ast.ImportFrom)) or (isinstance(outside, ast.Expr))
        ):
            continue  # __all__ and imports
        if any(node in ast.walk(x) for outer in ast.walk(tree) for x in annotations_of(outer)):
            continue
        before = ast.unparse(node).splitlines()[0]
        new = copy.deepcopy(node)
        new = change(new) or new  # changed in place, or a part of it
        source = ast.unparse(ast.fix_missing_locations(Replace(node, new).visit(tree)))
        if ast.dump(ast.parse(source)) == ast.dump(ast.parse(text)):
            continue  # two equal arguments, exchanged
        line = text.splitlines()[node.lineno - 1].strip()
        yield f"{module}:{node.lineno} {before}  ->  {ast.unparse(new).splitlines()[0]}  in  {line}", source


class Killer:
    """The first test that fails."""

    name = None

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.name = self.name or report.nodeid

    pytest_collectreport = pytest_runtest_logreport


def killer(task):
    """Run the first or the other tests with one module replaced, in a fork; return the one that fails."""
    (module, name, source), first = task
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for part in ("braintools_adadelta", "tests"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        for part in "docs", "examples", "tools", "pyproject.toml":
            (folder / part).symlink_to(ROOT / part)
        (folder / f"braintools_adadelta/{module}.py").write_text(source)
        os.chdir(folder)
        os.environ["PYTHONPATH"] = str(folder)
        sys.path.insert(0, str(folder))
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        names = FIRST[module] if first else [name for name in THEN if name not in FIRST[module]]
        tests = [f"tests/test_{test}.py" for test in names]
        if not first:
            tests += [f"braintools_adadelta/{module}.py", "braintools_adadelta/conformance/test_clauses.py"]
            tests += ["--adadelta-implementation=braintools_adadelta"]
        options, failed = ["-xq", "--assert=plain", "-p", "no:cacheprovider"], Killer()
        passed = pytest.main([*options, *tests], plugins=[failed]) == 0
        return task[0], None if passed else failed.name or "the import"


def survivors():
    """Return {mutant, without its line number: the reason why it is none}."""
    lines = (ROOT / "tools/equivalent_mutants.txt").read_text().splitlines()
    lines = [line.strip() for line in lines if line and not line.startswith("#")]
    return dict(zip(lines[::2], lines[1::2], strict=True))


class Noticed(dict):
    """{hash of the source of a mutant: the test that noticed it}, kept in a file."""

    path = ROOT / "build/mutants.json"

    def __init__(self, anew):
        super().__init__(json.loads(self.path.read_text()) if self.path.exists() and not anew else {})

    def add(self, mutant, test):
        self[digest(mutant)] = test
        self.write()

    def forget(self, test):
        for noticed in [key for key, name in self.items() if name == test]:
            del self[noticed]
        self.write()

    def write(self):
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(json.dumps(self, indent=1))


def digest(mutant):
    return hashlib.sha256(mutant[2].encode()).hexdigest()


def without_line(name):
    return name.split(":")[0] + " " + name.partition(" ")[2]


PAGE = """# What the tests notice

Made by `make mutants`: {modules} are changed in one place at a time, a constant, an operator, a
comparison, a condition, two arguments, and the tests run. Of {total} such mutants {killed} are noticed. The other
{alive} are none: they change nothing that is promised.

| mutant | why it is none |
| --- | --- |
{rows}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=MODULES, help=f"(default: {' '.join(MODULES)})")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="(default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="print the mutants and do nothing")
    parser.add_argument("--anew", action="store_true", help="forget what earlier runs have noticed")
    arguments = parser.parse_args()
    every = [(module, name, source) for module in arguments.modules for name, source in mutants(module)]
    if arguments.list:
        print(*(name for _, name, _ in every), sep="\n")
        return
    known = survivors()
    alive = unnoticed(every, known, Noticed(arguments.anew), arguments.jobs)
    report(arguments.modules, every, alive, known)


def unnoticed(every, known, noticed, jobs):
    """Return the names of the mutants that no test notices; add the others to `noticed`."""
    original = MODULES[0], "", (ROOT / f"braintools_adadelta/{MODULES[0]}.py").read_text()
    for package in LOADED:
        importlib.import_module(package)
    alive = [original, *(mutant for mutant in every if digest(mutant) not in noticed)]
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=1) as pool:
        for first in True, False:
            listed = [mutant for mutant in alive if not first and without_line(mutant[1]) in known]
            tried = sorted((mutant for mutant in alive if mutant not in listed), key=lambda mutant: mutant[1] != "")
            running = pool.imap_unordered(killer, [(mutant, first) for mutant in tried])
            alive = listed
            for mutant, test in tqdm(running, total=len(tried), unit="mutant"):
                if test is None:
                    alive = [*alive, mutant]
                    which = "first" if first else "other"
                    tqdm.write(f"passes the {which} tests: {mutant[1] or 'the package as it is'}")
                elif not mutant[1]:
                    noticed.forget(test)
                    raise SystemExit(f"{test} fails without any mutant: what it noticed is forgotten")
                else:
                    noticed.add(mutant, test)
    return sorted(name for _, name, _ in alive if name)


def report(modules, every, alive, known):
    """Print the mutants that are alive; fail if one has no reason, or a reason has no mutant; else write the page."""
    dead = len(every) - len(alive)
    reason = lambda name: known.get(without_line(name), "NO REASON IS GIVEN IN tools/equivalent_mutants.txt")
    print(f"{dead} of {len(every)} mutants are noticed; alive:")
    for name in alive:
        print(f"  {name}\n      {reason(name)}")
    left_over = {name for name in known if name.split()[0] in modules} - set(map(without_line, alive))
    for name in left_over:
        print(f"  {name}\n      IS NOTICED, OR IS NO MUTANT: TAKE IT OUT OF tools/equivalent_mutants.txt")
    if left_over or any(without_line(name) not in known for name in alive):
        sys.exit(1)
    if tuple(modules) == MODULES:
        cell = lambda text: text.replace("|", "\\|")
        rows = "\n".join(f"| `{cell(without_line(name))}` | {cell(reason(name))} |" for name in alive)
        counts = {"total": len(every), "killed": dead, "alive": len(alive)}
        page = PAGE.format(modules=", ".join(f"`{module}`" for module in MODULES), rows=rows, **counts)
        (ROOT / "docs/results/mutants.md").write_text(page)


if __name__ == "__main__":
    main()
