"""Do the tests pass on each of these Pythons, with the newest versions that pip finds for it?

``python tools/matrix.py PYTHON...`` makes an environment for each under build/matrix, prints the table and writes it to
docs/results/matrix.md.
"""

import subprocess
import sys
import xml.etree.ElementTree as ET
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build/matrix"
PACKAGES = ["jax", "brainstate", "braintools", "numpy"]
OUTCOMES = ["passed", "failed", "skipped"]
HEAD = f"""# The Pythons that were run

Made by `make matrix` on {date.today()}: every test and docstring example, on each Python with the newest versions that
pip found for it on that day, on {sys.platform}, CPU. A test is skipped if it needs an accelerator, an optional package
or the nightly profile, or if a ledger says that it must fail.
"""


def shell(*command, **options):
    return subprocess.run([str(part) for part in command], text=True, **options)


def install(python, name):
    """Make the environment `name` and return its Python."""
    env = BUILD / name
    if shell(python, "-m", "venv", env, capture_output=True).returncode:  # Debian keeps ensurepip elsewhere
        shell(python, "-m", "venv", "--clear", "--without-pip", env, check=True)
        shell(python, "-m", "pip", "--python", env, "install", "-qq", "pip", check=True)
    pip = [env / "bin/python", "-m", "pip", "-qq", "install", "--upgrade", "--upgrade-strategy", "eager"]
    shell(*pip, "-e", f"{ROOT}[test]", check=True)
    return env / "bin/python"


def judged(python, name):
    """Run the tests; return how many had each outcome."""
    report = BUILD / f"{name}.xml"
    shell(python, "-m", "pytest", "--ignore", "tests/test_sync.py", f"--junitxml={report}", cwd=ROOT)
    suite = ET.parse(report).getroot().find("testsuite").attrib
    total, failed, skipped = (sum(int(suite[key]) for key in keys) for keys in
                              (["tests"], ["failures", "errors"], ["skipped"]))  # fmt: skip
    return dict(zip(OUTCOMES, (total - failed - skipped, failed, skipped), strict=True))


def versions(python):
    code = f"import sys, importlib.metadata as m; print(sys.version.split()[0], *map(m.version, {PACKAGES}))"
    return shell(python, "-c", code, check=True, capture_output=True).stdout.split()


def main(pythons):
    BUILD.mkdir(parents=True, exist_ok=True)
    lines = [" | ".join(["", "Python", *PACKAGES, *OUTCOMES, ""]).strip(), "| --- " * 8 + "|"]
    bad = 0
    for k, python in enumerate(pythons, 1):
        version = "import sys; print('%d.%d' % sys.version_info[:2])"
        name = shell(python, "-c", version, capture_output=True, check=True).stdout.strip()
        print(f"\n== {k} of {len(pythons)}: Python {name} ({python})", flush=True)
        inside = install(python, name)
        found = judged(inside, name)
        bad += found["failed"]
        lines.append(f"| {' | '.join([*versions(inside), *(str(found[key]) for key in OUTCOMES)])} |")
    print("", *lines, sep="\n")
    (ROOT / "docs/results/matrix.md").write_text("\n".join([HEAD, *lines]) + "\n")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
