"""adadelta-conformance: judge implementations of Adadelta, clause by clause, and print what was found."""

import argparse
import json
import os
import platform
import re
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest

from braintools_adadelta.conformance import adapters, ledgers
from braintools_adadelta.conformance.clauses import CLAUSES, LEVELS

HERE = Path(__file__).parent
DEFAULT = ["braintools_adadelta", "braintools"]
WORDS = {"pass": "pass", "fail": "FAIL", "known": "known", "range": "range", "not offered": "-"}
# In this order a clause is tested with the help of those before it alone.
FLOW = ["S1", "E1", "E2", "E3", "E4", "S2", "L1", "G1", "G2", "G3", "G4", "X3", "S3", *(f"B{k}" for k in range(1, 10))]
MORE = []  # further arguments for pytest
MIXED = re.compile("_(names|share|long|large|unseen|stays|narrow)$")  # tests that any wrong equation fails, too
LEGEND = (
    "pass   within rounding of the exact answer      FAIL   not\n"
    "known  deviates as its ledger says              range  deviates on extreme input: reported, not judged\n"
    "-      not offered, so not judged"
)


def parser():
    p = argparse.ArgumentParser(
        prog="adadelta-conformance",
        description="Judge implementations of Adadelta, clause by clause, against the exact answer.",
        epilog="Exit status: 0 all conform, or deviate only as their ledgers say; 1 one does not; 2 usage error.",
    )
    p.add_argument(
        "implementations",
        nargs="*",
        metavar="IMPLEMENTATION",
        help="a known name (--list), module:Object or path/to/file.py:Object; default: " + " and ".join(DEFAULT),
    )
    p.add_argument("--list", action="store_true", help="list the known implementations and leave")
    p.add_argument("--clauses", action="store_true", help="list the clauses and leave")
    p.add_argument("--clause", action="append", choices=list(CLAUSES), metavar="ID", help="judge by this clause only")
    p.add_argument("--level", action="append", choices=list(LEVELS), help="judge by the clauses of this level only")
    p.add_argument("--examples", type=positive, default=3, metavar="N", help="random runs for each test (default 3)")
    p.add_argument("--seed", type=natural, default=0, metavar="N", help="where the random runs begin (default 0)")
    p.add_argument("--json", metavar="FILE", help="write everything that was found")
    p.add_argument("--junit", metavar="FILE", help="write JUnit XML")
    p.add_argument("--strict", action="store_true", help="exit 1 for known deviations, too")
    p.add_argument("-v", "--verbose", action="store_true", help="show each test, each known deviation and why")
    return p


def positive(text):
    if int(text) < 1:
        raise ValueError
    return int(text)


def natural(text):
    if int(text) < 0:
        raise ValueError
    return int(text)


class Collector:
    """A pytest plugin that shows progress and keeps what each test left behind."""

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
        node = report.nodeid.rpartition("::")[2]
        test, _, variant = node.partition("[")
        clause = test.split("_")[1]
        left = dict(report.user_properties)
        target = left.get("target") or next((t for t in self.rows if t in variant), next(iter(self.rows)))
        row = {"test": test.removeprefix("test_"), "variant": variant.rstrip("]").replace(target, "").strip("-")}
        reason = getattr(report, "wasxfail", "").removeprefix("reason: ")
        if report.skipped and reason:
            row["status"] = "range" if reason.startswith("range") else "known"
            row["reason"] = reason
        elif report.skipped:
            row["status"], row["reason"] = "not offered", report.longrepr[2].removeprefix("Skipped: ")
        elif report.passed:
            row["status"] = "pass"
        else:
            row["status"] = "fail"
            stale = "[XPASS(strict)]" in str(report.longrepr)
            row["reason"] = f"it no longer deviates: the ledger is stale ({report.longrepr})" if stale else ""
            if "message" not in left and not stale:
                row["reason"] = str(report.longrepr)
        row |= {k: left[k] for k in ("ulps", "message", "counterexample", "snippet") if left.get(k)}
        self.rows[target].setdefault(clause, []).append(row)
        self.progress(target, clause, row)

    def progress(self, target, clause, row):
        out = sys.stderr
        if self.verbose:
            words = f"{WORDS[row['status']]:6}{target} {row['test']} {row['variant']}"
            print(words + (f": {row['reason']}" if row.get("reason") else ""), file=out, flush=True)
        elif out.isatty():
            print(
                f"\r{100 * self.done // max(self.total, 1):3d}% {target} {clause}\033[K", end="", file=out, flush=True
            )
        elif self.done == self.total or 10 * self.done // self.total > 10 * (self.done - 1) // self.total:
            print(f"{100 * self.done // self.total:3d}% {target} {clause}", file=out, flush=True)


def judge(targets, options):
    """Run the clause tests on `targets`; return the Collector and pytest's exit status."""
    collector = Collector(targets, options.verbose)
    arguments = [str(HERE / "test_clauses.py"), str(HERE / "test_objects.py")]
    arguments += [
        "-c",
        str(HERE / "pytest.ini"),
        f"--rootdir={HERE}",
        "--import-mode=importlib",
        f"--confcutdir={HERE}",
    ]
    arguments += [
        "-p",
        "braintools_adadelta.conformance.plugin",
        "-p",
        "no:terminal",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:doctest",
    ]
    arguments += [f"--implementation={target}" for target in targets]
    arguments += [f"--adadelta-examples={options.examples}", f"--adadelta-seed={options.seed}"]
    arguments += [f"--adadelta-clause={clause}" for clause in options.clause or ()]
    arguments += [f"--adadelta-level={level}" for level in options.level or ()]
    arguments += MORE
    arguments += [f"--junitxml={Path(options.junit).resolve()}"] if options.junit else []
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.pop("PYTEST_ADDOPTS", None)
    code = pytest.main(arguments, plugins=[collector])
    if sys.stderr.isatty() and not options.verbose:
        print("\r\033[K", end="", file=sys.stderr)
    return collector, code


def settle(target, rows, corpus):
    """Return the part of the report that is about one implementation."""
    subject = adapters.load(target)
    clauses = {}
    for clause, tests in rows.items():
        statuses = {test["status"] for test in tests}
        status = next(s for s in ("fail", "known", "range", "pass", "not offered") if s in statuses)
        worst = {}
        for test in tests:
            if test["status"] == "pass":
                worst |= {k: max(v, worst.get(k, 0.0)) for k, v in test.get("ulps", {}).items()}
        shown = next((t for t in tests if t["status"] == status and t.get("counterexample")), None)
        shown = shown or next(t for t in tests if t["status"] == status)
        clauses[clause] = {
            "status": status,
            "ulps": worst,
            "tests": len(tests),
            **({"failed": sorted({t["test"] for t in tests if t["status"] == status})} if status == "fail" else {}),
            **{k: shown[k] for k in ("reason", "message", "counterexample", "snippet") if shown.get(k)},
            "known": sorted({t["reason"] for t in tests if t["status"] == "known"}),
        }
    statuses = {row["status"] for row in clauses.values()}
    verdict = "fails" if "fail" in statuses else "deviates as known" if "known" in statuses else "conforms"
    verdict = "is not judged: nothing that was asked for is offered" if statuses <= {"not offered"} else verdict
    ledger = ledgers.read(target) if target in adapters.KNOWN else None
    if ledger and not ledger.pinned(subject.versions):
        made = f"{ledger.package} {' or '.join(ledger.versions)}"
        note = f"its ledger was made for {made}: what it lists is excused here, and no more than that"
    else:
        note = ""
    return {
        "name": subject.name,
        "versions": subject.versions,
        "supports": sorted(subject.supports),
        "shows_accumulators": shows(subject),
        "subnormals": subnormals(subject),
        "verdict": verdict,
        "note": note,
        "clauses": dict(sorted(clauses.items(), key=lambda item: list(CLAUSES).index(item[0]))),
        "resolving": resolving(subject, clauses, corpus),
    }


def shows(subject):
    try:
        return subject.shows
    except Exception:
        return False


def subnormals(subject):
    """Say what becomes of a parameter below the normal range that has a gradient of zero. The bounds allow for both."""
    x = np.full(1, 2.0**-140, np.float32)
    try:
        handle = subject.step(subject.start({"w": x}, lr=1.0, rho=0.5, eps=1.0), {"w": 0 * x})
        return "kept" if subject.params(handle)["w"][0] == x[0] else "flushed to zero"
    except Exception:
        return "not measured"


def resolving(subject, clauses, corpus):
    """Say which bugs of the corpus these clauses, dtypes and options can tell from the spec."""
    judged = {clause for clause, row in clauses.items() if row["status"] != "not offered"}
    told, blind = [], {}
    for bug, entry in corpus.items():
        lacks = [x for x in entry["needs"] if x not in subject.supports]
        if lacks:
            blind[bug] = f"{', '.join(lacks)} not offered"
        elif not judged & set(entry["clauses"]):
            blind[bug] = f"{' and '.join(entry['clauses'])} not judged"
        else:
            told.append(bug)
    return {"told": len(told), "blind": blind}


def table(report):
    """Return implementations by clauses as text."""
    found = report["implementations"]
    names = [clause for clause in CLAUSES if any(clause in row["clauses"] for row in found.values())]
    width = max([*map(len, found), 14])
    lines = []
    for k in range(0, len(names), 12):
        part = names[k : k + 12]
        lines.append(" " * width + "".join(f"{name:>7}" for name in part) + ("  worst error" if k == 0 else ""))
        for target, row in found.items():
            words = [WORDS[row["clauses"].get(name, {}).get("status", "not offered")] for name in part]
            ulps = [x for clause in row["clauses"].values() for x in clause["ulps"].values()]
            tail = f"  {max(ulps):.3g} ulps" if ulps and k == 0 else ""
            lines.append(f"{target:{width}}" + "".join(f"{word:>7}" for word in words) + tail)
        lines.append("")
    return "\n".join([*lines, LEGEND])


def indent(text):
    return "\n".join("    " + line for line in str(text).splitlines())


def details(target, row, verbose):
    """Return what there is to say about one implementation."""
    versions = ", ".join(f"{k} {v}" for k, v in row["versions"].items())
    lines = ["", f"{target}{f' ({versions})' if versions else ''}: {row['verdict']}"]
    lines.append(f"  float32 numbers below the normal range: {row['subnormals']}")
    if row["note"]:
        lines.append(f"  {row['note']}")
    failed = [name for name in FLOW if row["clauses"].get(name, {}).get("status") == "fail"]
    own = [k for k in failed if not all(map(MIXED.search, row["clauses"][k]["failed"]))]
    lead = (own or failed)[0] if len(failed) > 1 else None
    if lead:
        others = ", ".join(name for name in failed if name != lead)
        lines.append(f"  look first at {lead}: the others ({others}) may follow from it; -v shows an example of each")
    blind = row["resolving"]["blind"]
    total = row["resolving"]["told"] + len(blind)
    if total:
        lines.append(
            f"  resolving power: {row['resolving']['told']} of the {total} bugs of the corpus would be told apart"
        )
        if verbose:
            lines += [f"    not {bug}: {why}" for bug, why in blind.items()]
        elif blind:
            first = {why: next(bug for bug, w in blind.items() if w == why) for why in sorted(set(blind.values()))}
            some = [f"{bug} ({why})" for why, bug in list(first.items())[:4]]
            lines.append(f"    not, for example: {', '.join(some)}; -v lists them all")
    for clause, found in row["clauses"].items():
        if found["status"] == "fail" or (found["status"] in ("known", "range") and verbose):
            tests = f" ({', '.join(found['failed'])})" if found.get("failed") else ""
            named = f"{WORDS[found['status']]} {clause}{tests} {CLAUSES[clause].name}: {CLAUSES[clause].statement}"
            if lead and clause != lead and not verbose:
                lines.append(f"  {named}")
                continue
            lines += ["", f"  {named}"]
            lines += [f"    {reason}" for reason in found["known"]]
            if found.get("reason") and found["status"] == "fail":
                lines.append(indent(found["reason"]))
            if found.get("counterexample"):
                lines.append(indent(found["counterexample"]))
            elif found.get("message"):
                lines.append(indent(found["message"][:2000]))
            if found.get("snippet") and (found["status"] == "fail" or verbose):
                lines += ["    to reproduce:", indent(indent(found["snippet"]))]
        elif found["known"]:
            lines += [f"  {clause}: {reason}" for reason in found["known"]]
        elif found["status"] == "range":
            lines.append(
                f"  {clause}: extreme input: {(found.get('counterexample') or found.get('message', ''))[:300]}"
            )
    return "\n".join(lines)


def show_list():
    for name, (_, _, packages) in adapters.KNOWN.items():
        here = ", ".join(f"{p} {adapters.installed(p) or 'not installed'}" for p in packages)
        print(f"{name:20} {here}")


def show_clauses():
    for name, clause in CLAUSES.items():
        print(f"{name:3} {clause.level:10} {clause.name}: {clause.statement}")
    print("\nlevels: " + "\n        ".join(f"{k}: {v}" for k, v in LEVELS.items()))


def own_version():
    try:
        return version("braintools_adadelta")
    except PackageNotFoundError:
        return "unknown"


def main(argv=None):
    options = parser().parse_args(argv)
    if options.list:
        return show_list()
    if options.clauses:
        return show_clauses()
    targets = list(dict.fromkeys(options.implementations or DEFAULT))
    for file in (options.json, options.junit):
        if file and (Path(file).is_dir() or not Path(file).resolve().parent.is_dir()):
            return usage(f"{file} cannot be written: it is a folder, or its folder is not there")
    loaded, problems = [], []
    for target in targets:
        try:
            adapters.load(target)
            loaded.append(target)
        except adapters.UsageError as error:
            problems.append(str(error))
    if problems and (options.implementations or not loaded):
        return usage("\n".join(problems))
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    began = time.time()
    collector, code = judge(loaded, options)
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        return usage("no clause is judged: none of those asked for is of the levels asked for")
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return usage("no clause was judged: " + ("\n".join(collector.problems) or f"pytest ended with {code}"))
    corpus_file = HERE / "corpus.json"
    corpus = json.loads(corpus_file.read_text("utf-8")) if corpus_file.is_file() else {}
    report = {
        "made_with": {
            "braintools_adadelta": own_version(),
            "python": platform.python_version(),
            "numpy": adapters.installed("numpy"),
            "mpmath": adapters.installed("mpmath"),
            "platform": f"{platform.system()} {platform.machine()}",
            "examples": options.examples,
            "seed": options.seed,
        },
        "implementations": {target: settle(target, collector.rows[target], corpus) for target in loaded},
    }
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(table(report))
    for target, row in report["implementations"].items():
        print(details(target, row, options.verbose))
    verdicts = {row["verdict"].partition(":")[0] for row in report["implementations"].values()}
    print(f"\n{collector.done} tests in {time.time() - began:.0f} s")
    if "fails" in verdicts or (options.strict and "deviates as known" in verdicts):
        return 1
    return 2 if "is not judged" in verdicts else 0


def usage(message):
    print(f"adadelta-conformance: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
