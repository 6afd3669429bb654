"""Which versions does a make target install? Find the newest for each Python and write constraints.txt."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEAD = """\
# The exact version of everything that a make target installs, made by `make pins`. A line that ends in
# a condition holds for the Pythons that meet it; any other line holds for all.
"""

# torch, in the extra of the benchmark, wants another sympy than the rest.
resolve = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
resolve += ["--extra", "dev", "--extra", "orbax", "--no-annotate", "--no-header", "--upgrade", "pyproject.toml"]
pins = subprocess.run([sys.executable, "-m", *resolve], cwd=ROOT, check=True, capture_output=True, text=True).stdout
(ROOT / "constraints.txt").write_text(HEAD + pins)
