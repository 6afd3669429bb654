"""The site: the book, executed from nbs/, and the API pages. Nothing is fetched when it is built or read."""

import hashlib
import html
import inspect
import logging
import os
import sys
from configparser import ConfigParser
from pathlib import Path

from docutils import nodes
from sphinx.util.logging import getLogger

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(Path(__file__).parent / "_ext"))
settings = ConfigParser()
settings.read(ROOT / "settings.ini")

project = settings["DEFAULT"]["lib_name"]
author = settings["DEFAULT"]["author"]
release = version = settings["DEFAULT"]["version"]
copyright = author

extensions = ["notebooks", "mathjax", "myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["_*"]

myst_enable_extensions = ["amsmath", "dollarmath", "colon_fence"]
myst_heading_anchors = 3

# An outcome is good as long as the package that computed it: its source is part of the cache's name.
modules = sorted((ROOT / project).rglob("*.py"))
source = hashlib.sha256(b"".join(path.read_bytes() for path in modules)).hexdigest()[:16]
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "build/notebooks" / source)
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_render_markdown_format = "myst"  # a displayed Markdown table is a table

# Kernels start without the reader's own IPython profile, and speak up only when something is wrong.
profile = ROOT / "build/ipython/profile_default"
profile.mkdir(parents=True, exist_ok=True)
(profile / "ipython_kernel_config.py").write_text("get_config().Application.log_level = 40\n")
os.environ["IPYTHONDIR"] = str(profile.parent)
logging.getLogger("traitlets").setLevel(logging.WARNING)

autodoc_member_order = "bysource"
autodoc_typehints = "none"
add_module_names = False
toc_object_entries_show_parents = "hide"
napoleon_use_rtype = False
# References to ourselves must resolve; the inventories of others would have to be fetched.
nitpick_ignore_regex = [(r"py:.*", rf"(?!{project}).*")]

html_theme = "furo"
html_title = project
pygments_dark_style = "github-dark"
html_static_path = ["_static"]
html_css_files = ["house.css"]
html_js_files = ["scrolling.js"]
html_favicon = "_static/favicon.svg"
html_additional_pages = {"404": "404.html"}
templates_path = ["_templates"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False


def fields_of_records(app, what, name, obj, skip, options):
    """Leave out the fields of named tuples: Python documents them as "Alias for field number ..."."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def description(app, pagename, templatename, context, doctree):
    """Give each page a description: the line below its title, or that of the project."""
    quotes = doctree.findall(nodes.block_quote) if doctree else []
    words = next((quote.astext() for quote in quotes), settings["DEFAULT"]["description"])
    tag = f'<meta name="description" content="{html.escape(" ".join(words.split()))}" />'
    context["metatags"] = context.get("metatags", "") + tag


def levels_of_captions(app, pagename, templatename, context, doctree):
    """Say of which level the captions of the contents are: Sphinx says only that they are headings."""
    if tree := context.get("furo_navigation_tree"):
        context["furo_navigation_tree"] = tree.replace('role="heading"', 'role="heading" aria-level="2"')


def undocumented(app, what, name, obj, options, lines):
    """A public function, class or method without a docstring fails the build."""
    if what in ("function", "class", "method", "property") and not any(lines):
        getLogger(__name__).warning("%s has no docstring", name)


def signature(app, what, name, obj, options, arguments, returns):
    """Show what a class's __init__ takes: the metaclass of brainstate's Node hides it from autodoc."""
    if what == "class" and "__init__" in vars(obj):
        _, *parameters = inspect.signature(obj.__init__).parameters.values()  # without self
        return str(inspect.Signature([p.replace(annotation=p.empty) for p in parameters])), returns


def setup(app):
    app.connect("autodoc-skip-member", fields_of_records)
    app.connect("html-page-context", description)
    app.connect("html-page-context", levels_of_captions, priority=900)  # after the theme
    app.connect("autodoc-process-docstring", undocumented)
    app.connect("autodoc-process-signature", signature)
