"""The command line of adadelta-conformance: read arguments, judge implementations, print and write the report."""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from braintools_adadelta.conformance import adapters, ledgers, report, runner
from braintools_adadelta.conformance.clauses import CLAUSES, LEVELS


def parser():
    p = argparse.ArgumentParser(
        prog="adadelta-conformance",
        description="Judge implementations of Adadelta, clause by clause, against the exact answer.",
        epilog="Exit status: 0 if all conform or deviate only as their ledgers say; 1 if one does not; 2 for a usage"
        " error, an implementation that cannot be loaded, and where nothing was judged; 130 if interrupted."
        " `adadelta-conformance init FILE` writes an adapter to start from: FILE ends in .py, .js or .cpp.",
    )
    default = " and ".join(adapters.DEFAULT)
    p.add_argument(
        "implementations",
        nargs="*",
        metavar="IMPLEMENTATION",
        help="a known name (--list), module:Object, path/to/file.py:Object, or 'run:COMMAND' for a program in any"
        f" language; default: {default}",
    )
    p.add_argument("--list", action="store_true", help="list the known implementations and exit")
    p.add_argument("--clauses", action="store_true", help="list the clauses and exit")
    p.add_argument("--clause", action="append", choices=list(CLAUSES), metavar="ID", help="judge by this clause only")
    p.add_argument("--level", action="append", choices=list(LEVELS), help="judge by the clauses of this level only")
    p.add_argument("--examples", type=positive, default=3, metavar="N", help="random runs for each test (default 3)")
    p.add_argument("--seed", type=natural, default=0, metavar="N", help="seed of the random runs (default 0)")
    p.add_argument("--json", metavar="FILE", help="write all results as JSON")
    p.add_argument("--junit", metavar="FILE", help="write JUnit XML")
    p.add_argument("--badge", metavar="FILE", help="write the verdict as JSON for a badge of shields.io")
    p.add_argument("--ledger", metavar="FILE", help="the known deviations of the one implementation that is judged")
    p.add_argument("--strict", action="store_true", help="exit with 1 for known deviations, too")
    p.add_argument(
        "--timeout",
        type=seconds,
        default=120.0,
        metavar="SECONDS",
        help="how long one test, or loading the implementation, may take (default 120)",
    )
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


def seconds(text):
    if not float(text) > 0:
        raise ValueError
    return float(text)


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


def init(file="adadelta_adapter.py", *more):
    """Write an adapter to start from: that of this suffix in the folder programs."""
    path = Path(file)
    source = files(__package__) / f"programs/adadelta{path.suffix}"
    if more or file.startswith("-") or not source.is_file():
        return usage(f"init writes one file, whose name ends in .py, .js or .cpp: {' '.join([file, *more])!r} is none")
    if path.exists() or not path.resolve().parent.is_dir():
        return usage(f"{file} exists already, or its folder does not")
    path.write_text(source.read_text("utf-8"), "utf-8")
    shell = {".js": f"'run:node {file}'", ".cpp": f"'run:./{path.stem}'"}.get(path.suffix, f"{file}:Adadelta")
    build = f"g++ -O2 -std=c++17 {file} -o {path.stem} && " if path.suffix == ".cpp" else ""
    print(f"{file} is a correct Adadelta: put yours in its place. To judge it:\n  {build}adadelta-conformance {shell}")
    return 0


class Progress:
    """A line on stderr, from the start on, that says what is judged and how far it is."""

    def __init__(self, verbose):
        self.verbose, self.shown, self.tty = verbose, None, sys.stderr.isatty()

    def __call__(self, judged, row=None):
        percent = 100 * judged.done // max(judged.total, 1)
        if self.verbose and row:
            why = f": {row['reason']}" if row["reason"] else ""
            print(
                f"{report.WORDS[row['status']]:6}{judged.target} {row['test']} {row['variant']}{why}", file=sys.stderr
            )
        elif self.tty and not self.verbose:
            now = f"{judged.now['test']} {judged.now['variant']}" if judged.now else "" if judged.total else "starting"
            bar = "#" * (percent // 5)
            print(f"\r[{bar:20}] {percent:3d}% {judged.target} {now}\033[K", end="", file=sys.stderr, flush=True)
        elif (judged.target, percent // 10) != self.shown:
            print(f"{percent:3d}% {judged.target}", file=sys.stderr, flush=True)
            self.shown = judged.target, percent // 10

    def clear(self):
        if self.tty and not self.verbose:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def problem_of(options):
    """Return what is wrong with the arguments, or ""."""
    for file in (options.json, options.junit, options.badge):
        if file and (Path(file).is_dir() or not Path(file).resolve().parent.is_dir()):
            return f"{file} cannot be written: it is a folder, or its folder does not exist"
    if options.ledger:
        if len(options.implementations) != 1:
            return f"--ledger {options.ledger} is for one implementation: name it, and no other"
        try:
            ledgers.read_file(options.ledger, runner.test_names())
        except ValueError as error:
            return str(error)
    return ""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # no terminal is too poor for a report
    if arguments[:1] == ["init"]:
        return init(*arguments[1:])
    options = parser().parse_args(arguments)
    if options.list:
        return show_list() or 0
    if options.clauses:
        return show_clauses() or 0
    if problem := problem_of(options):
        return usage(problem)
    try:
        return judge_all(options)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


def judge_all(options):
    """Judge what was asked for, print and write the report, and return the exit status."""
    began, show = time.time(), Progress(options.verbose)
    targets = list(dict.fromkeys(options.implementations or adapters.DEFAULT))
    found = {target: runner.judge(target, options, show) for target in targets}
    show.clear()
    problems = [judged.problem for judged in found.values() if judged.problem]
    found = {target: judged for target, judged in found.items() if not judged.problem}
    if problems and (options.implementations or not found):
        return usage("\n".join(dict.fromkeys(problems)))
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    made = report.make(found, options)
    for row in made["implementations"].values():
        report.check_example(row, lambda snippet: runner.repeats(snippet, options.timeout))
    write(options.json, lambda: json.dumps(made, indent=1) + "\n")
    write(options.junit, lambda: report.junit(found))
    write(options.badge, lambda: json.dumps(report.badge(made)) + "\n")
    try:
        print(report.text(made, options.verbose))
        print(f"\n{sum(judged.done for judged in found.values())} tests in {time.time() - began:.0f} s", flush=True)
    except BrokenPipeError:  # the reader has seen enough: `| head`
        sys.stdout = open(os.devnull, "w")
    verdicts = {row["verdict"].partition(":")[0] for row in made["implementations"].values()}
    if "fails" in verdicts or (options.strict and "deviates as known" in verdicts):
        return 1
    return 2 if "is not judged" in verdicts else 0


def write(file, made):
    if file:
        Path(file).write_text(made(), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
