"""Mirror nbs/*.ipynb into docs/ before each build, with ``#|`` directives turned into what myst-nb understands.

A mirror, because Sphinx reads one folder only and a symbolic link would break the links between notebooks. The order
of the chapters is that of _contents.md, and their numbers are counted from there.
"""

import fnmatch
import json
import re
import shutil
from pathlib import Path

from docutils import nodes

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
LONG = 38  # lines, but for docstrings: a longer cell of the package is folded
DOCSTRING = re.compile(r'r?""".*?"""', re.S)
FIGURE = re.compile(r"!\[[^\]]*\]\(\.\./docs/(_static/[\w-]+\.svg)\)")
DRAWING = r"```{raw} html\n:file: \1\n```"
PLAYGROUND = (  # the picture, for readers without scripts, in what a script makes a playground
    '```{raw} html\n<div class="playground" data-size="small">\n```\n%s\n```{raw} html\n</div>\n'
    '<script src="_static/optimizers.js"></script><script src="_static/playground.js"></script>\n```'
)
DOCS = re.compile(r"\]\(\.\./docs/")
ENTRY = re.compile(r"^([\w*-]+)$", re.M)  # a line of a toctree that names pages; those in folders are no chapters


def split(source):
    """Return the metadata that the leading directives of `source` stand for, and the lines below them."""
    lines, tags, figure, exported = source.splitlines(), set(), {}, False
    while lines and (match := DIRECTIVE.match(lines[0])):
        name, value = match.groups()
        if name == "fig-cap":
            figure["figure"] = {"caption": value}
        elif name == "fig-alt":
            figure["image"] = {"alt": value}
        exported |= name == "export"
        tags.add(TAGS.get(name if name in TAGS else f"{name}: {value}".lower()))
        del lines[0]
    if exported and len(DOCSTRING.sub("", "\n".join(lines)).splitlines()) > LONG:
        tags.add(TAGS["code-fold: true"])
    metadata = {"tags": sorted(tags - {None})} | ({"mystnb": figure} if figure else {})
    return metadata, "\n".join(lines).strip("\n")


def page(text, contents=""):
    """Return the notebook `text` as the site shows it; `contents` becomes its last cell."""
    nb = json.loads(text)
    nb["metadata"]["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nb["metadata"]["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    for cell in nb["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            metadata, source = split(source)
            cell["metadata"].update(metadata)
        else:  # a drawing of ours goes into the page itself, where it takes the page's colours
            source = DOCS.sub("](", FIGURE.sub(PLAYGROUND % DRAWING if "/valley.svg)" in source else DRAWING, source))
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
    shutil.copy(docs.parent / "nbs/book.mplstyle", docs)


def number(app, doctree):
    """Put the number of a chapter before its title."""
    entries = ENTRY.findall((Path(app.srcdir) / "_contents.md").read_text("utf-8"))
    pages = [name for entry in entries for name in fnmatch.filter(sorted(app.env.found_docs), entry)]
    chapters = list(dict.fromkeys(pages))
    if app.env.docname in chapters and (title := next(doctree.findall(nodes.title), None)):
        title.insert(0, nodes.Text(f"{chapters.index(app.env.docname) + 1}. "))


def setup(app):
    app.connect("config-inited", mirror)
    app.connect("doctree-read", number, priority=100)  # before Sphinx collects the titles
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
