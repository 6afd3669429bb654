"""Run the clause tests with pytest, in a process for each implementation, and keep what each test found."""

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import patch

import pytest

HERE = Path(__file__).parent
FILES = [HERE / "test_clauses.py", HERE / "test_objects.py"]
DEATHS = 10  # so often a process that dies is followed by another, which judges what is left


def test_names():
    """Return the names of all tests, such as E1_names."""
    return [name for file in FILES for name in re.findall(r"^def test_(\w+)\(", file.read_text("utf-8"), re.MULTILINE)]


def outcome(report, left):
    """Return the status of a test and the reason for it. `left` holds the properties that conftest.py attached."""
    reason = getattr(report, "wasxfail", "").removeprefix("reason: ")
    if report.skipped and reason:
        status = reason.partition(":")[0]
        return (status, reason) if status in ("range", "other") else ("known", reason)
    if report.skipped:
        reason = report.longrepr[2].removeprefix("Skipped: ")
        return ("lacks" if reason.startswith("lacks: ") else "not offered"), reason.removeprefix("lacks: ")
    if report.passed:
        return "pass", ""
    if "[XPASS(strict)]" in str(report.longrepr):
        return "fail", f"it no longer deviates: the ledger is stale ({report.longrepr})"
    return "fail", "" if "message" in left else str(report.longrepr)


class Collector:
    """A pytest plugin that keeps a row for each test, {implementation: {clause: rows}}, and tells it to somebody."""

    def __init__(self, targets, tell):
        self.rows, self.problems, self.tell = {target: {} for target in targets}, [], tell

    def pytest_collection_finish(self, session):
        self.tell(total=len(session.items))

    def pytest_collectreport(self, report):
        if report.failed:
            self.problems.append(str(report.longrepr))

    def pytest_runtest_logstart(self, nodeid):
        self.tell(begins=named(nodeid, self.rows))

    def pytest_runtest_logreport(self, report):
        if report.when == "teardown" or (report.when == "setup" and report.passed):
            return
        left = dict(report.user_properties)
        row = named(report.nodeid, self.rows)
        target = left.get("target") or row["target"]
        row = {k: v for k, v in row.items() if k != "target"}
        row["status"], row["reason"] = outcome(report, left)
        row["seconds"] = round(report.duration, 3)
        row |= {k: left[k] for k in ("ulps", "how", "message", "counterexample", "snippet") if left.get(k)}
        self.rows[target].setdefault(row["clause"], []).append(row)
        self.tell(row=row)


def named(nodeid, targets):
    """Return what the id of a test says: its clause, its name, its variant, and the implementation."""
    test, _, variant = nodeid.rpartition("::test_")[2].partition("[")
    target = next((t for t in targets if t in variant), next(iter(targets)))
    variant = variant.rstrip("]").replace(target, "").strip("-")
    return {"clause": test.split("_")[0], "test": test, "variant": variant, "target": target}


def collect(targets, options, more=(), tell=lambda **message: None):
    """Run the clause tests on `targets` in this process; return the :class:`Collector` and what prevented it, or "".

    `options` are those of the command line, `more` are further arguments for pytest.
    """
    collector = Collector(targets, tell)
    arguments = [*map(str, FILES), "-c", str(HERE / "pytest.ini")]
    arguments += [f"--rootdir={HERE}", f"--confcutdir={HERE}", "--import-mode=importlib"]
    for plugin in ("braintools_adadelta.conformance.plugin", "no:terminal", "no:cacheprovider", "no:doctest"):
        arguments += ["-p", plugin]
    arguments += [f"--adadelta-implementation={target}" for target in targets]
    arguments += [f"--adadelta-examples={options.examples}", f"--adadelta-seed={options.seed}"]
    arguments += [f"--adadelta-clause={clause}" for clause in options.clause or ()]
    arguments += [f"--adadelta-level={level}" for level in options.level or ()]
    arguments += [f"--adadelta-ledger={options.ledger}"] if options.ledger else []
    arguments += [f"--adadelta-skip={options.skip}"] if getattr(options, "skip", 0) else []
    arguments += ["--disable-plugin-autoload"]
    with patch.dict(os.environ):  # which are the caller's, too
        os.environ.pop("PYTEST_ADDOPTS", None)
        code = pytest.main([*arguments, *more], plugins=[collector])
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        return collector, "none of the chosen clauses is of a chosen level" if not getattr(options, "skip", 0) else ""
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return collector, "\n".join(collector.problems) or f"pytest ended with {code!r}"
    return collector, ""


class Judged:
    """What is known of one implementation: all rows so far, what it is, and what prevented the rest."""

    def __init__(self, target):
        self.target, self.rows, self.about, self.causes = target, {}, {}, {}
        self.problem = ""  # why nothing could be judged
        self.cut = ""  # why not everything was
        self.done, self.total, self.now = 0, 0, None

    def add(self, row):
        self.rows.setdefault(row["clause"], []).append(row)
        self.done, self.now = self.done + 1, None


def judge(target, options, show):
    """Judge one implementation in processes of their own. `show` is called with a :class:`Judged` as it grows.

    If a process dies in a test, this test has failed, and the next process goes on behind it. If a test takes longer
    than the time limit, it has failed, and nothing more is judged.
    """
    judged = Judged(target)
    show(judged)
    for _ in range(DEATHS):
        how, end = one_process(judged, options, show)
        if not end or judged.problem:
            break
        if judged.now is not None:
            row = {k: judged.now[k] for k in ("clause", "test", "variant")}
            judged.add(row | {"status": "fail", "reason": "", "seconds": 0, "how": how, "message": end})
            show(judged, row | {"status": "fail", "reason": end})
        if not judged.total:
            judged.problem = f"{target} cannot be loaded: {end}"
        if how == "hang" or judged.done >= judged.total:
            break
    if judged.done < judged.total:
        judged.cut = end or "the process ended before the last test"
    return judged


def repeats(snippet, timeout):
    """Run the code of an example in a process of its own. Return what it gives there, or "" if that is what it says."""
    code, _, got = snippet.rpartition("  # got ")
    before, _, shown = code.rpartition("print(")
    if not shown:
        return ""
    got = float(got.partition(", exactly")[0])
    code = f"{before}\nprint(*[float(x) for x in np.ravel({shown[:-1]})], sep=chr(10))"
    try:
        done = subprocess.run(python(code), capture_output=True, encoding="utf-8", errors="replace", timeout=timeout)
        numbers = [float(line) for line in done.stdout.splitlines()[-1000:]]
    except (subprocess.TimeoutExpired, ValueError, TypeError):
        return ""  # it prints something else
    if done.returncode or not numbers or any(x == got or (x != x and got != got) for x in numbers):
        return ""
    return f"not deterministic: in a process of its own, the same run gives {numbers}, and here it gave {got!r}"


def python(code):
    """Return the command that runs `code` as the judge's Python does, wherever it was started."""
    source = str(HERE.parent.parent)
    start = "" if "site-packages" in source else f"import sys; sys.path.insert(0, {source!r})\n"
    # -P: a file in the current folder may be called like a package that is needed.
    return [sys.executable, "-P", "-c", start + code]


def one_process(judged, options, show):
    """Start a process behind the tests that are done, and listen. Return how and why it ended early, or ("", "")."""
    wanted = {k: getattr(options, k) for k in ("examples", "seed", "clause", "level", "ledger")}
    command = python("from braintools_adadelta.conformance.worker import main; main()")
    command.append(json.dumps(wanted | {"target": judged.target, "skip": judged.done}))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", start_new_session=True)
    lines = queue.Queue()
    threading.Thread(target=forward, args=(process.stdout, lines), daemon=True).start()
    first = judged.total == 0
    try:
        while True:
            try:
                line = lines.get(timeout=options.timeout)
            except queue.Empty:
                return "hang", f"no answer within {options.timeout:g} s (--timeout sets this limit)"
            if not line:
                return "crash", ended(process.wait())
            message = json.loads(line)
            if "done" in message:
                return "", ""
            if "total" in message and first:
                judged.total = message["total"]
            judged.problem = message.get("problem", "")
            judged.about |= message.get("about", {})
            judged.causes |= message.get("causes", {})
            judged.now = message.get("begins", judged.now)
            if "row" in message:
                judged.add(message["row"])
            show(judged, message.get("row"))
    finally:
        kill(process)


def forward(lines, to):
    """Put each line into a queue, and an empty one at the end."""
    for line in lines:
        to.put(line)
    to.put("")


def ended(code):
    """Say how a process ended."""
    if code < 0:
        return f"the process was ended by {signal.Signals(-code).name}"
    return f"the process ended with exit code {code}"


def kill(process):
    """End a process and those that it started."""
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.kill()
    process.wait()
