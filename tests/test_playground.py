"""The arithmetic of the playground in the docs, in a JavaScript engine, is within the bounds of the exact vectors."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from braintools_adadelta.conformance import vectors

SCRIPT = Path(__file__).parent.parent / "docs/_static/optimizers.js"
ENGINES = ("node", "chromium", "chromium-browser", "google-chrome")
# What the script can do: the equations and lr in double precision, without clips and decay.
ROWS = [r for r in vectors.load() if r["dtype"] == "float64" and r["options"].keys() == {"lr", "rho", "eps"}]
LAY = """
const numbers = (xs) => xs.map(Number);
const runs = %s.map(({ theta, options, steps }) => {
  let state = adadelta.start(numbers(theta));
  let { lr, rho, eps } = options;
  return steps.map((given) => {
    lr = given.lr ?? lr;
    const now = { lr: Number(lr), rho: Number(rho), eps: Number(eps) };
    state = adadelta.step("Adadelta", state, numbers(given.g), now);
    const text = (xs) => xs.map(String);  // JSON has no infinity
    return { theta: text(state.theta), e_g2: text(state.e_g2), e_delta2: text(state.e_delta2) };
  });
});
"""


@pytest.fixture(scope="module", params=ENGINES)
def engine(request):
    if not shutil.which(request.param):
        pytest.skip(f"{request.param} is not installed")
    return request.param


def number(text):
    """Return what the vectors write as hexadecimal floating point, as JavaScript can read it."""
    return repr(float.fromhex(text)).replace("inf", "Infinity").replace("nan", "NaN")


def lay(names, row):
    return [number(x) for name in names for x in row[name]]


def program(rows):
    runs = []
    for row in rows:
        steps = [
            {"g": lay(row["params"], step["g"])} | ({"lr": number(step["lr"])} if "lr" in step else {})
            for step in row["steps"]
        ]
        options = {name: number(x) for name, x in row["options"].items()}
        runs.append({"theta": lay(row["params"], row["params"]), "options": options, "steps": steps})
    return SCRIPT.read_text("utf-8") + LAY % json.dumps(runs)


def run(engine, rows, tmp_path):
    """Return what the script computes for the runs `rows`, as lists of steps."""
    if engine == "node":
        (tmp_path / "run.js").write_text(program(rows) + "console.log(JSON.stringify(runs))", "utf-8")
        command = ["node", tmp_path / "run.js"]
    else:
        page = f"<body><script>{program(rows)}document.body.textContent = JSON.stringify(runs)</script></body>"
        (tmp_path / "run.html").write_text(page, "utf-8")
        quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        command = [engine, *quiet, f"--user-data-dir={tmp_path}/profile", "--dump-dom", tmp_path / "run.html"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    return json.loads(printed[printed.index("[") : printed.rindex("]") + 1])


def test_the_script_is_within_the_bounds_of_the_vectors(engine, tmp_path):
    assert len(ROWS) > 50
    misses = []
    for row, steps in zip(ROWS, run(engine, ROWS, tmp_path), strict=True):
        for t, (got, want) in enumerate(zip(steps, row["steps"], strict=True)):
            for field, values in got.items():
                exact, within = lay(row["params"], want[field]), [
                    float(x) for name in row["params"] for x in want[f"{field}_within"][name]
                ]
                misses += [
                    (row["id"], t + 1, field, x, y)
                    for x, y, bound in zip(values, exact, within, strict=True)
                    if not abs(float(x) - float(y)) <= bound
                ]
    assert misses == []
