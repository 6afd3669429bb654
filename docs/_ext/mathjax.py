"""Serve MathJax from the site itself: the PyPI package's copy, trimmed to what pages load."""

from importlib.resources import as_file, files
from pathlib import Path

from sphinx.util.fileutil import copy_asset

FONTS = "output/chtml/fonts/woff-v2"


def copy(app, exception):
    if exception is None and app.builder.format == "html":
        with as_file(files("sphinx-mathjax-offline") / "static/mathjax") as source:
            target = Path(app.outdir, "_static/mathjax")
            copy_asset(source / "tex-chtml-full.js", target)
            copy_asset(source / FONTS, target / FONTS)


def setup(app):
    app.setup_extension("sphinx.ext.mathjax")
    app.config.mathjax_path = "mathjax/tex-chtml-full.js"
    app.connect("build-finished", copy)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
