"""How accurate is one step of each real Adadelta, torch's too? Measure it and write docs/results/accuracy.md.

All of them step from the same million states.
"""

import itertools
import sys
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import sampled_errors  # noqa: E402

KINDS = {
    "first": "on a first step, where both averages are zero:",
    "settled": "from averages of any size, over twelve decades and ten:",
}
TEXT = """# The accuracy of others

Made by `make accuracy`: one float32 step of each implementation's own code from the same 1,048,576 states,
eps = 1e-6, against the step in double precision. Worst and mean error in ulps of the result.

Of the {count} errors of ours in these tables, {least} are not larger than that of any other in the same table.
optax and torch round E[g2] equally often, ours less; see [the analysis](../12_error_analysis.ipynb)."""
HEAD = ["", "| | E[g2] | Delta | E[Delta2] |", "| --- | --- | --- | --- |"]


def by_torch(foreach):
    """Return a step of torch.optim.Adadelta itself. From zero and with lr = 1, the new parameter is Delta."""

    def step(g, e_g2, e_delta2):
        theta, g, e_g2, e_delta2 = (torch.from_numpy(np.array(x)) for x in (0 * g, g, e_g2, e_delta2))
        theta.requires_grad_(True).grad = g
        rho, eps = sampled_errors.RHO, sampled_errors.EPS
        optimizer = torch.optim.Adadelta([theta], lr=1.0, rho=rho, eps=eps, foreach=foreach)
        optimizer.state[theta] = {"step": torch.tensor(0.0), "square_avg": e_g2, "acc_delta": e_delta2}
        optimizer.step()
        return e_g2.numpy(), theta.detach().numpy(), e_delta2.numpy()

    return step


def main():
    platform = f"{jax.default_backend()}, jax {jax.__version__}"
    steps = {
        f"**braintools_adadelta** ({platform})": jax.jit(sampled_errors.ours),
        f"optax {version('optax')} ({platform}); braintools is made of it": jax.jit(sampled_errors.by_optax),
        f"torch {torch.__version__}, foreach": by_torch(True),
        f"torch {torch.__version__}, a loop": by_torch(False),
    }
    lines, least = [], []
    for sampled_errors.RHO, (kind, title) in itertools.product((0.9, 0.99), KINDS.items()):
        lines += ["", f"rho = {sampled_errors.RHO}, {title}", *HEAD]
        state = sampled_errors.states(kind, 2**20)
        jax.clear_caches()  # rho is a constant of the compiled steps
        table = []
        for name, step in steps.items():
            errors = sampled_errors.errors(step, state).values()
            table.append([number for x in errors for number in (x.max(), x.mean())])
            cells = [f"{worst:.2f}, {mean:.3f}" for worst, mean in zip(table[-1][::2], table[-1][1::2], strict=True)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
            print(lines[-1])
        ours, *others = table
        least += [x <= min(rest) for x, *rest in zip(ours, *others, strict=True)]
    text = TEXT.format(count=len(least), least=sum(least))
    (ROOT / "docs/results/accuracy.md").write_text("\n".join([text, *lines]) + "\n")


if __name__ == "__main__":
    main()
