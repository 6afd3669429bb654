"""How does every known implementation do? Judge each at the versions of its ledger and write docs/conformance.json.

``python tools/conformance.py PYTHON`` makes an environment from that Python for each version in the ledgers, under
build/conformance. What the environment of this tool has is judged here, at the newest version only.
``--list`` prints the environments and what is judged in each; ``--requirements NAME`` prints what the newest version of
one implementation needs.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from braintools_adadelta.conformance import adapters, ledgers

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build/conformance"
HERE = ["braintools_adadelta", "braintools", "optax"]
KIT = ["numpy", "mpmath", "pytest"]  # what the kit itself needs


def environments():
    """Return {requirements of an environment: the implementations that are judged in it}; () is this environment."""
    found = {(): HERE}
    for name in adapters.KNOWN:
        ledger, here = ledgers.read(name), name in HERE
        for requirements in ledger.requirements()[here:]:
            if not (here and f"{ledger.package}=={adapters.installed(ledger.package)}" in requirements):
                found.setdefault(requirements, []).append(name)
    return found


def label(requirements):
    return "-".join(requirements).replace("==", "-") or "here"


def environment(python, requirements):
    """Make the environment that has the `requirements` and return its Python."""
    if not requirements:
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
    if code := subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode:
        sys.exit(code)
    return json.loads(file.read_text("utf-8"))


def merged(pages):
    """Return several reports as one. Another version of an implementation is named after it."""
    found = {}
    for page in pages:
        for name, row in page["implementations"].items():
            row["made_with"] = page["made_with"]
            found[name if name not in found else f"{name} {next(iter(row['versions'].values()))}"] = row
    names = sorted(found, key=lambda name: (name.split()[0] not in adapters.DEFAULT, name))
    return {"implementations": {name: found[name] for name in names}}


def main(option, name=None):
    if option == "--requirements":
        print(*ledgers.read(name).requirements()[0])
    elif option == "--list":
        for requirements, names in environments().items():
            print(f"{label(requirements)}: {' '.join(names)}")
    else:
        BUILD.mkdir(parents=True, exist_ok=True)
        pages = [
            judged(environment(option, requirements), names, BUILD / f"{label(requirements)}.json")
            for requirements, names in environments().items()
        ]
        text = json.dumps(merged(pages), indent=1, ensure_ascii=False) + "\n"
        (ROOT / "docs/conformance.json").write_text(text, "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
