"""The command: what it judges, prints and returns."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import hostile_adapters
import pytest
import wrong_optimizers

from braintools_adadelta.conformance import adapters, command, corpus, ledgers, plugin, report, runner
from braintools_adadelta.conformance.clauses import CLAUSES

HERE = Path(__file__).parent
CORPUS = "braintools_adadelta.conformance.corpus"
PROGRAMS = Path(runner.HERE) / "programs"


def run(*arguments):
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "braintools_adadelta.conformance", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=HERE)


def test_a_wrong_one_is_rejected_with_a_snippet_that_shows_it(tmp_path):
    target = f"{CORPUS}:LrInAccumulator"
    files = [tmp_path / name for name in ("out.json", "out.xml", "badge.json")]
    arguments = "--clause", "E3", "--examples", 1, "--junit", files[1], "--badge", files[2]
    done = run(target, *arguments, "--json", files[0])
    assert done.returncode == 1, done.stderr
    assert f"{target}: fails at E3" in done.stdout.splitlines()[0] and "100%" in done.stderr
    found = json.loads(files[0].read_text())["implementations"][target]
    assert found["verdict"] == "fails" and found["first"] == "E3" and found["clauses"]["E3"]["how"] == "wrong number"
    assert found["clauses"]["E3"]["dtypes"]["failed"] == ["float32", "float64"]
    assert found["clauses"]["E3"]["bugs"] == ["LrInAccumulator"] and "this is LrInAccumulator" in done.stdout
    example, snippet = found["clauses"]["E3"]["counterexample"], found["clauses"]["E3"]["snippet"]
    assert " => e_delta2 " in example and len(example.splitlines()) == 3
    assert snippet in "\n".join(line.strip() for line in done.stdout.splitlines()[:20])
    shown = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True)
    got = snippet.rpartition("# got ")[2].split(",")[0]
    assert float(shown.stdout.strip("[] \n")) == pytest.approx(float(got), rel=1e-6)
    suite = ElementTree.parse(files[1]).find("testsuite")
    failures = [case.find("failure").get("type") for case in suite if case.find("failure") is not None]
    assert len(failures) == int(suite.get("failures")) and {*failures} == {"wrong number"}
    assert json.loads(files[2].read_text())["message"] == "fails"


def test_a_right_one_is_accepted_and_the_report_says_what_it_cannot_tell():
    done = run(f"{CORPUS}:Hidden", "--clause", "E4", "--clause", "E1", "--examples", 1)
    assert done.returncode == 0, done.stdout
    assert "conforms" in done.stdout.splitlines()[0] and "resolving power" in done.stdout
    assert "not, for example: " in done.stdout and re.search(r"\d \([\d.e+]+\) ulps, E4", done.stdout)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nosuch"],
        [f"{CORPUS}:Nosuch"],
        ["nosuch.py:It"],
        ["run:nosuch"],
        ["run:true"],
        ["init", "nosuch/it.py"],
        ["init", "it.rs"],
        ["--ledger", "nosuch.toml", "optax"],
        ["json:loads"],
        ["--clause", "E9"],
        ["--bogus"],
        ["--examples", "0"],
    ],
    ids=" ".join,
)
def test_usage_errors(arguments):
    done = run(*arguments)
    named = arguments[-1 if arguments[0] != "--ledger" else 1].split(":")[-1 if arguments[0].startswith("run:") else 0]
    assert done.returncode == 2 and named in done.stderr and "Traceback" not in done.stderr


BROKEN = {
    "supports = {'weightdecay'}": "it must be a set with names among",
    "supports = 'float64'": "it must be a set with names among",
    "lacks = {'momentum'}": "it must be a set with names among",
    "defaults = {'epsilon': 1e-6}": "it must be a dict with names among",
    "raise SystemExit(0)": "cannot be imported: SystemExit",
    "import os; os._exit(0)": "cannot be loaded: the process ended with exit code 0",
}


def adapter(folder, line, name="it.py"):
    """Write an adapter that is right but for one line in its class; return what it is called."""
    (folder / name).write_text(f"from {CORPUS} import Hidden\n\n\nclass It(Hidden):\n    {line}\n")
    return f"{folder / name}:It"


@pytest.mark.parametrize("line", BROKEN)
def test_what_would_not_be_judged_is_a_usage_error(line, tmp_path):
    done = run(adapter(tmp_path, line), "--clause", "E1")
    assert done.returncode == 2 and BROKEN[line] in done.stderr


def test_sixteen_bits_need_ml_dtypes(monkeypatch):
    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    with pytest.raises(adapters.UsageError, match="pip install ml_dtypes"):
        adapters.Subject("it", corpus.Native())


def test_what_is_always_judged_may_be_named():
    names = {"float32", "float64", "set_lr", "lr", "accumulators"}
    assert adapters.Subject("it", type("It", (corpus.Numpy,), {"supports": names})()).supports == {"float64"}


def test_nothing_judged_is_no_success(tmp_path):
    done = run(f"{CORPUS}:Hidden", "--clause", "X3")
    assert done.returncode == 2 and "is not judged" in done.stdout
    assert run(f"{CORPUS}:Hidden", "--json", tmp_path).returncode == 2


CHOSEN = ["--clause", "E2", "--clause", "S4", "--examples", "1"]


HOSTILE = [
    pytest.param(cls, marks=pytest.mark.slow if cls in hostile_adapters.LIKE_OTHERS else (), id=cls.__name__)
    for cls in (*hostile_adapters.WRONG, *hostile_adapters.RIGHT)
]


@pytest.mark.parametrize("cls", HOSTILE)
def test_nothing_but_a_verdict_exits_with_success(cls, tmp_path):
    target, file = f"hostile_adapters.py:{cls.__name__}", tmp_path / "out.json"
    limit = 8 if cls is hostile_adapters.Hangs else 100
    done = run(target, *CHOSEN, "--timeout", limit, "--json", file)
    assert cls.says in done.stdout and done.returncode == (cls in hostile_adapters.WRONG), done.stdout
    clauses = json.loads(file.read_text())["implementations"][target]["clauses"]
    assert "S4" in clauses  # a partial report is one
    if cls is hostile_adapters.Falls:  # and what follows a crash is judged
        assert {k: row["status"] for k, row in clauses.items()} == {"E2": "pass", "S4": "fail"}


def test_a_crash_is_no_wrong_number_and_what_is_lacking_is_neither(tmp_path):
    options = "--clause", "S4", "--clause", "E1", "--examples", 1
    done = run(f"{CORPUS}:EmptyFails", *options)
    assert done.returncode == 1 and "crash in float32" in done.stdout and "corpus.py:" in done.stdout
    assert report.LACKING in done.stdout
    assert re.search("EmptyFails +pass +crash", done.stdout)
    (tmp_path / "it.py").write_text(f"from {CORPUS} import EmptyFails as E\nclass It(E):\n    lacks = {{'empty'}}\n")
    done = run(f"{tmp_path / 'it.py'}:It", *options)
    assert done.returncode == 0 and "conforms; it has no empty parameters" in done.stdout


@pytest.mark.parametrize(
    ("name", "judged", "cause", "pass_"),
    [
        ("TfjsStale", ("S2", "E1", "E2", "E3"), "E2", set()),
        ("LrInAccumulator", ("S2", "E1", "E2", "E3"), "E3", {"E2"}),
        pytest.param("HiddenLrInAccumulator", ("S2", "E2", "E4"), "E4", {"E2"}, marks=pytest.mark.slow),
    ],
)
def test_consequences_are_told_from_causes(name, judged, cause, pass_, tmp_path):
    file = tmp_path / "it.py"
    file.write_text(f"from {CORPUS} import *\nclass HiddenLrInAccumulator(LrInAccumulator):\n    accumulators = None\n")
    clauses = [x for clause in judged for x in ("--clause", clause)]
    done = run(f"{file}:{name}", *clauses, "--examples", 1, "--json", tmp_path / "out.json")
    row = json.loads((tmp_path / "out.json").read_text())["implementations"][f"{file}:{name}"]
    others = {
        k: found.get("follows") for k, found in row["clauses"].items() if found["status"] == "fail" and k != cause
    }
    assert row["first"] == cause and {*others.values()} == {cause}
    assert {k for k, found in row["clauses"].items() if found["status"] == "pass"} == pass_
    assert f"({cause})" in done.stdout and done.stdout.count("to reproduce:") == 1
    assert f"this is {name.removeprefix('Hidden')}" in done.stdout


def test_an_adapter_may_be_called_like_its_framework(tmp_path):
    target = adapter(tmp_path, "import mpmath; mpmath.mpf", "mpmath.py")
    command = [sys.executable, "-m", "braintools_adadelta.conformance", target, "--clause", "S2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path.parent)
    assert done.returncode == 0, done.stdout + done.stderr


def test_poor_terminals_and_odd_paths(tmp_path):
    folder = tmp_path / "é\u4e2d"
    folder.mkdir()
    env = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "braintools_adadelta.conformance", adapter(folder, "pass"), "--clause", "S2"]
    command += ["--json", folder / "out.json", "--junit", folder / "out.xml"]
    done = subprocess.run(command, capture_output=True, env=env)
    assert done.returncode == 0 and not done.stderr.count(b"Traceback"), done.stderr
    assert json.loads((folder / "out.json").read_text("utf-8")) and ElementTree.parse(folder / "out.xml")


def test_a_damaged_corpus_is_no_traceback(monkeypatch, tmp_path):
    (tmp_path / "corpus.json").write_text('{"Nd4j')
    monkeypatch.setattr(report, "files", lambda package: tmp_path)
    (line,) = report.resolving_lines(report.resolving([], {"E1": {"status": "pass"}}), verbose=False)
    assert "corpus.json cannot be read" in line


def test_the_plugin_takes_no_option_that_others_may_have():
    class Parser:
        def getgroup(self, *names):
            return self

        def addoption(self, name, **more):
            assert name.startswith("--adadelta-")

    plugin.pytest_addoption(Parser())


LEDGER = """
[[deviation]]
test = "{test}"
name = "decoupled"
what = "weight decay comes after the equations"
link = "https://example.org"
"""


@pytest.mark.parametrize(
    ("tests", "code"), [(["G3_weight_decay", "G3_names"], 0), (["G3_weight_decay"], 1), (["G3_nosuch"], 2)], ids=str
)
def test_a_ledger_of_ones_own_is_strict_both_ways(tests, code, tmp_path):
    file = tmp_path / "ledger.toml"
    file.write_text("".join(LEDGER.format(test=test) for test in tests))
    arguments = [f"{CORPUS}:DecoupledScaled", "--clause", "G3", "--ledger", file, "--examples", 1]
    done = run(*arguments)
    assert done.returncode == code, done.stdout
    assert ("deviates as known" in done.stdout) == (code == 0)
    if code == 0:
        assert run(*arguments, "--strict").returncode == 1
        stale = run(f"{CORPUS}:Numpy", *arguments[1:])
        assert stale.returncode == 1 and "the ledger is stale" in stale.stdout


@pytest.mark.parametrize("suffix", ["py", "js", "cpp"])
def test_init_writes_an_adapter_that_conforms(suffix, tmp_path):
    file = tmp_path / f"adadelta.{suffix}"
    done = run("init", file)
    assert done.returncode == 0 and run("init", file).returncode == 2  # it overwrites nothing
    needs = {"js": "node", "cpp": "g++"}.get(suffix)
    if needs and not shutil.which(needs):
        pytest.skip(f"there is no {needs}")
    if suffix == "cpp":
        subprocess.run(["g++", "-O1", "-std=c++17", file, "-o", tmp_path / "adadelta"], check=True)
    target = {"py": f"{file}:Adadelta", "js": f"run:node {file}", "cpp": f"run:{tmp_path / 'adadelta'}"}[suffix]
    clauses = [x for clause in ("S2", "S4", "E1", "E2", "L1") for x in ("--clause", clause)]
    done = run(target, *clauses, "--examples", 1, "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stdout
    assert "conforms" in done.stdout.splitlines()[0] and len(file.read_text().splitlines()) <= 70
    row = json.loads((tmp_path / "out.json").read_text())["implementations"][target]
    assert {k for k, found in row["clauses"].items() if found["status"] != "pass"} == set()


def test_a_program_is_judged_like_an_object(tmp_path):
    """A wrong one: its third line is a wrong step. What it answers for no known message is an error, not a number."""
    if not shutil.which("node"):
        pytest.skip("there is no node")
    text = (PROGRAMS / "adadelta.js").read_text()
    (tmp_path / "it.js").write_text(text.replace("theta[k] += run.lr * delta", "theta[k] -= run.lr * delta"))
    done = run(f"run:node {tmp_path / 'it.js'}", "--clause", "E2", "--clause", "E4", "--examples", 1)
    assert done.returncode == 1 and "fails at E2" in done.stdout and "to reproduce" in done.stdout
    (tmp_path / "it.js").write_text(text.replace("step(runs[m.run], m.grads); return", "throw 'no step'; return"))
    done = run(f"run:node {tmp_path / 'it.js'}", "--clause", "E2", "--examples", 1)
    assert done.returncode == 1 and "step() raised RuntimeError: no step" in done.stdout


def test_without_the_extra_it_says_what_to_install():
    lines = "import sys", "sys.modules['pytest'] = None", "from braintools_adadelta.conformance import __main__ as it"
    done = subprocess.run(
        [sys.executable, "-c", "; ".join([*lines, "sys.exit(it.main())"])], capture_output=True, text=True
    )
    assert done.returncode == 2 and "needs pytest: pip install" in done.stderr and "Traceback" not in done.stderr


def test_lists(capsys):
    assert not command.main(["--list"]) and not command.main(["--clauses"])
    out = capsys.readouterr().out
    assert all(name in out for name in [*adapters.KNOWN, *CLAUSES])


def test_other_defaults_are_shown_and_not_failed(tmp_path):
    target = adapter(tmp_path, "defaults = {'lr': 0.001, 'rho': 0.9}; versions = {'mine': '1.2'}")
    done = run(target, "--clause", "S1", "--strict", "--junit", tmp_path / "out.xml")
    assert done.returncode == 0 and "(mine 1.2): conforms" in done.stdout
    assert "lr is 0.001, in the spec 1.0" in done.stdout
    (version,) = ElementTree.parse(tmp_path / "out.xml").iter("property")
    assert version.attrib == {"name": "version of mine", "value": "1.2"}


def test_ledgers_are_strict_both_ways(monkeypatch):
    ledger = ledgers.read("braintools")
    assert ledger.pinned({"braintools": "0.3.0"}) and not ledger.pinned({"braintools": "9.9"})
    assert ledger.entry("G3_weight_decay", "", {"braintools": "0.1.9"})
    assert not ledger.entry("G3_weight_decay", "", {"braintools": "0.3.0"})
    assert ledgers.read("torch-loop").pinned({"torch": ledgers.read("torch").versions[0] + "+cpu"})
    options = command.parser().parse_args(["braintools", "--clause", "X1", "--clause", "S2"])
    rows = lambda: runner.collect(["braintools"], options)[0].rows["braintools"]
    assert {row["status"] for row in rows()["X1"]} == {"known", "pass"}
    stale = ledgers.Entry("S2_start", "stale", "nothing of the kind")
    monkeypatch.setattr(ledgers, "read", lambda name: ledgers.Ledger("braintools", (), (stale,)))
    found = rows()
    assert {row["test"] for row in found["S2"] if row["status"] == "fail"} == {"S2_start"}  # no longer deviates
    failed = {row["test"] for row in found["X1"] if row["status"] == "fail"}
    assert failed == {"X1_saturate", "X1_narrow", "X1_norm"}  # not listed


def test_every_known_implementation_has_a_ledger_whose_tests_exist():
    names = runner.test_names()
    for name in adapters.KNOWN:
        for entry in ledgers.read(name).entries:
            assert any(re.fullmatch(entry.test, test) for test in names), entry
            assert not entry.bug or hasattr(corpus, entry.bug), entry
            assert entry.what and entry.link.startswith("https://"), entry


@pytest.mark.parametrize("cls", wrong_optimizers.WRONG, ids=lambda cls: cls.__name__)
def test_wrong_objects_fail_at_their_clause(cls, capsys):
    target = f"wrong_optimizers:{cls.__name__}"
    options = command.parser().parse_args([target, "--clause", cls.clause])
    rows = runner.collect([target], options)[0].rows[target]
    assert "fail" in {row["status"] for row in rows[cls.clause]}
