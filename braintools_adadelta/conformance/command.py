"""The command line of adadelta-conformance: read arguments, judge implementations, print and write the report."""

import argparse
import json
import sys
import time
from pathlib import Path

import pytest

from braintools_adadelta.conformance import adapters, report, runner
from braintools_adadelta.conformance.clauses import CLAUSES, LEVELS


def parser():
    p = argparse.ArgumentParser(
        prog="adadelta-conformance",
        description="Judge implementations of Adadelta, clause by clause, against the exact answer.",
        epilog="Exit status: 0 if all conform or deviate only as their ledgers say, 1 if one does not, 2 for a usage"
        " error and where nothing was judged.",
    )
    default = " and ".join(adapters.DEFAULT)
    p.add_argument(
        "implementations",
        nargs="*",
        metavar="IMPLEMENTATION",
        help=f"a known name (--list), module:Object or path/to/file.py:Object; default: {default}",
    )
    p.add_argument("--list", action="store_true", help="list the known implementations and exit")
    p.add_argument("--clauses", action="store_true", help="list the clauses and exit")
    p.add_argument("--clause", action="append", choices=list(CLAUSES), metavar="ID", help="judge by this clause only")
    p.add_argument("--level", action="append", choices=list(LEVELS), help="judge by the clauses of this level only")
    p.add_argument("--examples", type=positive, default=3, metavar="N", help="random runs for each test (default 3)")
    p.add_argument("--seed", type=natural, default=0, metavar="N", help="seed of the random runs (default 0)")
    p.add_argument("--json", metavar="FILE", help="write all results as JSON")
    p.add_argument("--junit", metavar="FILE", help="write JUnit XML")
    p.add_argument("--strict", action="store_true", help="exit with 1 for known deviations, too")
    p.add_argument(
        "-v", "--verbose", action="store_true", help="show each test, and the reason of each known deviation"
    )
    return p


def positive(text):
    if int(text) < 1:
        raise ValueError
    return int(text)


def natural(text):
    if int(text) < 0:
        raise ValueError
    return int(text)


def show_list():
    for name, (_, _, packages) in adapters.KNOWN.items():
        here = ", ".join(f"{p} {adapters.installed(p) or 'not installed'}" for p in packages)
        print(f"{name:20} {here}")


def show_clauses():
    for name, clause in CLAUSES.items():
        print(f"{name:3} {clause.level:10} {clause.name}: {clause.statement}")
    print("\nlevels: " + "\n        ".join(f"{k}: {v}" for k, v in LEVELS.items()))


def usage(message):
    print(f"adadelta-conformance: {message}", file=sys.stderr)
    return 2


def loadable(targets):
    """Return those of `targets` that can be loaded, and why the others cannot."""
    loaded, problems = [], []
    for target in targets:
        try:
            adapters.load(target)
            loaded.append(target)
        except adapters.UsageError as error:
            problems.append(str(error))
    return loaded, problems


def main(argv=None):
    options = parser().parse_args(argv)
    if options.list:
        return show_list()
    if options.clauses:
        return show_clauses()
    for file in (options.json, options.junit):
        if file and (Path(file).is_dir() or not Path(file).resolve().parent.is_dir()):
            return usage(f"{file} cannot be written: it is a folder, or its folder does not exist")
    targets, problems = loadable(dict.fromkeys(options.implementations or adapters.DEFAULT))
    if problems and (options.implementations or not targets):
        return usage("\n".join(problems))
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    began = time.time()
    collector, code = runner.run_clauses(targets, options)
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        return usage("no clause was judged: none of the chosen clauses is of a chosen level")
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return usage("no clause was judged: " + ("\n".join(collector.problems) or f"pytest ended with {code}"))
    made = report.make({target: collector.rows[target] for target in targets}, options)
    if options.json:
        Path(options.json).write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(report.text(made, options.verbose))
    print(f"\n{collector.done} tests in {time.time() - began:.0f} s")
    verdicts = {row["verdict"].partition(":")[0] for row in made["implementations"].values()}
    if "fails" in verdicts or (options.strict and "deviates as known" in verdicts):
        return 1
    return 2 if "is not judged" in verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
