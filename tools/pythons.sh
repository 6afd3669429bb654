#!/bin/sh
# Which Pythons are here? For each version that is asked for, the path of one that runs and can make an environment.
for version in "$@"; do
  for python in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python \
    "${UV_PYTHON_INSTALL_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/uv/python}/cpython-$version".*/bin/python3 python3; do
    "$python" - "$version" 2>/dev/null <<'CHECK' && break
import sys
from importlib.util import find_spec

assert "%d.%d" % sys.version_info[:2] == sys.argv[1] and find_spec("venv") and (find_spec("pip") or find_spec("ensurepip"))
print(sys.executable)
CHECK
  done
done
