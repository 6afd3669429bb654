"""Each way to take a step: the forms of each library. A library is imported only in the process that measures it.

A form takes a workload and returns three functions: one that takes a step, one that waits until it is done, and one that
returns the parameters.
"""

import ctypes
import inspect
import os
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

OPTIONS = {"lr": 1.0, "rho": 0.9, "eps": 1e-6}
HERE = Path(__file__).parent
WORTH_A_THREAD = 2**15  # parameters; with less, one core is faster


def arrays(workload):
    """Return parameters and gradients as numpy arrays: normal numbers, the same for every contender."""
    numbers = np.random.default_rng(0).normal(size=(2, 5000)).astype(np.float32)
    fill = lambda numbers: [np.resize(numbers, workload["shape"]) for _ in range(workload["leaves"])]
    return fill(numbers[0]), fill(numbers[1] * np.float32(0.01))


# ------------------------------------------------------------------------------------- classes on the States of brainstate


def on_states(cls, jit=False, also=lambda optimizer: (), **how):
    """Return a form of an optimizer of brainstate. `also` says what to wait for besides the parameters."""
    import brainstate
    import jax
    import jax.numpy as jnp

    def form(workload):
        theta, g = arrays(workload)
        states = {f"w{k}": brainstate.ParamState(jnp.array(x)) for k, x in enumerate(theta)}
        gradients = {f"w{k}": jnp.array(x) for k, x in enumerate(g)}
        optimizer = cls(**OPTIONS)
        optimizer.register_trainable_weights(states)
        update = lambda gradients: optimizer.update(gradients, **how)
        if jit:
            update = brainstate.transform.jit(update)
        wait = lambda: jax.block_until_ready(([state.value for state in states.values()], also(optimizer)))
        return partial(update, gradients), wait, lambda: [state.value for state in states.values()]

    return form


def ours():
    from braintools_adadelta import Adadelta

    forms = {"eager": on_states(Adadelta), "jit": on_states(Adadelta, jit=True)}
    if "donate" in inspect.signature(Adadelta.step).parameters:
        forms["donated"] = on_states(Adadelta, donate=True)
    return forms


def original():
    from braintools.optim import Adadelta

    memory = lambda optimizer: optimizer.opt_state.value
    return {"eager": on_states(Adadelta, also=memory), "jit": on_states(Adadelta, jit=True)}


# ---------------------------------------------------------------------------------------------------- other frameworks


def compiled(make):
    """Return the forms of a pure function: with new arrays at each step, or in the place of the old ones."""
    import jax
    import jax.numpy as jnp

    def form(workload, donate):
        theta, g = (list(map(jnp.array, xs)) for xs in arrays(workload))
        step, state = make(theta)
        step = jax.jit(step, donate_argnums=(0, 1) if donate else ())
        now = [theta, state]

        def go():
            now[:] = step(*now, g)

        return go, lambda: jax.block_until_ready(now), lambda: now[0]

    return {"jit": partial(form, donate=False), "donated": partial(form, donate=True)}


def optax():
    import optax

    def make(theta):
        optimizer = optax.adadelta(OPTIONS["lr"], OPTIONS["rho"], OPTIONS["eps"])

        def step(theta, state, g):
            updates, state = optimizer.update(g, state, theta)
            return optax.apply_updates(theta, updates), state

        return step, optimizer.init(theta)

    return compiled(make)


def keras():
    import keras

    def build(theta):
        variables = [keras.Variable(x) for x in theta]
        options = {"learning_rate": OPTIONS["lr"], "rho": OPTIONS["rho"], "epsilon": OPTIONS["eps"]}
        optimizer = keras.optimizers.Adadelta(**options)
        optimizer.build(variables)
        return optimizer, variables

    def eager(workload):
        import jax

        theta, g = arrays(workload)
        optimizer, variables = build(theta)
        pairs = [(keras.ops.convert_to_tensor(x), variable) for x, variable in zip(g, variables, strict=True)]
        wait = lambda: jax.block_until_ready([x.value for x in (*variables, *optimizer.variables)])
        return lambda: optimizer.apply_gradients(pairs), wait, lambda: [x.value for x in variables]

    def make(theta):  # as in keras' own training loop
        optimizer, _ = build(theta)
        return lambda theta, state, g: optimizer.stateless_apply(state, g, theta), [
            x.value for x in optimizer.variables
        ]

    return {"eager": eager} | compiled(make)


def torch():
    import torch

    cuda = os.environ.get("ADADELTA_BENCH_DEVICE") not in (None, "cpu") and torch.cuda.is_available()

    def form(workload, foreach):
        move = lambda x: torch.tensor(x, device="cuda" if cuda else "cpu")
        theta, g = (list(map(move, xs)) for xs in arrays(workload))
        parameters = list(map(torch.nn.Parameter, theta))
        for parameter, gradient in zip(parameters, g, strict=True):
            parameter.grad = gradient
        optimizer = torch.optim.Adadelta(parameters, **OPTIONS, foreach=foreach)
        wait = torch.cuda.synchronize if cuda else lambda: None
        return optimizer.step, wait, lambda: [x.detach().cpu().numpy() for x in parameters]

    return {"loop": partial(form, foreach=False), "foreach": partial(form, foreach=True)}


# ------------------------------------------------------------------------------------------------- the limit of a machine


def limit():
    """One pass in C on a CPU; elsewhere a copy that moves as many bytes, 28 for each parameter."""
    if os.environ.get("ADADELTA_BENCH_DEVICE", "cpu") != "cpu":
        return {"copy": copy}
    library, parallel = build_limit()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = {"one core": 1} | ({f"{cores} cores": cores} if parallel and cores > 1 else {})
    return {name: partial(one_pass, library=library, threads=n) for name, n in threads.items()}


def build_limit():
    """Compile limit.c. Return it, and whether it can use several cores."""
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None:
        raise RuntimeError("no C compiler was found")
    command = [compiler, "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC"]
    with tempfile.TemporaryDirectory() as folder:
        for extra in (["-fopenmp"], []):
            file = Path(folder, f"limit{len(extra)}.so")
            done = subprocess.run(
                [*command, *extra, HERE / "limit.c", "-lm", "-o", file], capture_output=True, text=True
            )
            if done.returncode == 0:
                return ctypes.CDLL(file), bool(extra)
    raise RuntimeError(f"{compiler} cannot compile limit.c: {done.stderr.strip()[:200]}")


def one_pass(workload, library, threads):
    theta, g = arrays(workload)
    memory = [[np.zeros_like(x) for x in theta] for _ in range(2)]
    trees = (theta, g, *memory)
    pointers = [(ctypes.c_void_p * len(tree))(*(x.ctypes.data for x in tree)) for tree in trees]
    sizes = (ctypes.c_long * len(theta))(*(x.size for x in theta))
    options = map(ctypes.c_float, OPTIONS.values())
    threads = threads if sum(sizes) >= WORTH_A_THREAD else 1
    call = partial(library.step, len(theta), sizes, *pointers, *options, threads)
    call.arrays = trees  # which must live as long as the pointers
    return call, lambda: None, lambda: theta


def copy(workload):
    import jax
    import jax.numpy as jnp

    size = workload["leaves"] * int(np.prod(workload["shape"]))
    x, step, last = jnp.zeros(size * 7 // 2, jnp.float32), jax.jit(lambda x: x + 1), []

    def go():
        last[:] = [step(x)]

    return go, lambda: jax.block_until_ready(last), lambda: []


LIBRARIES = {
    "limit": limit,
    "braintools_adadelta": ours,
    "braintools": original,
    "optax": optax,
    "torch": torch,
    "keras": keras,
}
