"""Whole training steps, with an optimizer in them: ours, the original, or one that leaves everything as it is."""

import os
import sys
import tempfile

import numpy as np

BATCH = 64


def idle():
    """Return an optimizer that only keeps the gradients, so that they are computed: what a step takes without it."""
    import brainstate
    from braintools.optim import Adadelta

    class Idle(Adadelta):
        def update(self, grads):
            self.gradients.value = grads

        def register_trainable_weights(self, states):
            super().register_trainable_weights(states)
            self.gradients = brainstate.ShortTermState({key: state.value for key, state in states.items()})
            return self

    return Idle


def digits(brainstate):
    """The network of examples/digits.py."""
    layers = brainstate.nn.Linear(64, 128), brainstate.nn.ReLU(), brainstate.nn.Linear(128, 10)
    return brainstate.nn.Sequential(*layers), np.random.default_rng(0).normal(size=(BATCH, 64))


def gated(brainstate):
    """A GRU of 128 units that reads 50 steps of time, and the readout of its last state."""

    class Network(brainstate.nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.out = brainstate.nn.GRUCell(32, 128), brainstate.nn.Linear(128, 10)

        def __call__(self, xs):
            brainstate.nn.init_all_states(self.cell, batch_size=BATCH)
            return self.out(brainstate.transform.for_loop(self.cell, xs)[-1])

    return Network(), np.random.default_rng(0).normal(size=(50, BATCH, 32))


def spiking(brainstate):
    """128 leaky integrate-and-fire neurons that drive one another, for 50 steps of time; the mean of their readout."""
    import jax.numpy as jnp

    class Network(brainstate.nn.Module):
        def __init__(self):
            super().__init__()
            self.drive = brainstate.nn.Linear(100 + 128, 128)
            self.out = brainstate.nn.Linear(128, 10)
            self.v, self.spikes = (brainstate.HiddenState(jnp.zeros((BATCH, 128))) for _ in range(2))

        def advance(self, x):
            current = self.drive(jnp.concatenate([x, self.spikes.value], -1))
            v = 0.9 * self.v.value * (1 - self.spikes.value) + current
            self.v.value, self.spikes.value = v, brainstate.surrogate.relu_grad(v - 1)
            return self.out(self.spikes.value)

        def __call__(self, xs):
            self.v.value = self.spikes.value = jnp.zeros((BATCH, 128))
            return brainstate.transform.for_loop(self.advance, xs).mean(0)

    return Network(), np.random.default_rng(0).random((50, BATCH, 100)) < 0.1


def train(network, cls):
    """Return a form: the compiled training step of a network, as in examples/digits.py."""
    import brainstate
    import jax
    import jax.numpy as jnp

    def form(workload):
        brainstate.random.seed(0)
        net, x = network(brainstate)
        x, y = jnp.asarray(x, jnp.float32), jnp.arange(BATCH) % 10
        states = net.states(brainstate.ParamState)
        optimizer = cls(lr=1.0, rho=0.9, eps=1e-6)
        optimizer.register_trainable_weights(states)

        def loss(x, y):
            return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(net(x)), y[:, None], 1))

        gradient = brainstate.transform.grad(loss, states, return_value=True)

        @brainstate.transform.jit
        def step(x, y):
            grads, loss = gradient(x, y)
            optimizer.update(grads)
            return loss

        return waiting_for(lambda: step(x, y))

    return form


def program(cls):
    """Return a form: a program of others, run with another optimizer, and then a step of its own training."""

    def form(workload):
        os.environ["MPLBACKEND"] = "Agg"
        os.chdir(tempfile.mkdtemp())  # where it may write what it likes
        sys.path.insert(0, workload["tools"])
        import swapped  # of the project's tools

        swapped.swap(cls, workload["lr"])
        space = swapped.execute(workload["path"], workload["patches"])
        code = compile(workload["step"], workload["path"], "eval")
        return waiting_for(lambda: eval(code, space))

    return form


def waiting_for(step):
    """Return `step`, and a function that waits until what it returned last is there."""
    import jax

    last = []

    def go():
        last[:] = [step()]

    return go, lambda: jax.block_until_ready(last)


def forms(cls):
    networks = {"digits": digits, "recurrent": gated, "spiking": spiking}
    return {name: train(network, cls) for name, network in networks.items()} | {"program": program(cls)}


def ours():
    from braintools_adadelta import Adadelta

    return forms(Adadelta)


def original():
    from braintools.optim import Adadelta

    return forms(Adadelta)


LIBRARIES = {"braintools_adadelta": ours, "braintools": original, "idle": lambda: forms(idle())}
