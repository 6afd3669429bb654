"""Is README.md what nbs/index.ipynb says? ``python tools/readme.py [--check | --code]``

Executes the notebook and writes what it says and prints. Pictures and links are relative, as a repository shows them;
where settings.ini names a `git_url`, they are absolute, since PyPI shows this file, too, and has no other files.
``--check`` compares and writes nothing. ``--code`` prints only the code of the example.
"""

import re
import sys
from configparser import ConfigParser
from pathlib import Path

from execnb.shell import CaptureShell
from nbdev.process import NBProcessor

ROOT = Path(__file__).parent.parent
settings = ConfigParser()
settings.read(ROOT / "settings.ini")
settings = settings["DEFAULT"]
HIDDEN = {"hide", "default_exp"}


def shown(path):
    """Return the notebook at `path` as nbdev reads it, and those of its cells that readers see."""
    nb = NBProcessor(path, process=True).nb
    return nb, [cell for cell in nb.cells if cell.source.strip() and not HIDDEN & cell.directives_.keys()]


def code(path):
    return "\n\n".join(cell.source.strip() for cell in shown(path)[1] if cell.cell_type == "code") + "\n"


def text_of(output):
    """Return what `output` prints; stderr has the warnings of one machine and is left out."""
    if output.get("name") == "stderr":
        return ""
    return "".join(output.get("text") or output.get("data", {}).get("text/plain", "")).rstrip()


def absolute(source):
    """Return the Markdown `source` with pictures and links to files as the repository at `git_url` serves them."""
    url, branch = settings["git_url"].rstrip("/"), settings["branch"]
    source = re.sub(r"(!\[[^\]]*\]\()(?![a-z]+:)", rf"\1{url}/raw/{branch}/", source)
    return re.sub(r"(?<!!)(\[[^\]]*\]\()(?![a-z]+:|#)", rf"\1{url}/blob/{branch}/", source)


def markdown(path):
    """Execute the notebook at `path` and return it as Markdown, its links seen from the root."""
    nb, cells = shown(path)
    CaptureShell(path).run_all(nb, exc_stop=True)
    blocks = [f"<!-- Made from nbs/{path.name} by tools/readme.py: edit the notebook. -->"]
    for cell in cells:
        source = cell.source.strip()
        if cell.cell_type != "code":
            source = re.sub(r"\]\((?![a-z]+:|[/#.])", "](nbs/", source).replace("](../", "](")
            blocks.append(absolute(source) if settings["git_url"] else source)
            continue
        blocks.append(f"```python\n{source}\n```")
        blocks += [f"```text\n{text}\n```" for text in map(text_of, cell.outputs) if text]
    return "\n\n".join(blocks) + "\n"


def main(option=None):
    readme, notebook = ROOT / "README.md", ROOT / "nbs/index.ipynb"
    if option == "--code":
        sys.stdout.write(code(notebook))
    elif option is None:
        readme.write_text(markdown(notebook), "utf-8")
    elif option != "--check":
        sys.exit(__doc__)
    elif readme.read_text("utf-8") != markdown(notebook):
        sys.exit("README.md is not what nbs/index.ipynb says: run python tools/readme.py")


if __name__ == "__main__":
    main(*sys.argv[1:])
