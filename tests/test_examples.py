"""The examples in docstrings are written for users of either class: each runs with ours and with the original."""

import doctest
import re
import warnings

import braintools
import pytest

import braintools_adadelta

CLASSES = {"ours": braintools_adadelta.Adadelta, "original": braintools.optim.Adadelta}
PAGES = {"our page": braintools_adadelta.Adadelta.__doc__, "the original's page": braintools.optim.Adadelta.__doc__}


@pytest.mark.parametrize("cls", CLASSES.values(), ids=CLASSES)
@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_examples_run_with_either_class(cls, page, monkeypatch):
    monkeypatch.setattr(braintools.optim, "Adadelta", cls)
    monkeypatch.setattr(braintools_adadelta, "Adadelta", cls)
    page = re.sub(r">>>(?=\n)", ">>> pass", page)
    examples = doctest.DocTestParser().get_examples(page)
    # The original's page ignores what its calls return, so the code is run and no output compared.
    source = "\n".join(example.source for example in examples)
    assert source.count("register_trainable_weights") == 3
    space = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(source, space)
    assert isinstance(space["optimizer"], cls) and space["optimizer"].current_lr == 0.5
