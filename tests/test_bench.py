"""The benchmark: all contenders take the same steps, whoever fails is left out, and the page says what was measured."""

import json
import re
import shutil
from pathlib import Path

import pytest
from compare_with_oracle import assert_near_exact

from braintools_adadelta.bench import __main__ as command
from braintools_adadelta.bench import contenders, networks, processes, report, worker

pytest.importorskip("tqdm")
HERE = Path(contenders.__file__).parent
PAGE = Path(__file__).parent.parent / "docs/results"

# ---------------------------------------------------------------------------------------------------------- contenders


@pytest.mark.parametrize("library", contenders.LIBRARIES)
def test_contenders_take_the_same_steps(library, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    if library != "limit":
        pytest.importorskip(library)
    elif not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("there is no C compiler")
    load = {"leaves": 2, "shape": [3, 5]}
    theta, g = contenders.arrays(load)
    for form in contenders.LIBRARIES[library]().values():
        step, wait, parameters = form(load)
        step(), step(), wait()
        assert len(parameters()) == 2
        assert_near_exact(parameters(), theta, [g, g], **contenders.OPTIONS)


def test_the_limit_of_an_accelerator_moves_28_bytes_for_each_parameter():
    made = worker.Worker({"copy": contenders.copy}).make("copy", {"leaves": 2, "shape": [512]}, count=True)
    assert max(program["moved"] for program in made["programs"]) == pytest.approx(28 * 2 * 512, abs=8)  # the 1 is read


@pytest.mark.parametrize("library", networks.LIBRARIES)
def test_only_the_idle_optimizer_trains_nothing(library):
    step, wait = networks.LIBRARIES[library]()["digits"]({})
    losses = [(step(), float(wait()[0]))[1] for _ in range(3)]
    assert (len(set(losses)) == 1) == (library == "idle") and losses == sorted(losses, reverse=True)


# ----------------------------------------------------------------------------------------------------------- processes

FAKE = """
import os, time

def form(go):
    return lambda workload: (go, lambda: None)

def fails():
    raise ValueError("no step")

LIBRARIES = {"fake": lambda: {
    "talks": form(lambda: print("hello")), "fails": form(fails), "ends": form(lambda: os._exit(3)),
    "sleeps": form(lambda: time.sleep(60)),
}}
"""


@pytest.fixture
def fake(tmp_path):
    file = tmp_path / "fake.py"
    file.write_text(FAKE)
    process = processes.Process("fake", file, patience=10)
    yield process
    process.close()


def turn(process, form):
    return process.ask("turn", form=form, workload={}, seconds=0.001, keep=True)


def test_what_a_library_prints_does_not_disturb(fake):
    found = turn(fake, "talks")
    assert min(found["seconds"]) > 0 and found["cpu"] >= 0


@pytest.mark.parametrize(
    ("form", "patience", "why"),
    [("fails", 10, "ValueError: no step"), ("ends", 10, "its process ended with 3"), ("sleeps", 1, "took over 1 s")],
)
def test_who_fails_is_left_out_and_the_others_go_on(fake, form, patience, why):
    assert turn(fake, "talks")
    fake.patience = patience
    with pytest.raises(processes.Gone, match=why):
        turn(fake, form)
    fake.patience = 10
    assert turn(fake, "talks")


def test_a_library_that_is_missing_says_why(tmp_path):
    tmp_path.joinpath("optax.py").write_text("raise ImportError('no optax here')")
    process = processes.Process("optax", tree=tmp_path)
    assert process.hello() == {"missing": "no optax here"}
    process.close()


def test_another_version_is_the_one_in_its_folder(tmp_path):
    tmp_path.joinpath("braintools_adadelta").mkdir()
    tmp_path.joinpath("braintools_adadelta/__init__.py").write_text("raise ImportError('another version')")
    process = processes.Process("braintools_adadelta", tree=tmp_path)
    assert process.hello() == {"missing": "another version"}
    process.close()


# ---------------------------------------------------------------------------------------------------- command and page


def check(document):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((HERE / "benchmark.schema.json").read_text("utf-8"))
    jsonschema.validate(document, schema, jsonschema.Draft202012Validator)


def test_the_command_writes_a_page(tmp_path, capsys):
    sections = ["memory", "large", "sizes"]
    assert command.main(["--tiny", "--section", *sections, "--only", "limit", "optax", "--out", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "benchmark.json").read_text("utf-8"))
    check(document)
    assert {one["section"] for one in document["records"]} == set(sections)
    assert {one["library"] for one in document["records"]} | document["missing"].keys() == {"limit", "optax"}
    page = (tmp_path / "benchmark.md").read_text("utf-8")
    images = re.findall(r"```\{figure\} (\S+)\n:alt: (.+)\n", page)
    assert images and all((tmp_path / name).read_text("utf-8").count("<svg") and len(alt) > 40 for name, alt in images)
    assert "| optax, in jit, donated |" in page and "| optax, in jit, donated |" in capsys.readouterr().out


def test_the_page_in_the_docs_is_made_from_its_json(tmp_path):
    document = json.loads((PAGE / "benchmark.json").read_text("utf-8"))
    check(document)
    report.write(document, tmp_path)
    for path in tmp_path.glob("*.md"):
        assert path.read_text("utf-8") == (PAGE / path.name).read_text("utf-8"), "make the page: adadelta-bench --page"


def test_a_folder_without_the_package_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["--against", "old=nowhere"])
    assert "'old=nowhere' is not NAME=FOLDER, where FOLDER holds braintools_adadelta" in capsys.readouterr().err


def record(library, *rounds, form="eager"):
    return {"section": "large", "workload": "one", "leaves": 1, "shape": [4], "library": library, "form": form,
            "rounds": rounds, "least": min(rounds), "cpu": 1.0}  # fmt: skip


def test_ratios_are_taken_round_by_round():
    """The second round was disturbed for all. The median of the ratios is 2, the ratio of the medians 3."""
    slow, fast = record("braintools_adadelta", 2.0, 16.0, 6.0), record("limit", 1.0, 8.0, 2.0)
    old = record("braintools_adadelta old", 4.0, 32.0, 12.0)
    made_with = {"device": {"platform": "cpu"}}
    found = report.Found({"records": [slow, fast, old], "missing": {}, "made_with": made_with})
    tables = report.tables(found)
    assert "| ours, eager | 2 |" in tables["large"]["Times of the limit"]
    assert "| eager | 0.5 |" in tables["against"]["Times of old"]
