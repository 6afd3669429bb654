"""Do programs that train with braintools do the same with this Adadelta? ``python tools/ecosystem.py CLONES TABLE OUT``

CLONES is a folder of clones, CLONES/owner/repo. TABLE is a TOML file that lists the programs and what is changed in
them. Each program runs three times (see swapped.py): with the Adadelta of braintools, with this one, and with that of
braintools from parameters that are one rounding higher. The results are kept in OUT/ecosystem.json, and the page
OUT/ecosystem.md is made from them. A kept result is not run again, unless it fits a regex that is given after OUT.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from importlib.metadata import version
from pathlib import Path

import numpy as np

VARIANTS = ["original", "ours", "nudged"]
MEASURES = ["printed", "moved"]
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|nan|inf)(?!\w)")
TIMES = re.compile(r"(?i)\b(?:time|took|elapsed)\W*[\d.]+|[\d.]+ ?(?:[mu]?s|seconds)\b")
ERROR = re.compile(r"[\w.]*(?:Error|Exception)\b")
HEAD = ["program", "changed", "first loss", "last: original", "last: ours",
        *(f"{measure}: {who}" for measure in MEASURES for who in VARIANTS[1:]), "seconds", "outcome"]  # fmt: skip


def run(job, pattern, table):
    """Run one program in a Python of its own; return what became of it, and its parameters."""
    command = [sys.executable, "-W", "ignore", Path(__file__).resolve().parent / "swapped.py", json.dumps(job)]
    env = {"JAX_PLATFORMS": "cpu", "MPLBACKEND": "Agg", "PYTHONHASHSEED": "0", "PYTHONPATH": table["path"]}
    with tempfile.TemporaryDirectory() as folder:
        options = {"cwd": folder, "env": os.environ | env, "capture_output": True, "text": True}
        begin, saved = time.time(), Path(folder, "parameters.npz")
        try:
            done = subprocess.run(command, timeout=table["timeout"], **options)
            printed, error = done.stdout, done.stderr if done.returncode else ""
        except subprocess.TimeoutExpired:
            printed, error = "", "timeout"
        arrays = list(np.load(saved).values()) if saved.exists() else []
    print(error, end="", file=sys.stderr)
    return told(printed, error, pattern) | {"seconds": round(time.time() - begin)}, arrays


def told(printed, error, pattern):
    """Return the numbers that were printed, the losses among them, and the line that names the error."""
    lines = error.splitlines()[::-1]
    return {
        "numbers": [float(x) for x in NUMBER.findall(TIMES.sub("", printed))],
        "losses": [float(x) for x in re.findall(pattern, printed)],
        "error": next((line[:150] for line in lines if ERROR.match(line)), lines[0] if lines else ""),
    }


def printed_apart(a, b):
    """Return the largest relative difference of the numbers that two runs printed, or None if they do not match."""
    pairs = [(x, y) for x, y in zip(a, b, strict=False) if x != y and (x == x or y == y)]
    return max((abs(x - y) / max(abs(x), abs(y)) for x, y in pairs), default=0.0) if len(a) == len(b) else None


def moved_apart(a, b):
    """Return the largest difference of two runs' ways of a parameter, relative to the way; four roundings are free."""
    if not a or len(a) != len(b):
        return None
    worst = 0.0
    for start, end, start_b, end_b in zip(a[::2], a[1::2], b[::2], b[1::2], strict=True):
        if start.size and np.isrealobj(start):
            free = 4 * float(np.spacing(np.abs(end).max()))
            way, other = np.subtract(end, start, dtype=float), np.subtract(end_b, start_b, dtype=float)
            worst = max(worst, (np.abs(way - other).max() - free) / max(np.abs(way).max(), free))
    return float(worst)


def outcome(runs, apart):
    """Return in words what the runs say."""
    failed = [name for name in VARIANTS[:2] if runs[name]["error"]]
    if len(failed) == 2 and runs["original"]["error"] == runs["ours"]["error"]:
        return f"stops with both: {runs['ours']['error']}"
    if failed:
        return "; ".join(f"fails with {name}: {runs[name]['error']}" for name in failed)
    if any(None in measure.values() for measure in apart):
        return "cannot be compared"
    if apart[0]["ours"] < 1e-4 and apart[1]["ours"] < 1e-3:
        return "agrees"
    return "as after a nudge" if all(x["ours"] <= 10 * x["nudged"] for x in apart) else "differs"


def row(one):
    """Return one row of the page."""
    runs, apart = one["runs"], [one[measure] for measure in MEASURES]
    where = f"https://github.com/{one['repo']}/blob/{one['commit']}/{one['path']}"
    link = f"[{one['repo'].split('/')[1]}: {Path(one['path']).name}]({where})"
    first, ours = (runs[who]["losses"] for who in VARIANTS[:2])
    losses = [f"{part[0]:.5g}" if part else "" for part in (first[:1], first[-1:], ours[-1:])]
    gaps = ["" if measure[who] is None else f"{measure[who]:.1g}" for measure in apart for who in VARIANTS[1:]]
    seconds = " and ".join(str(runs[who]["seconds"]) for who in VARIANTS[:2])
    return [link, one.get("changed", ""), *losses, *gaps, seconds, outcome(runs, apart)]


def main(clones, table, out, again="$^"):
    """Run what is not in the JSON file yet, and write the page."""
    kept, here = Path(out, "ecosystem.json"), Path(table).resolve().parent
    table, results = tomllib.loads(Path(table).read_text()), json.loads(kept.read_text()) if kept.exists() else {}
    table["path"] = os.pathsep.join([str(here / "stand_ins"), os.environ.get("PYTHONPATH", "")])
    rows = []
    for one in table["programs"]:
        name, pattern = f"{one['repo']}/{one['path']}", one.get("loss", table["loss"])
        if name not in results or re.search(again, name):
            job = {"path": str(Path(clones, name).resolve()), "patches": one.get("patches", []), "lr": table["lr"]}
            pairs = {who: run(job | {"variant": who}, pattern, table) for who in VARIANTS}
            runs, ends = ({who: pair[k] for who, pair in pairs.items()} for k in range(2))
            numbers = {who: result["numbers"] for who, result in runs.items()}
            results[name] = {**one, "commit": table["commits"][one["repo"]], "runs": runs}
            for measure, apart, of in zip(MEASURES, (printed_apart, moved_apart), (numbers, ends), strict=True):
                results[name][measure] = {who: apart(of["original"], of[who]) for who in VARIANTS[1:]}
            kept.write_text(json.dumps(results, indent=1))
        rows.append(row(results[name]))
        print(name, *rows[-1][2:], flush=True)
    lines = ["| " + " | ".join(cells) + " |" for cells in (HEAD, ["---"] * len(HEAD), *rows)]
    versions = ", ".join(f"{package} {version(package)}" for package in table["packages"])
    Path(out, "ecosystem.md").write_text(f"{table['head']}\n{versions}.\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
