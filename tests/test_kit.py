"""The command: what it judges, prints and returns."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import wrong_optimizers

from braintools_adadelta.conformance import adapters, command, ledgers, runner
from braintools_adadelta.conformance.clauses import CLAUSES

HERE = Path(__file__).parent


def run(*arguments):
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "braintools_adadelta.conformance", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=HERE)


def test_a_wrong_one_is_rejected_with_a_snippet_that_shows_it(tmp_path):
    target = "numpy_adadeltas.py:LrInAccumulator"
    done = run(target, "--clause", "E3", "--json", tmp_path / "out.json", "--junit", tmp_path / "out.xml")
    assert done.returncode == 1, done.stderr
    assert f"{target}: fails" in done.stdout and "100%" in done.stderr
    found = json.loads((tmp_path / "out.json").read_text())["implementations"][target]
    assert found["verdict"] == "fails" and found["clauses"]["E3"]["status"] == "fail"
    assert " => e_delta2 " in found["clauses"]["E3"]["counterexample"]
    snippet = found["clauses"]["E3"]["snippet"]
    assert snippet in "\n".join(line.strip() for line in done.stdout.splitlines())
    shown = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, cwd=tmp_path / "..")
    assert shown.returncode == 1  # the file is not here
    again = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, cwd=HERE)
    got = snippet.rpartition("# got ")[2].split(",")[0]
    assert float(again.stdout.strip("[] \n")) == pytest.approx(float(got), rel=1e-6)
    assert any(case.find("failure") is not None for case in ElementTree.parse(tmp_path / "out.xml").iter("testcase"))


def test_a_right_one_is_accepted_and_the_report_says_what_it_cannot_tell():
    done = run("numpy_adadeltas:Hidden", "--clause", "E4", "--clause", "E1", "--examples", 1)
    assert done.returncode == 0, done.stdout
    assert "conforms" in done.stdout and "resolving power" in done.stdout and "not, for example: " in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["nosuch"],
        ["numpy_adadeltas:Nosuch"],
        ["nosuch.py:It"],
        ["json:loads"],
        ["--clause", "E9"],
        ["--bogus"],
        ["--examples", "0"],
    ],
    ids=" ".join,
)
def test_usage_errors(arguments):
    done = run(*arguments)
    assert done.returncode == 2 and arguments[-1].split(":")[0] in done.stderr and "Traceback" not in done.stderr


BROKEN = {
    "supports = {'weightdecay'}": "it must be a set of",
    "supports = 'float64'": "it must be a set of",
    "raise SystemExit(0)": "cannot be imported: SystemExit",
}


@pytest.mark.parametrize("line", BROKEN)
def test_what_would_not_be_judged_is_a_usage_error(line, tmp_path):
    (tmp_path / "it.py").write_text(f"from numpy_adadeltas import Hidden\n\n\nclass It(Hidden):\n    {line}\n")
    done = run(f"{tmp_path / 'it.py'}:It", "--clause", "E1")
    assert done.returncode == 2 and BROKEN[line] in done.stderr


def test_nothing_judged_is_no_success(tmp_path):
    done = run("numpy_adadeltas:Hidden", "--clause", "X3")
    assert done.returncode == 2 and "is not judged" in done.stdout
    assert run("numpy_adadeltas:Hidden", "--json", tmp_path).returncode == 2


def test_an_exception_is_shown_with_its_place_and_consequences_in_a_line():
    done = run("numpy_adadeltas:EmptyFails", "--level", "equations")
    assert done.returncode == 1 and "numpy_adadeltas.py:" in done.stdout and "in average" in done.stdout
    done = run("numpy_adadeltas:TfjsStale", "--level", "equations")
    assert "look first at E2" in done.stdout and done.stdout.count("to reproduce:") == 1


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
    page = "from numpy_adadeltas import Native\nclass It(Native):\n    defaults = {'lr': 0.001, 'rho': 0.9}\n"
    (tmp_path / "it.py").write_text(f"import sys; sys.path.append({str(HERE)!r})\n{page}")
    target = f"{tmp_path / 'it.py'}:It"
    done = run(target, "--clause", "S1")
    assert done.returncode == 0 and "other-defaults: lr is 0.001" in done.stdout, done.stdout
    assert run(target, "--clause", "S1", "--strict").returncode == 1


def test_ledgers_are_strict_both_ways(monkeypatch):
    ledger = ledgers.read("braintools")
    assert ledger.pinned({"braintools": "0.3.0"}) and not ledger.pinned({"braintools": "9.9"})
    assert ledger.entry("G3_weight_decay", "", {"braintools": "0.1.9"})
    assert not ledger.entry("G3_weight_decay", "", {"braintools": "0.3.0"})
    assert ledgers.read("torch-loop").pinned({"torch": ledgers.read("torch").versions[0] + "+cpu"})
    options = command.parser().parse_args(["braintools", "--clause", "X1", "--clause", "S2"])
    rows = lambda: runner.run_clauses(["braintools"], options)[0].rows["braintools"]
    assert {row["status"] for row in rows()["X1"]} == {"known", "pass"}
    stale = ledgers.Entry("S2_start", "stale", "nothing of the kind")
    monkeypatch.setattr(ledgers, "read", lambda name: ledgers.Ledger("braintools", (), (stale,)))
    found = rows()
    assert {row["test"] for row in found["S2"] if row["status"] == "fail"} == {"S2_start"}  # no longer deviates
    failed = {row["test"] for row in found["X1"] if row["status"] == "fail"}
    assert failed == {"X1_saturate", "X1_narrow", "X1_norm"}  # not listed


def test_every_known_implementation_has_a_ledger_whose_tests_exist():
    from braintools_adadelta.conformance import test_clauses, test_objects

    for name in adapters.KNOWN:
        for entry in ledgers.read(name).entries:
            assert hasattr(test_clauses, f"test_{entry.test}") or hasattr(test_objects, f"test_{entry.test}"), entry
            assert entry.what and entry.link.startswith("https://"), entry


@pytest.mark.parametrize("cls", wrong_optimizers.WRONG, ids=lambda cls: cls.__name__)
def test_wrong_objects_fail_at_their_clause(cls, capsys):
    target = f"wrong_optimizers:{cls.__name__}"
    options = command.parser().parse_args([target, "--clause", cls.clause])
    rows = runner.run_clauses([target], options)[0].rows[target]
    assert "fail" in {row["status"] for row in rows[cls.clause]}
