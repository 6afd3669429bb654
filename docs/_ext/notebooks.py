"""Mirror nbs/*.ipynb into docs/ before each build, with nbdev's ``#|`` directives turned into myst-nb's cell tags.

A mirror, because Sphinx reads one folder only and a symbolic link would break the links between notebooks.
"""

import json
import re
from pathlib import Path

DIRECTIVE = re.compile(r"#\s*\|\s*([\w-]+)\s*:?\s*(.*?)\s*$")
TAGS = {  # the hidden cells run too: later ones may need them
    "hide": "remove-cell",
    "default_exp": "remove-cell",
    "include: false": "remove-cell",
    "echo: false": "remove-input",
    "output: false": "remove-output",
    "code-fold: true": "hide-input",
    "eval: false": "skip-execution",
}
FIGURE = re.compile(r"!\[[^\]]*\]\(\.\./docs/(_static/[\w-]+\.svg)\)")


def split(source):
    """Return the tags that the leading directives of `source` stand for, and the lines below them."""
    lines, tags = source.splitlines(), set()
    while lines and (match := DIRECTIVE.match(lines[0])):
        name, value = match.groups()
        tags.add(TAGS.get(name if name in TAGS else f"{name}: {value}".lower()))
        del lines[0]
    return sorted(tags - {None}), "\n".join(lines).strip("\n")


def page(text, contents=""):
    """Return the notebook `text` as the site shows it; `contents` becomes its last cell."""
    nb = json.loads(text)
    nb["metadata"]["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nb["metadata"]["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    for cell in nb["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            tags, source = split(source)
            cell["metadata"]["tags"] = tags
        else:  # a drawing of ours goes into the page itself, where it takes the page's colours
            source = FIGURE.sub(r"```{raw} html\n:file: \1\n```", source)
        cell["source"] = source
    nb["cells"] = [cell for cell in nb["cells"] if cell["source"]]
    if contents:
        nb["cells"].append({"cell_type": "markdown", "id": "contents", "metadata": {}, "source": contents})
    return json.dumps(nb, indent=1)


def mirror(app, config):
    docs = Path(app.srcdir)
    pages = {path.name: path.read_text("utf-8") for path in (docs.parent / "nbs").glob("*.ipynb")}
    for name, text in pages.items():
        contents = (docs / "_contents.md").read_text("utf-8") if name == "index.ipynb" else ""
        (docs / name).write_text(page(text, contents), "utf-8")
    for path in docs.glob("*.ipynb"):
        if path.name not in pages:
            path.unlink()


def setup(app):
    app.connect("config-inited", mirror)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
