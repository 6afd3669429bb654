"""Run the clause tests with pytest, show progress, and keep what each test found."""

import os
import sys
from pathlib import Path

import pytest

from braintools_adadelta.conformance.report import WORDS

HERE = Path(__file__).parent


def outcome(report, left):
    """Return the status of a test and the reason for it. `left` holds the properties that conftest.py attached."""
    reason = getattr(report, "wasxfail", "").removeprefix("reason: ")
    if report.skipped and reason:
        return "range" if reason.startswith("range") else "known", reason
    if report.skipped:
        return "not offered", report.longrepr[2].removeprefix("Skipped: ")
    if report.passed:
        return "pass", ""
    if "[XPASS(strict)]" in str(report.longrepr):
        return "fail", f"it no longer deviates: the ledger is stale ({report.longrepr})"
    return "fail", "" if "message" in left else str(report.longrepr)


class Collector:
    """A pytest plugin that shows progress and keeps a row for each test: {implementation: {clause: rows}}."""

    def __init__(self, targets, verbose):
        self.rows = {target: {} for target in targets}
        self.problems, self.verbose, self.done, self.total = [], verbose, 0, 0

    def pytest_collection_finish(self, session):
        self.total = len(session.items)

    def pytest_collectreport(self, report):
        if report.failed:
            self.problems.append(str(report.longrepr))

    def pytest_runtest_logreport(self, report):
        if report.when == "teardown" or (report.when == "setup" and report.passed):
            return
        self.done += 1
        test, _, variant = report.nodeid.rpartition("::")[2].partition("[")
        clause = test.split("_")[1]
        left = dict(report.user_properties)
        target = left.get("target") or next((t for t in self.rows if t in variant), next(iter(self.rows)))
        row = {"test": test.removeprefix("test_"), "variant": variant.rstrip("]").replace(target, "").strip("-")}
        row["status"], row["reason"] = outcome(report, left)
        row |= {k: left[k] for k in ("ulps", "message", "counterexample", "snippet") if left.get(k)}
        self.rows[target].setdefault(clause, []).append(row)
        self.show_progress(target, clause, row)

    def show_progress(self, target, clause, row):
        percent = 100 * self.done // max(self.total, 1)
        if self.verbose:
            line = f"{WORDS[row['status']]:6}{target} {row['test']} {row['variant']}"
            print(line + (f": {row['reason']}" if row["reason"] else ""), file=sys.stderr, flush=True)
        elif sys.stderr.isatty():
            print(f"\r{percent:3d}% {target} {clause}\033[K", end="", file=sys.stderr, flush=True)
        elif self.done == self.total or 10 * self.done // self.total > 10 * (self.done - 1) // self.total:
            print(f"{percent:3d}% {target} {clause}", file=sys.stderr, flush=True)


def run_clauses(targets, options, more=()):
    """Run the clause tests on `targets`; return the Collector and pytest's exit status.

    `options` are those of the command line, `more` are further arguments for pytest.
    """
    collector = Collector(targets, options.verbose)
    arguments = [str(HERE / "test_clauses.py"), str(HERE / "test_objects.py"), "-c", str(HERE / "pytest.ini")]
    arguments += [f"--rootdir={HERE}", f"--confcutdir={HERE}", "--import-mode=importlib"]
    for plugin in ("braintools_adadelta.conformance.plugin", "no:terminal", "no:cacheprovider", "no:doctest"):
        arguments += ["-p", plugin]
    arguments += [f"--implementation={target}" for target in targets]
    arguments += [f"--adadelta-examples={options.examples}", f"--adadelta-seed={options.seed}"]
    arguments += [f"--adadelta-clause={clause}" for clause in options.clause or ()]
    arguments += [f"--adadelta-level={level}" for level in options.level or ()]
    arguments += [f"--junitxml={Path(options.junit).resolve()}"] if options.junit else []
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.pop("PYTEST_ADDOPTS", None)
    code = pytest.main([*arguments, *more], plugins=[collector])
    if sys.stderr.isatty() and not options.verbose:
        print("\r\033[K", end="", file=sys.stderr)
    return collector, code
