"""What the tests found about each implementation: as data for --json, and as text."""

import json
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

import numpy as np

from braintools_adadelta.conformance import adapters, ledgers
from braintools_adadelta.conformance.clauses import CLAUSES

# The worst status of its tests is that of the clause: worst first.
WORDS = {"fail": "FAIL", "known": "known", "range": "range", "pass": "pass", "not offered": "-"}
LEGEND = (
    "pass   within rounding of the exact answer      FAIL   not\n"
    "known  deviates as its ledger says              range  deviates on extreme input: reported, not judged\n"
    "-      not offered, so not judged"
)
# The order of the data flow: the test of a clause needs only the clauses before it.
FLOW = ["S1", "E1", "E2", "E3", "E4", "S2", "L1", "G1", "G2", "G3", "G4", "X3", "S3", *(f"B{k}" for k in range(1, 10))]
MIXED = re.compile("_(names|share|long|large|unseen|stays|narrow)$")  # any wrong equation fails these tests, too


# ---------------------------------------------------------------------------------------------------------- as data


def make(rows, options):
    """Return the report on {implementation: {clause: rows of the Collector}}."""
    file = files(__package__) / "corpus.json"
    corpus = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return {
        "made_with": {
            "braintools_adadelta": own_version(),
            "python": platform.python_version(),
            "numpy": adapters.installed("numpy"),
            "mpmath": adapters.installed("mpmath"),
            "platform": f"{platform.system()} {platform.machine()}",
            "examples": options.examples,
            "seed": options.seed,
        },
        "implementations": {target: about(target, clauses, corpus) for target, clauses in rows.items()},
    }


def own_version():
    try:
        return version("braintools_adadelta")
    except PackageNotFoundError:
        return "unknown"


def about(target, rows, corpus):
    """Return the part of the report that is about one implementation."""
    subject = adapters.load(target)
    clauses = {clause: clause_summary(rows[clause]) for clause in sorted(rows, key=list(CLAUSES).index)}
    return {
        "name": subject.name,
        "versions": subject.versions,
        "supports": sorted(subject.supports),
        "shows_accumulators": shows(subject),
        "subnormals": subnormals(subject),
        "verdict": verdict({row["status"] for row in clauses.values()}),
        "note": note(target, subject),
        "clauses": clauses,
        "resolving": resolving(subject, clauses, corpus),
    }


def clause_summary(tests):
    """Return what the tests of one clause found."""
    statuses = {test["status"] for test in tests}
    status = next(s for s in WORDS if s in statuses)
    decisive = [test for test in tests if test["status"] == status]
    worst = {}
    for test in tests:
        if test["status"] == "pass":
            worst |= {k: max(v, worst.get(k, 0.0)) for k, v in test.get("ulps", {}).items()}
    shown = next((test for test in decisive if test.get("counterexample")), decisive[0])
    return {
        "status": status,
        "ulps": worst,
        "tests": len(tests),
        **({"failed": sorted({test["test"] for test in decisive})} if status == "fail" else {}),
        **{k: shown[k] for k in ("reason", "message", "counterexample", "snippet") if shown.get(k)},
        "known": sorted({test["reason"] for test in tests if test["status"] == "known"}),
    }


def verdict(statuses):
    """Return what the statuses of all clauses come to."""
    if statuses <= {"not offered"}:
        return "is not judged: nothing that was asked for is offered"
    return "fails" if "fail" in statuses else "deviates as known" if "known" in statuses else "conforms"


def note(target, subject):
    """Say where a ledger was made for other versions than the installed one."""
    ledger = ledgers.read(target) if target in adapters.KNOWN else None
    if not ledger or ledger.pinned(subject.versions):
        return ""
    made = f"{ledger.package} {' or '.join(ledger.versions)}"
    return f"its ledger was made for {made}: the deviations that it lists are excused here, others are not"


def shows(subject):
    try:
        return subject.shows
    except Exception:
        return False


def subnormals(subject):
    """Say what a zero gradient does to a parameter below the normal range. The bounds allow for both."""
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


# ---------------------------------------------------------------------------------------------------------- as text


def text(report, verbose):
    """Return the report as text: the table, then what there is to say about each implementation."""
    found = report["implementations"]
    return "\n".join([table(found), *(details(target, row, verbose) for target, row in found.items())])


def table(found):
    """Return implementations by clauses."""
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


def details(target, row, verbose):
    """Return what there is to say about one implementation."""
    versions = ", ".join(f"{k} {v}" for k, v in row["versions"].items())
    lines = ["", f"{target}{f' ({versions})' if versions else ''}: {row['verdict']}"]
    lines.append(f"  float32 numbers below the normal range: {row['subnormals']}")
    lines += [f"  {row['note']}"] if row["note"] else []
    failed, lead = first_cause(row["clauses"])
    if lead:
        others = ", ".join(name for name in failed if name != lead)
        lines.append(f"  look first at {lead}: the others ({others}) may follow from it; -v shows an example of each")
    lines += resolving_lines(row["resolving"], verbose)
    for clause, found in row["clauses"].items():
        lines += clause_lines(clause, found, verbose, brief=lead and clause != lead and not verbose)
    return "\n".join(lines)


def first_cause(clauses):
    """Return the clauses that failed, in the order of the data flow, and the one to look at first if there are many."""
    failed = [name for name in FLOW if clauses.get(name, {}).get("status") == "fail"]
    own = [name for name in failed if not all(map(MIXED.search, clauses[name]["failed"]))]
    return failed, (own or failed)[0] if len(failed) > 1 else None


def resolving_lines(resolving, verbose):
    told, blind = resolving["told"], resolving["blind"]
    if not told and not blind:
        return []
    lines = [f"  resolving power: {told} of the {told + len(blind)} bugs of the corpus would be told apart"]
    if verbose:
        lines += [f"    not {bug}: {why}" for bug, why in blind.items()]
    elif blind:
        first = {why: next(bug for bug, w in blind.items() if w == why) for why in sorted(set(blind.values()))}
        some = [f"{bug} ({why})" for why, bug in list(first.items())[:4]]
        lines.append(f"    not, for example: {', '.join(some)}; -v lists them all")
    return lines


def clause_lines(clause, found, verbose, brief):
    """Return what there is to say about one clause. `brief`: its failure may follow from that of another."""
    status = found["status"]
    if status != "fail" and not (status in ("known", "range") and verbose):
        if found["known"]:
            return [f"  {clause}: {reason}" for reason in found["known"]]
        if status == "range":
            return [f"  {clause}: extreme input: {(found.get('counterexample') or found.get('message', ''))[:300]}"]
        return []
    tests = f" ({', '.join(found['failed'])})" if found.get("failed") else ""
    headline = f"  {WORDS[status]} {clause}{tests} {CLAUSES[clause].name}: {CLAUSES[clause].statement}"
    if brief:
        return [headline]
    lines = ["", headline, *(f"    {reason}" for reason in found["known"])]
    if found.get("reason") and status == "fail":
        lines.append(indent(found["reason"]))
    if found.get("counterexample"):
        lines.append(indent(found["counterexample"]))
    elif found.get("message"):
        lines.append(indent(found["message"][:2000]))
    if found.get("snippet"):
        lines += ["    to reproduce:", indent(indent(found["snippet"]))]
    return lines


def indent(text):
    return "\n".join("    " + line for line in str(text).splitlines())
