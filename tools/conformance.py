"""How does every known implementation do? Judge each at the versions of its ledger and write docs/conformance.json.

``python tools/conformance.py PYTHON`` makes an environment from that Python for each version in the ledgers, under
build/conformance. What the environment of this tool has is judged here, at the newest version only.
``python tools/conformance.py PYTHON NAME ...`` judges these again and keeps the rest of the file. ``--list`` prints the
environments and what is judged in each; ``--requirements NAME`` prints what the newest version of one implementation
needs.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from braintools_adadelta.conformance import adapters, ledgers

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build/conformance"
HERE = ["braintools_adadelta", "braintools", "optax", "cpp"]
FILE = ROOT / "docs/conformance.json"
NEEDS = {"tfjs": "npm", "cpp": "g++"}  # programs that are not installed by pip
KIT = ["numpy", "mpmath", "pytest"]  # what the kit itself needs


def environments():
    """Return {requirements of an environment: the implementations that are judged in it}; () is this environment."""
    found = {(): HERE}
    for name in adapters.KNOWN:
        ledger, here = ledgers.read(name), name in HERE
        for requirements in ledger.requirements()[here and len(ledger.versions) > 0 :]:
            if not (here and f"{ledger.package}=={adapters.installed(ledger.package)}" in requirements):
                found.setdefault(requirements, []).append(name)
    return found


def label(requirements):
    name = "-".join(requirements).replace("==", "-")
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in name) or "here"


def environment(python, requirements):
    """Make the environment that has the `requirements` and return its Python. For a package of npm it is this one."""
    if not requirements:
        return Path(sys.executable)
    if requirements[0].startswith(ledgers.NPM):
        package = requirements[0].removeprefix(ledgers.NPM)
        subprocess.run(["npm", "install", "--silent", "--prefix", BUILD / label(requirements), package], check=True)
        return Path(sys.executable)
    inside = BUILD / label(requirements) / "bin/python"
    if not inside.exists():
        subprocess.run([sys.executable, "-m", "uv", "venv", "-q", "-p", python, inside.parent.parent], check=True)
    install = [sys.executable, "-m", "uv", "pip", "install", "-q", "-p", inside, *requirements, *KIT]
    subprocess.run(install, check=True)
    return inside


def judged(python, names, file):
    """Run the command on `names` and return its report. An implementation that does not conform ends the tool."""
    command = [python, "-m", "braintools_adadelta.conformance", *names, "--json", file]
    env = {"PYTHONPATH": str(ROOT), "NODE_PATH": str(file.with_suffix("") / "node_modules")}
    if code := subprocess.run(command, env=os.environ | env).returncode:
        sys.exit(code)
    return json.loads(file.read_text("utf-8"))


def kept(again):
    """Return the report as it is, without those that were judged again."""
    found = json.loads(FILE.read_text("utf-8"))["implementations"]
    return {"implementations": {k: row for k, row in found.items() if k.split()[0] not in again}, "made_with": None}


def merged(pages):
    """Return several reports as one. Another version of an implementation is named after it."""
    found = {}
    for page in pages:
        for name, row in page["implementations"].items():
            row.setdefault("made_with", page["made_with"])
            found[name if name not in found else f"{name} {next(iter(row['versions'].values()))}"] = row
    names = sorted(found, key=lambda name: (name.split()[0] not in adapters.DEFAULT, name))
    return {"implementations": {name: found[name] for name in names}}


def report_of(python, requirements, names):
    file = BUILD / f"{label(requirements)}.json"
    return judged(environment(python, requirements), names, file)


def main(option, *more):
    if option == "--requirements":
        print(*ledgers.read(more[0]).requirements()[0])
    elif option == "--list":
        for requirements, names in environments().items():
            print(f"{label(requirements)}: {' '.join(names)}")
    else:
        BUILD.mkdir(parents=True, exist_ok=True)
        chosen = {k: [x for x in names if not more or x in more] for k, names in environments().items()}
        lacking = {name for name, program in NEEDS.items() if not shutil.which(program)}
        for name in lacking:
            print(f"left out: {name}, because there is no {NEEDS[name]}")
        chosen = {k: rest for k, names in chosen.items() if (rest := [x for x in names if x not in lacking])}
        pages = [report_of(option, requirements, names) for requirements, names in chosen.items()]
        if more or lacking:  # the others stay as they are
            pages.insert(0, kept({name for page in pages for name in page["implementations"]}))
        text = json.dumps(merged(pages), indent=1, ensure_ascii=False) + "\n"
        FILE.write_text(text, "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
