"""How much of a compiled training step does the optimizer take? Measure it and write docs/results/training.md.

There are two small networks of brainstate: one for digits (64-128-10, a batch of 64), and a recurrent one (GRU, 32
inputs, 128 units, 50 steps of time, a batch of 64). Each is trained by our Adadelta and by that of braintools. Steps
with and without the update take turns, and the shortest of 200 are compared.
"""

import time
from pathlib import Path

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np

import braintools_adadelta

ROWS = {"braintools_adadelta": braintools_adadelta.Adadelta, "braintools": braintools.optim.Adadelta}


class Recurrent(brainstate.nn.Module):
    """The last state of a GRU, read out."""

    def __init__(self):
        super().__init__()
        self.cell, self.out = brainstate.nn.GRUCell(32, 128), brainstate.nn.Linear(128, 10)

    def __call__(self, xs):
        brainstate.nn.init_all_states(self.cell, batch_size=xs.shape[1])
        return self.out(brainstate.transform.for_loop(self.cell, xs)[-1])


def digits():
    layers = brainstate.nn.Linear(64, 128), brainstate.nn.ReLU(), brainstate.nn.Linear(128, 10)
    return brainstate.nn.Sequential(*layers), np.random.default_rng(0).normal(size=(64, 64))


def recurrent():
    return Recurrent(), np.random.default_rng(0).normal(size=(50, 64, 32))


def share(make, optimizer, repeats=200):
    """Return the shortest times of a training step and of its gradient alone, and the number of parameters."""
    brainstate.random.seed(0)
    network, x = make()
    x, y = jnp.asarray(x, jnp.float32), jnp.arange(64) % 10
    states = network.states(brainstate.ParamState)
    optimizer.register_trainable_weights(states)

    def loss(x):
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(network(x)), y[:, None], 1))

    gradient = brainstate.transform.grad(loss, states)
    only = brainstate.transform.jit(gradient)
    train = brainstate.transform.jit(lambda x: optimizer.update(gradient(x)))
    times = {train: [], only: []}
    for k in range(repeats + 20):
        for f, taken in times.items():
            start = time.perf_counter()
            jax.block_until_ready((f(x), [state.value for state in states.values()]))
            if k >= 20:
                taken.append(time.perf_counter() - start)
    count = sum(x.size for state in states.values() for x in jax.tree.leaves(state.value))
    return min(times[train]), min(times[only]), count


def main():
    lines = [
        "# The optimizer's share of training",
        "",
        "Made by `python tools/optimizer_share.py` on two cores of a CPU with nothing else to do.",
        "",
        "| network | parameters | optimizer | training step | gradient alone | share of the update |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, make in {"digits": digits, "recurrent": recurrent}.items():
        for who, cls in ROWS.items():
            whole, without, count = share(make, cls(lr=1.0, rho=0.9, eps=1e-6))
            numbers = f"{whole * 1e6:.0f} us | {without * 1e6:.0f} us | {1 - without / whole:.0%}"
            lines.append(f"| {name} | {count} | {who} | {numbers} |")
            print(lines[-1])
    Path(__file__).parent.parent.joinpath("docs/results/training.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
