"""Run the cells of a page in docs/, and show them with what they display: `python tools/page.py docs/scale.md`."""

import ast
import re
import sys
from pathlib import Path


def cells_of(path):
    """Return the code of the cells in a page, one after the other."""
    return re.findall(r"^```\{code-cell\} python3\n(.*?)^```", Path(path).read_text(), re.S | re.M)


def run(code, space):
    """Run a cell; return what its last line gives, or None."""
    *body, last = ast.parse(code).body
    shown = isinstance(last, ast.Expr)
    exec(compile(ast.Module(body if shown else [*body, last], []), "cell", "exec"), space)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), space) if shown else None


if __name__ == "__main__":
    space = {}
    for code in cells_of(sys.argv[1]):
        print("\n".join(f"    {line}" for line in code.strip().splitlines()))
        if (value := run(code, space)) is not None:
            print(value)
        print(flush=True)
