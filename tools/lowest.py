"""Print pyproject.toml's lower bounds as pins, for `make lowest`."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))["project"]
extras = project["optional-dependencies"]
pins = {}
for requirement in [*project["dependencies"], *extras["conformance"], *extras["test"]]:
    if bound := re.fullmatch(r"([\w-]+)>=([\w.]+)", requirement):
        pins[bound[1]] = bound[2]  # an extra may ask for more than the one it builds on
print(*(f"{package}=={version}" for package, version in pins.items()), sep="\n")
