"""Each chapter opens with a question, what it takes and gives, and a prediction; it ends with the answer in 3 lines."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parent.parent / "nbs"
CHAPTERS = sorted(path.stem for path in NOTEBOOKS.glob("[0-9]*.ipynb"))


def text_of(name):
    cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text("utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def lacks(name):
    """Return what the chapter `name` lacks."""
    text = text_of(name)
    opening = text.partition("\n## ")[0]
    parts = ("**The question.**", "*You need*", "*You get*", "*Make a prediction")
    answer = text.rpartition("\n## The answer\n")[2].partition("\n## ")[0]
    lines = len(re.findall("^- ", answer, re.M))
    return [part for part in parts if part not in opening] + (["an answer in three lines"] if lines != 3 else [])


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_asks_and_answers(name):
    assert not lacks(name)
