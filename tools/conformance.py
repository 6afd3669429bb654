"""Put the reports of several runs of adadelta-conformance into one: python tools/conformance.py FILE..."""

import json
import sys
from pathlib import Path

pages = [json.loads(Path(file).read_text("utf-8")) for file in sys.argv[1:]]
found = {}
for page in sorted(pages, key=lambda page: -len(page["implementations"])):  # what is judged alone is the exception
    for name, row in page["implementations"].items():
        row["made_with"] = page["made_with"]
        versions = row["versions"]
        found[name if name not in found else f"{name} {next(iter(versions.values()))}"] = row
order = ["braintools_adadelta", "braintools"]
names = sorted(found, key=lambda name: (name.split()[0] not in order, name))
print(json.dumps({"implementations": {name: found[name] for name in names}}, indent=1, ensure_ascii=False))
