"""Check that a wheel holds the package, typed, and nothing else: ``python tools/check_wheel.py WHEEL``."""

import sys
from zipfile import ZipFile

PACKAGE = "braintools_adadelta"
names = ZipFile(sys.argv[1]).namelist()
strays = [n for n in names if not n.startswith((f"{PACKAGE}/", f"{PACKAGE}-")) or n.endswith((".ipynb", ".pyc"))]
if strays or f"{PACKAGE}/py.typed" not in names:
    sys.exit(f"{sys.argv[1]}: strays {strays}, py.typed {'is' if f'{PACKAGE}/py.typed' in names else 'is not'} in it")
print(f"{sys.argv[1]}: {len(names)} files, the package alone, typed")
