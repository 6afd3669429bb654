"""Train a small network on handwritten digits with our Adadelta and with braintools', side by side.

Both start from the same weights and see the same batches. Printed are loss and accuracy, the optimizer's share of a
training step, and, for updates sampled along the way, how far each stored number is from the exact one, in ulps. The
exit status is 1 if ours leaves its proved bound or ends below 90 % accuracy.
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", category=UserWarning)  # braintools tells of optional packages that it misses

import brainstate
import braintools
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import braintools_adadelta
from braintools_adadelta.oracle import ulp
from braintools_adadelta.oracle.bounds import ANY, PLAIN, bounds
from braintools_adadelta.oracle.exact import exact, largest_root, step

OPTIONS = {"lr": 1.0, "rho": 0.9, "eps": 1e-6}
FIELDS = ("e_g2", "e_delta2", "theta")
TITLES = {"e_g2": "E[g2]", "e_delta2": "E[Delta2]", "theta": "theta"}


class Run:
    """One network, one optimizer, and what is observed of them."""

    def __init__(self, name, optimizer, form, memory):
        brainstate.random.seed(0)
        self.name, self.optimizer, self.form, self.memory = name, optimizer, form, memory
        self.network = brainstate.nn.Sequential(
            brainstate.nn.Linear(64, 128), brainstate.nn.ReLU(), brainstate.nn.Linear(128, 10)
        )
        self.states = self.network.states(brainstate.ParamState)
        optimizer.register_trainable_weights(self.states)
        self.losses, self.accuracies, self.ulps, self.outside = [], [], [], 0
        gradient = brainstate.transform.grad(self.loss, self.states, return_value=True)

        def train(x, y):
            grads, loss = gradient(x, y)
            optimizer.update(grads)
            return loss, grads

        self.train, self.gradient = brainstate.transform.jit(train), brainstate.transform.jit(gradient)
        self.predict = brainstate.transform.jit(lambda x: self.network(x).argmax(-1))

    def loss(self, x, y):
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(self.network(x)), y[:, None], 1))

    def stored(self):
        """Return theta, E[g2] and E[Delta2] as they are stored, each laid end to end."""
        e_g2, e_delta2 = self.memory(self.optimizer.opt_state.value)
        theta = {key: state.value for key, state in self.states.items()}
        return {"theta": lay(theta), "e_g2": lay(e_g2), "e_delta2": lay(e_delta2)}

    def judged(self, x, y, sample):
        """Take a training step and compare the elements `sample` of what it stored with the exact values."""
        before = {field: values[sample] for field, values in self.stored().items()}
        loss, grads = self.train(x, y)
        after, g = {field: values[sample] for field, values in self.stored().items()}, exact(lay(grads)[sample])
        given = [exact(before[field]) for field in ("theta", "e_g2", "e_delta2")]
        options = OPTIONS | {"largest": largest_root(ulp.float32)}
        truth = step(given[0], g, *given[1:], **options)
        allowed = bounds(truth, *given, fmt=ulp.float32, form=self.form, **options)
        worst = {}
        for field in FIELDS:
            rows = list(zip(after[field], getattr(truth, field), getattr(allowed, field), strict=True))
            # theta may come to rest near zero: its unit is that of the larger of theta before and after.
            sizes = [
                max(abs(want), abs(start)) if field == "theta" else want
                for (_, want, _), start in zip(rows, given[0], strict=True)
            ]
            worst[field] = max(
                float(abs(ulp.fraction(got) - ulp.fraction(want)) / ulp.ulp(size, ulp.float32))
                for (got, want, _), size in zip(rows, sizes, strict=True)
            )
            self.outside += sum(abs(exact(got)[0] - want) > bound for got, want, bound in rows)
        self.ulps.append(worst)
        return loss

    def share(self, x, y, repeats=200):
        """Return which part of the time of a compiled training step the optimizer takes."""

        def median(f):
            times = []
            for _ in range(repeats):
                start = time.perf_counter()
                jax.block_until_ready(f(x, y))
                times.append(time.perf_counter() - start)
            return np.median(times)

        self.gradient(x, y)
        whole, without = median(self.train), median(self.gradient)
        return 1 - without / whole, whole


def lay(tree):
    """Lay the arrays of `tree` end to end. Both optimizers keep the parameters in the same order."""
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def picture(runs, judged_at, path):
    """Draw losses, accuracies and ulps along the way, and save them at `path`."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, (loss, accuracy, ulps) = plt.subplots(1, 3, figsize=(13, 3.8))
    for run, style in zip(runs, ("-", "--"), strict=True):
        loss.semilogy(run.losses, style, label=run.name, alpha=0.8)
        accuracy.plot(run.accuracies, style, label=run.name)
        for k, field in enumerate(FIELDS):
            line = [worst[field] for worst in run.ulps]
            ulps.plot(judged_at, line, "o" + style, ms=3, color=f"C{k}", label=f"{TITLES[field]}, {run.name}")
    loss.set(xlabel="step", title="training loss")
    accuracy.set(xlabel="epoch", title="test accuracy")
    ulps.set(xlabel="step", title="largest error of one step, in ulps", ylim=(0, None))
    for ax in (loss, accuracy):
        ax.legend(frameon=False)
    ulps.legend(frameon=False, fontsize=6)
    fig.tight_layout()
    fig.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30, help="passes over the data (default: %(default)s)")
    parser.add_argument(
        "--samples", type=int, default=100, help="elements judged at each sampled step (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("build/demo"), help="folder of the figure (default: %(default)s)"
    )
    arguments = parser.parse_args()

    x, y = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split((x / 16).astype(np.float32), y, test_size=0.25, random_state=0, stratify=y)
    original = braintools.optim.Adadelta(**OPTIONS)
    runs = [
        Run("braintools_adadelta", braintools_adadelta.Adadelta(**OPTIONS), PLAIN, lambda value: value),
        Run("braintools", original, ANY, lambda chain: next((p.e_g, p.e_x) for p in chain if hasattr(p, "e_g"))),
    ]
    size = runs[0].stored()["theta"].size
    print(f"digits: {len(x)} to train, {len(x_test)} to test; {size} parameters; {jax.devices()[0]}")

    rng, batch = np.random.default_rng(0), 64
    steps = arguments.epochs * (len(x) // batch)
    judged_at = sorted({0, 1, 2, *np.linspace(3, steps - 1, 17, dtype=int).tolist()})
    with tqdm(total=steps, unit="step", disable=None) as bar:
        for t in range(steps):
            if t % (len(x) // batch) == 0:
                order = rng.permutation(len(x))
                for run in runs:
                    run.accuracies.append(float((run.predict(x_test) == y_test).mean()))
            rows = np.roll(order, -t * batch)[:batch]
            sample = rng.choice(size, arguments.samples, replace=False) if t in judged_at else None
            for run in runs:
                data = jnp.asarray(x[rows]), jnp.asarray(y[rows])
                loss = run.train(*data)[0] if sample is None else run.judged(*data, sample)
                run.losses.append(float(loss))
            bar.set_postfix({"loss": f"{runs[0].losses[-1]:.4f}"}, refresh=False)
            bar.update()

    print(f"\n{'':22}{'loss':>10}{'accuracy':>10}   largest error of a step, in ulps      the optimizer's share")
    print(f"{'':22}{'':20}   " + "".join(f"{TITLES[f]:>12}" for f in FIELDS) + "   of a compiled step")
    for run in runs:
        run.accuracies.append(float((run.predict(x_test) == y_test).mean()))
        loss = np.mean(run.losses[-(len(x) // batch) :])
        worst = "".join(f"{max(w[f] for w in run.ulps):12.2f}" for f in FIELDS)
        share, whole = run.share(*data)
        print(f"{run.name:22}{loss:10.4f}{run.accuracies[-1]:10.1%}   {worst}   {share:6.0%} of {whole * 1e6:.0f} us")
    judged = len(judged_at) * arguments.samples
    print(
        f"\n{judged} updates judged for each, {judged * len(FIELDS)} numbers; outside the bound: "
        + ", ".join(f"{run.name} {run.outside}" for run in runs)
    )

    arguments.out.mkdir(parents=True, exist_ok=True)
    picture(runs, judged_at, arguments.out / "digits.png")
    print(f"figure: {arguments.out / 'digits.png'}")
    if runs[0].outside or runs[0].accuracies[-1] < 0.9:
        sys.exit("FAILED: ours left its bound, or is below 90 % accuracy")


if __name__ == "__main__":
    main()
