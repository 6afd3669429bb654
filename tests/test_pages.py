"""Each block of code that a reader would copy from a page runs, or the table says what keeps it from running here.

The site executes the notebooks and the cells of pages. What is left are blocks that are only shown.
"""

import json
import re
import shlex
import tomllib
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import brainstate
import braintools
import jax.numpy as jnp
import numpy as np
import pytest

import braintools_adadelta
from braintools_adadelta.conformance import adapters, command, ledgers, runner
from braintools_adadelta.conformance.corpus import Numpy

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = {
    (path.relative_to(ROOT).as_posix(), code.splitlines()[0]): code
    for path in PAGES
    for language, code in re.findall(r"^```([^\n]*)\n(.*?)^```$", path.read_text("utf-8"), re.S | re.M)
    if not language.startswith("{")  # directives: what they show is executed, drawn or read from a file
}


def python(code, **names):
    """Run a block of Python and return what it defines."""
    exec(compile(code, "block", "exec"), names)
    return names


def shell(code):
    """Follow the commands of a block as far as that takes neither a network nor minutes."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    commands = [shlex.split(part, comments=True) for line in code.splitlines() for part in line.split("&&")]
    for words in filter(None, commands):
        match words:
            case ["pip", "install", *packages]:
                assert all(extra in extras for x in packages for extra in re.findall(r"\[(.*)\]", x))
            case ["adadelta-conformance", "init", file]:
                assert command.main(["init", file]) == 0
            case ["adadelta-conformance", *arguments]:
                for target in command.parser().parse_args(arguments).implementations:
                    assert target in adapters.KNOWN or ":" in target, f"{target} is not known"
            case ["make", target]:
                assert target in targets
            case ["from" | "import", *_]:
                python(" ".join(words))
            case ["g++", *_]:
                pass  # test_kit.py builds the same file and judges it
            case _:
                raise AssertionError(f"nobody knows how to follow {words}")


def readme_example(code, capsys):
    python(code)
    assert capsys.readouterr().out == SHOWN["README.md", "loss 0.51 -> 0.02"]


def checkpoint(code, tmp_path):
    optimizer = braintools_adadelta.Adadelta().register_trainable_weights({"w": brainstate.ParamState(jnp.ones(2))})
    path = str(tmp_path / "run.msgpack")
    python("import os\n" + code, braintools=braintools, optimizer=optimizer, path=path, model_state={"w": jnp.ones(2)})
    saved = braintools.file.msgpack_load(path)
    optimizer.load_state_dict(saved["optimizer"])


def minimiser(code):
    """climin is not here: something with its interface stands in for it."""

    def stand_in(vector, gradient, step_rate, decay, offset):
        it = Numpy()
        h = it.start({"w": vector.copy()}, lr=step_rate, rho=decay, eps=offset)
        while True:
            h = it.step(h, {"w": gradient(vector)})
            vector[:] = it.params(h)["w"]
            yield {}

    it = python(code, np=np, climin=SimpleNamespace(Adadelta=stand_in))["Minimiser"]()
    h = it.start({"a": np.ones(2), "b": np.ones(())}, lr=1.0, rho=0.9, eps=1e-6)
    h = it.step(h, {"b": np.full((), 2.0), "a": np.full(2, -2.0)})
    assert np.allclose(h["vector"], 1 + np.array([1, 1, -1]) * 1e-5**0.5, rtol=1e-6)


def ledger(code, tmp_path):
    (tmp_path / "adadelta.toml").write_text(code)
    assert len(ledgers.read_file(str(tmp_path / "adadelta.toml"), runner.test_names()).entries) == 1


def workflow(code):
    yaml = pytest.importorskip("yaml")
    (job,) = yaml.safe_load(code)["jobs"].values()
    for step in job["steps"]:
        shell(step.get("run", ""))


def suite(code, tmp_path, monkeypatch):
    """The judging itself takes a minute: the arguments and the ledger are read as they stand."""
    (tmp_path / "ci").mkdir()
    (tmp_path / "ci/adadelta.toml").write_text(SHOWN["docs/conformance.md", "# adadelta.toml"])
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(command, "judge_all", lambda options: asked.append(options.implementations) or 0)
    python(code)["test_adadelta_conforms"]()
    assert asked == [["ci/adapter.py:Adadelta"]]


def reader(code):
    """The function judges an Adadelta in lists of plain numbers, and one that goes uphill."""
    page, it = python(code), Numpy()

    def arrays(rows, run):
        return {name: np.reshape(np.array(x, run["dtype"]), run["shapes"][name]) for name, x in rows.items()}

    def start(params, shapes, dtype, **options):
        run = {"shapes": shapes, "dtype": dtype}
        return run | {"h": it.start(arrays(params, run), **options)}

    def step(run, grads):
        run["h"] = it.step(run["h"], arrays(grads, run))

    def uphill(run, grads):
        run["h"] = it.step(run["h"], {name: -g for name, g in arrays(grads, run).items()})

    params = lambda run: {name: np.ravel(x) for name, x in it.params(run["h"]).items()}
    vectors = [x for x in page["page"]["vectors"] if "X1" not in x["id"]]
    with np.errstate(all="ignore"):
        found, others = ({page["first_miss"](start, go, params, vector) for vector in vectors} for go in (step, uphill))
        assert found == {None, "skipped"} and len(others) > 2


QUOTED = "a quotation: test_layouts.py compares it with examples/processes.py, which runs"
HOW = {
    ("README.md", "pip install .                              # in a clone of this repository"): shell,
    ("README.md", "import brainstate"): readme_example,
    ("README.md", "loss 0.51 -> 0.02"): "what the example before it prints",
    ("README.md", "pip install '.[conformance]'"): shell,
    ("README.md", "make test"): shell,
    ("docs/coming_from_braintools.md", "import braintools_adadelta                          # one more import"): python,
    ("docs/coming_from_braintools.md", 'braintools.file.msgpack_save(path + ".new", {"model": model_state,'
     ' "optimizer": optimizer.state_dict()})'): checkpoint,
    ("docs/conformance.md", "pip install '.[conformance]'                               # in a clone: with jax and"
     " brainstate"): shell,
    ("docs/conformance.md", "class Minimiser:"): minimiser,
    ("docs/conformance.md", "# adadelta.toml"): ledger,
    ("docs/conformance.md", "# .github/workflows/adadelta.yml"): workflow,
    ("docs/conformance.md", "from braintools_adadelta.conformance.command import main"): suite,
    ("docs/protocol.md", "adadelta-conformance init adadelta.js && adadelta-conformance 'run:node adadelta.js'"): shell,
    ("docs/results/accelerators.md", "XLA_FLAGS=--xla_backend_extra_options=-nvptx-prec-divf32=2,"
     "-nvvm-reflect-add=__CUDA_PREC_SQRT=1"): "flags of the compiler for a GPU, which is not here",
    ("docs/scale.md", '        jax.distributed.initialize(f"localhost:{port}", count, rank,'
     " heartbeat_timeout_seconds=heartbeat)"): QUOTED,
    ("docs/scale.md", "            manager.save(t, args=ocp.args.StandardSave(training.tree()))"): QUOTED,
    ("docs/scale.md", "        training.load(manager.restore(first,"
     " args=ocp.args.StandardRestore(training.tree())))"): QUOTED,
    ("docs/vectors.md", "import json"): reader,
    ("docs/where_it_runs.md", "XLA_FLAGS=--xla_backend_extra_options=-nvptx-prec-divf32=2,"
     "-nvvm-reflect-add=__CUDA_PREC_SQRT=1"): "flags of the compiler for a GPU, which is not here",
}  # fmt: skip


def test_the_times_of_a_gpu_are_those_of_the_record():
    """The table was written by hand: each number is a median of the record, in whole microseconds of three digits."""
    of = {}
    for one in json.loads((ROOT / "docs/results/gpu_times.json").read_text("utf-8"))["records"]:
        of[one["library"], one["form"], one["workload"]] = median(one["rounds"]) if one["section"] == "large" else None
    who = {"a copy that moves 28 bytes a parameter": ("limit", "copy"), "torch, foreach": ("torch", "foreach"),
           "torch, loop": ("torch", "loop"), "ours, eager, donated": ("braintools_adadelta", "donated"),
           "ours, in brainstate's jit": ("braintools_adadelta", "jit"), "optax, in jit": ("optax", "jit"),
           "optax, in jit, donated": ("optax", "donated")}  # fmt: skip
    page = (ROOT / "docs/where_it_runs.md").read_text("utf-8")
    table = re.search(r"\n\n((?:\|[^\n]*\n)+)\nThe largest parameter", page)[1]
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert {name for name, *_ in rows} == who.keys()
    for name, *cells in rows:
        for workload, cell in zip(head[1:], cells, strict=True):
            time = of[*who[name], workload] * 1e6
            assert int(cell.replace(",", "")) == round(time, min(0, 3 - len(f"{time:.0f}"))), (name, workload)


def test_each_block_is_known():
    assert SHOWN.keys() == HOW.keys()


RUN = [block for block, how in HOW.items() if callable(how)]


@pytest.mark.parametrize("block", RUN, ids=lambda block: f"{block[0]}: {block[1][:30]}")
def test_a_block_runs(block, request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    how, wanted = HOW[block], {"tmp_path": tmp_path, "monkeypatch": monkeypatch}
    names = how.__code__.co_varnames[1 : how.__code__.co_argcount]
    how(SHOWN[block], **{name: wanted[name] if name in wanted else request.getfixturevalue(name) for name in names})
