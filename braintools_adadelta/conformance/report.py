"""What the tests found about each implementation: as data for --json, as JUnit XML, as a badge, and as text."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from xml.etree import ElementTree

import numpy as np

from braintools_adadelta.conformance import adapters, causes, ledgers
from braintools_adadelta.conformance.clauses import CLAUSES

# The worst status of its tests is that of the clause: worst first.
WORDS = {
    "fail": "FAIL",
    "known": "known",
    "range": "range",
    "other": "other",
    "pass": "pass",
    "lacks": "no",
    "not offered": "-",
}
OWN_WORDS = "crash", "hang", "varies"  # for failures that are no wrong number
LEGEND = (
    "pass   within rounding of the exact answer      FAIL   not within rounding, or against a rule\n"
    "known  deviates as its ledger says              crash  an exception, or the process ended; hang: no answer in time\n"
    "other  other defaults: shown, not judged        varies not deterministic\n"
    "range  deviates on extreme input: not judged    (E2)   fails too, but only because E2 does\n"
    "-      not offered, so not judged               no     its adapter says that it has nothing of the kind"
)


# ---------------------------------------------------------------------------------------------------------- as data


def make(found, options):
    """Return the report on implementations that were judged, {target: :class:`runner.Judged`}."""
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
        "implementations": {target: row_of(judged, options) for target, judged in found.items()},
    }


def own_version():
    try:
        return version("braintools_adadelta")
    except PackageNotFoundError:
        return "unknown"


def about(it):
    """Return what an implementation says of itself."""
    facts = {"name": it.name, "versions": it.versions, "supports": sorted(it.supports), "lacks": sorted(it.lacks)}
    return json.loads(json.dumps(facts, default=str))


def traits(it):
    """Return what an implementation is seen to do."""
    return {"shows_accumulators": shows(it), "subnormals": subnormals(it)}


def row_of(judged, options):
    """Return the part of the report that is about one implementation."""
    rows, about = judged.rows, {"name": judged.target, "versions": {}, "supports": [], "lacks": []} | judged.about
    clauses = {clause: clause_summary(rows[clause]) for clause in sorted(rows, key=list(CLAUSES).index)}
    failed = failed_tests(rows, "fail")
    for clause, cause in judged.causes.get("follows", {}).items():
        if clause in failed:
            clauses[clause]["follows"] = cause
    for clause, bugs in judged.causes.get("bugs", {}).items():
        clauses[clause]["bugs"] = bugs
    first = next((c for c in (judged.causes.get("lead"), causes.lead(failed)) if c in failed), None)
    return about | {
        "verdict": "fails" if judged.cut else verdict({row["status"] for row in clauses.values()}),
        "first": first,
        "cut": judged.cut,
        "note": note(judged.target, about["versions"], options.ledger),
        "clauses": clauses,
        "resolving": resolving(about["supports"], clauses),
    }


def check_example(row, repeats):
    """Where the first example cannot be repeated in another process, say so: `repeats` returns how it differs there."""
    found = row["clauses"].get(row["first"], {})
    if row["verdict"] == "fails" and found.get("snippet") and (other := repeats(found["snippet"])):
        found |= {"how": "varies", "message": f"{other} (random numbers, or a state outside of the handle)"}
        del found["snippet"]


def failed_tests(rows, *statuses):
    """Return {clause: names of its tests with one of the `statuses`, fail or known without any}."""
    wanted = statuses or ("fail", "known")
    failed = {clause: sorted({t["test"] for t in tests if t["status"] in wanted}) for clause, tests in rows.items()}
    return {clause: tests for clause, tests in failed.items() if tests}


def clause_summary(tests):
    """Return what the tests of one clause found."""
    statuses = {test["status"] for test in tests}
    status = next(s for s in WORDS if s in statuses)
    decisive = [test for test in tests if test["status"] == status]
    worst, room = {}, {}
    for test in tests:
        for field, (ulps, allowed) in test.get("ulps", {}).items():
            if test["status"] == "pass" and ulps >= worst.get(field, 0.0):
                worst[field], room[field] = ulps, allowed
    how = worst_how(decisive) if status == "fail" else ""
    shown = min(decisive, key=lambda t: (t.get("how", "rule") != how, "counterexample" not in t))
    out = {"status": status, "ulps": worst, "explained": room, "tests": len(tests)}
    if status == "fail":
        out |= {"how": how, "failed": sorted({test["test"] for test in decisive})}
        out["dtypes"] = {"failed": dtypes(decisive), "passed": dtypes(t for t in tests if t["status"] == "pass")}
    if status in ("fail", "known", "range"):
        out["variants"] = sorted(f"{test['test']}[{test['variant']}]" for test in decisive)
    return out | {
        **{k: shown[k] for k in ("reason", "message", "counterexample", "snippet") if shown.get(k)},
        "known": sorted({test["reason"] for test in tests if test["status"] in ("known", "other", "lacks")}),
    }


def worst_how(tests):
    """Return one word for how tests failed. A wrong number says more than what may come of an odd name or shape."""
    found = {test.get("how", "rule") for test in tests}
    return next(how for how in ("hang", "varies", "wrong number", "crash", "rule") if how in found)


def dtypes(tests):
    """Return the precisions in which these tests ran."""
    known = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
    return (
        [dtype for dtype in known if any(dtype in test["variant"].split("-") for test in tests)]
        if (tests := list(tests))
        else []
    )


def verdict(statuses):
    """Return what the statuses of all clauses come to."""
    if statuses <= {"not offered", "lacks"}:
        return "is not judged: nothing that was asked for is offered"
    return "fails" if "fail" in statuses else "deviates as known" if "known" in statuses else "conforms"


def note(target, versions, file):
    """Say where a ledger was made for other versions than the installed one."""
    ledger = ledgers.read(target) if target in adapters.KNOWN and not file else None
    if not ledger or ledger.pinned(versions):
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


def read_corpus():
    """Return the corpus, and why it cannot be read."""
    file = files(__package__) / "corpus.json"
    try:
        return json.loads(file.read_text("utf-8")), ""
    except (OSError, ValueError) as error:
        return {}, f"corpus.json cannot be read ({error}): install braintools_adadelta again"


def resolving(supports, clauses):
    """Say which bugs of the corpus these clauses, dtypes and options can tell from the spec."""
    corpus, problem = read_corpus()
    judged = {clause for clause, row in clauses.items() if row["status"] not in ("not offered", "lacks")}
    told, blind = [], {}
    for bug, entry in corpus.items():
        lacks = [x for x in entry["needs"] if x not in supports]
        if lacks:
            blind[bug] = f"{', '.join(lacks)} not offered"
        elif not judged & set(entry["clauses"]):
            blind[bug] = f"{' and '.join(entry['clauses'])} not judged"
        else:
            told.append(bug)
    return {"told": len(told), "blind": blind} | ({"problem": problem} if problem else {})


# ---------------------------------------------------------------------------------------- for continuous integration


def junit(found):
    """Return JUnit XML on {target: :class:`runner.Judged`}: a suite for each implementation, with its versions."""
    suites = ElementTree.Element("testsuites")
    for target, judged in found.items():
        rows = [row for tests in judged.rows.values() for row in tests]
        failures, skipped = (sum(row["status"] in some for row in rows) for some in (["fail"], SKIPPED))
        counts = {"tests": str(len(rows)), "failures": str(failures), "skipped": str(skipped), "errors": "0"}
        suite = ElementTree.SubElement(suites, "testsuite", name=f"adadelta {printable(target)}", **counts)
        properties = ElementTree.SubElement(suite, "properties")
        for name, value in (judged.about.get("versions") or {}).items():
            ElementTree.SubElement(properties, "property", name=f"version of {name}", value=printable(str(value)))
        for row in rows:
            name = f"{row['test']}[{row['variant']}]" if row["variant"] else row["test"]
            case = ElementTree.SubElement(
                suite, "testcase", classname=printable(target), name=name, time=str(row["seconds"])
            )
            if row["status"] == "fail":
                why = row.get("message") or row["reason"]
                fault = ElementTree.SubElement(case, "failure", type=row.get("how", "rule"), message=printable(why))
                fault.text = printable("\n".join([row.get("counterexample", ""), row.get("snippet", "")]))
            elif row["status"] in SKIPPED:
                ElementTree.SubElement(case, "skipped", message=printable(row["reason"]))
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


SKIPPED = ("known", "range", "other", "lacks", "not offered")


def printable(text):
    """Return text without what XML cannot hold."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def badge(report):
    """Return what shields.io needs for a badge with the worst verdict."""
    verdicts = [row["verdict"].partition(":")[0] for row in report["implementations"].values()]
    colors = {
        "fails": "red",
        "is not judged": "lightgrey",
        "deviates as known": "yellowgreen",
        "conforms": "brightgreen",
    }
    worst = next(word for word in colors if word in verdicts)
    return {"schemaVersion": 1, "label": "Adadelta", "message": worst, "color": colors[worst]}


# ---------------------------------------------------------------------------------------------------------- as text


def text(report, verbose):
    """Return the report as text: what each implementation comes to, the table, then what else there is to say."""
    found = report["implementations"]
    parts = ["\n\n".join(headline(target, row) for target, row in found.items()), table(found)]
    return "\n\n".join([*parts, *(details(target, row, verbose) for target, row in found.items())])


def headline(target, row):
    """Return the verdict in a line; for one that fails, the first clause, an example and code that repeats it, too."""
    versions = ", ".join(f"{k} {v}" for k, v in row["versions"].items())
    line = f"{target}{f' ({versions})' if versions else ''}: {row['verdict']}"
    line += f"; it has {' and '.join(adapters.LACKS[name] for name in row['lacks'])}" if row["lacks"] else ""
    first = row["first"]
    if row["verdict"] != "fails" or not first:
        return line + (f" ({row['cut']})" if row["cut"] else "")
    found = row["clauses"][first]
    line += f" at {first} {CLAUSES[first].name}: {CLAUSES[first].statement}"
    return "\n".join([line, f"  {where(found)}", *example(found, True)])


LACKING = "an implementation that takes no such parameters says so: lacks = {'scalars', 'empty'}"


def where(found):
    """Say in which tests and precisions a clause failed, how, and which bug of the corpus it is."""
    failed, passed = found["dtypes"]["failed"], found["dtypes"]["passed"]
    fine = [dtype for dtype in passed if dtype not in failed]
    line = f"{found['how']} in {', '.join(failed) or 'every variant'}"
    line += f" ({', '.join(fine)} {'passes' if len(fine) == 1 else 'pass'})" if fine else ""
    hint = [LACKING] if found["how"] == "crash" and found["failed"][0].startswith("S4") else []
    return "; ".join([line, f"tests {', '.join(found['failed'])}", *bugs_of(found), *hint])


def bugs_of(found):
    """Say which bugs of the corpus a failure is."""
    corpus, _ = read_corpus()
    some = [f"{bug} ({corpus.get(bug, {}).get('what', '')})" for bug in found.get("bugs", ())[:3]]
    return [f"this is {' or '.join(some)}"] if some else []


def example(found, code):
    """Return the lines of the example of a failure, and those that repeat it."""
    lines = [indent(found["reason"])] if found.get("reason") else []
    if found.get("how") != "wrong number" or not found.get("counterexample"):
        lines.append(indent(found.get("message", "")[:2000]))
    if found.get("counterexample"):
        lines.append(indent("\n".join(shortened(line) for line in found["counterexample"].splitlines())))
    if found.get("snippet") and code:
        lines += ["  to reproduce:", indent(indent(found["snippet"]))]
    return lines


def shortened(line, most=400):
    return line if len(line) <= most else f"{line[:most]} ..."


def table(found):
    """Return implementations by clauses."""
    names = [clause for clause in CLAUSES if any(clause in row["clauses"] for row in found.values())]
    width = max([*map(len, found), 14])
    lines = []
    for k in range(0, len(names), 12):
        part = names[k : k + 12]
        head = "  worst error (explained by rounding)" if k == 0 else ""
        lines.append(" " * width + "".join(f"{name:>7}" for name in part) + head)
        for target, row in found.items():
            words = [word(row["clauses"].get(name, {"status": "not offered"})) for name in part]
            tail = f"  {worst_error(row['clauses'])}" if k == 0 else ""
            lines.append(f"{target:{width}}" + "".join(f"{w:>7}" for w in words) + tail)
        lines.append("")
    return "\n".join([*lines, LEGEND])


def word(found):
    """Return the word for a clause in the table."""
    if found["status"] == "fail":
        return f"({found['follows']})" if found.get("follows") else (found["how"] if found["how"] in OWN_WORDS else WORDS["fail"])
    return WORDS[found["status"]]


def worst_error(clauses):
    """Return the largest error of what passed, and how much of it rounding explains: errors add up from step to step."""
    found = [
        (ulps, row["explained"][field], clause)
        for clause, row in clauses.items()
        for field, ulps in row["ulps"].items()
    ]
    if not found:
        return ""
    ulps, allowed, clause = max(found)
    return f"{ulps:.3g} ({allowed:.3g}) ulps, {clause}"


def details(target, row, verbose):
    """Return what there is to say about one implementation beyond its headline."""
    lines = [f"{target}: {row['verdict']}"]
    lines.append(f"  float32 numbers below the normal range: {row.get('subnormals', 'not measured')}")
    lines += [f"  {row['note']}"] if row["note"] else []
    lines += [f"  not everything was judged: {row['cut']}"] if row["cut"] else []
    follow = {}
    for clause, found in row["clauses"].items():
        if found.get("follows"):
            follow.setdefault(found["follows"], []).append(clause)
    for cause, clauses in follow.items():
        lines.append(f"  look first at {cause}: {', '.join(clauses)} {'follows' if len(clauses) == 1 else 'follow'} from it; -v shows an example of each")
    lines += resolving_lines(row["resolving"], verbose)
    for clause, found in row["clauses"].items():
        lines += clause_lines(
            clause, found, verbose, brief=not verbose and (found.get("follows") or clause == row["first"])
        )
    return "\n".join(lines)


def resolving_lines(resolving, verbose):
    told, blind = resolving["told"], resolving["blind"]
    if resolving.get("problem"):
        return [f"  resolving power: not known, {resolving['problem']}"]
    lines = [f"  resolving power: {told} of the {told + len(blind)} bugs of the corpus would be told apart"]
    if verbose:
        lines += [f"    not {bug}: {why}" for bug, why in blind.items()]
    elif blind:
        first = {why: next(bug for bug, w in blind.items() if w == why) for why in sorted(set(blind.values()))}
        some = [f"{bug} ({why})" for why, bug in list(first.items())[:4]]
        lines.append(f"    not, for example: {', '.join(some)}; -v lists them all")
    return lines


def clause_lines(clause, found, verbose, brief):
    """Return what there is to say about one clause. `brief`: its failure is shown above, or follows from another."""
    status = found["status"]
    if status != "fail" and not (status in ("known", "range") and verbose):
        lines = [f"  {clause}: {reason}" for reason in found["known"]]
        if status == "range":
            shown = " ".join((found.get("counterexample") or found.get("message", "")).split())
            lines.append(f"  {clause}: extreme input: {shown[:300]}")
        return lines + ([f"    {line}" for line in bugs_of(found)] if status == "known" else [])
    if brief:
        return []
    title = f"{CLAUSES[clause].name}: {CLAUSES[clause].statement}"
    lines = ["", f"  {word(found)} {clause} {title}", *(f"    {reason}" for reason in found["known"])]
    lines += [f"    {where(found)}"] if status == "fail" else []
    return [*lines, *map(indent, example(found, True))]


def indent(text):
    return "\n".join("    " + line for line in str(text).splitlines())
