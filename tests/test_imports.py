"""What importing costs: the kit needs neither jax nor brainstate, the optimizer nothing of what it is compared with."""

import subprocess
import sys

import pytest

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
"""


@pytest.mark.parametrize(
    ("code", "blocked"),
    [
        (
            "from braintools_adadelta.conformance import judge, cases, test_clauses, adapters;"
            "assert adapters.load('braintools_adadelta.conformance.corpus:Numpy').name == 'Numpy'",
            ["jax", "jaxlib", "brainstate", "braintools", "ml_dtypes"],
        ),
        (
            "import braintools_adadelta as b, jax.numpy as jnp, brainstate;"
            "w = brainstate.ParamState(jnp.ones(2));"
            "b.Adadelta().register_trainable_weights({'w': w}).update({'w': jnp.ones(2)});"
            "assert {'Adadelta', 'LRScheduler', 'scale_by_adadelta'} <= set(dir(b))",
            ["braintools", "optax", "torch", "mpmath", "hypothesis", "pytest", "fastcore", "nbdev"],
        ),
    ],
    ids=["kit", "optimizer"],
)
def test_import_without(code, blocked, request):
    code = BLOCK.replace("{blocked}", repr(set(blocked))) + f"sys.path.append({str(request.path.parent)!r})\n" + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_unknown_names_are_refused():
    import braintools_adadelta

    with pytest.raises(AttributeError, match="no attribute 'Adagrad'"):
        braintools_adadelta.Adagrad  # noqa: B018
