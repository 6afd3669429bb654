"""Train a small network on handwritten digits in several processes, kill one of them, and go on from its checkpoint.

The processes are on this machine, and talk over loopback as they would over a network. Together they always have four
devices. `--layout data` keeps parameters whole on each device, `--layout zero` does so too and cuts the accumulators
(ZeRO-1), `--layout fsdp` cuts both. The exit status is 0 if all went as it should.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

DECAY, DEVICES, BATCH, EVERY = (
    1e-4,
    4,
    256,
    10,
)  # in all processes together; images in a step; steps between checkpoints


# ------------------------------------------------------------------------------------------------------- in a process


def connect(rank, count, port, heartbeat):
    """Become process `rank` of `count`. Without a sign of life for `heartbeat` seconds, JAX ends the others."""
    import jax

    if count > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"localhost:{port}", count, rank, heartbeat_timeout_seconds=heartbeat)
    return jax.make_mesh((DEVICES,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))


class Training:
    """A network whose parameters lie on a mesh, and its optimizer."""

    def __init__(self, mesh, layout):
        import brainstate
        import jax
        import jax.numpy as jnp
        import numpy as np
        from jax.sharding import NamedSharding, PartitionSpec
        from sklearn.datasets import load_digits

        from braintools_adadelta import Adadelta

        self.whole, self.cut = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("x",)))
        brainstate.random.seed(0)
        self.network = brainstate.nn.Sequential(
            brainstate.nn.Linear(64, 32), brainstate.nn.ReLU(), brainstate.nn.Linear(32, 10)
        )
        self.states = self.network.states(brainstate.ParamState)
        for state in self.states.values():
            state.value = jax.tree.map(lambda x: self.put(np.asarray(x), layout == "fsdp"), state.value)
        cut = self.cut if layout == "zero" else None
        self.optimizer = Adadelta(weight_decay=DECAY, accumulator_sharding=cut).register_trainable_weights(self.states)
        self.x, self.y = load_digits(return_X_y=True)
        self.x = (self.x / 16).astype(np.float32)

        def loss(x, y):
            return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(self.network(x)), y[:, None], 1))

        def train(x, y):
            grads, value = brainstate.transform.grad(loss, self.states, return_value=True)(x, y)
            self.optimizer.update(grads)
            return value, grads

        self.train = brainstate.transform.jit(train)
        self.gather = jax.jit(lambda tree: tree, out_shardings=self.whole)

    def put(self, x, cut=False):
        """Return the array `x`, which every process has, as one that they share."""
        import jax

        return jax.device_put(x, self.cut if cut and x.shape[0] % DEVICES == 0 else self.whole)

    def step(self, t):
        """Train on the images of step `t`; return loss and gradients."""
        import numpy as np

        rows = np.random.default_rng(t).choice(len(self.x), BATCH, replace=False)
        return self.train(self.put(self.x[rows], cut=True), self.put(self.y[rows], cut=True))

    def tree(self):
        """Return what a checkpoint has in it."""
        return {"parameters": [s.value for s in self.states.values()], "optimizer": self.optimizer.state_dict()}

    def load(self, tree):
        """Go on from what a checkpoint had in it."""
        for state, value in zip(self.states.values(), tree["parameters"], strict=True):
            state.value = value
        self.optimizer.load_state_dict(tree["optimizer"])

    def numbers(self, tree):
        """Return the arrays of `tree`, whole, laid end to end."""
        import jax
        import numpy as np

        return np.concatenate([np.ravel(x) for x in jax.tree.leaves(self.gather(tree))])


def work(options):
    """Train in one of the processes, from the last checkpoint in the folder if there is one."""
    mesh = connect(options.rank, options.processes, options.port, options.heartbeat)
    import orbax.checkpoint as ocp

    folder = Path(options.folder).absolute()
    training = Training(mesh, options.layout)
    manager = ocp.CheckpointManager(folder / "checkpoints", options=ocp.CheckpointManagerOptions(max_to_keep=2))
    first = manager.latest_step() or 0
    if first:
        training.load(manager.restore(first, args=ocp.args.StandardRestore(training.tree())))
    report = open(folder / f"process-{options.rank}", "a", buffering=1)
    say = lambda **line: print(json.dumps(line), file=report)
    parameters = lambda: training.numbers(training.tree()["parameters"])
    say(step=first, parameters=parameters().tobytes().hex())
    for t in range(first + 1, options.steps + 1):
        loss, grads = training.step(t)
        say(
            step=t, loss=float(loss), gradient=training.numbers([grads[key] for key in training.states]).tobytes().hex()
        )
        if t % EVERY == 0:
            now = parameters().tobytes()
            say(step=t, hash=hashlib.sha256(now).hexdigest(), parameters=now.hex())
            manager.save(t, args=ocp.args.StandardSave(training.tree()))
    manager.wait_until_finished()
    manager.close()


# ----------------------------------------------------------------------------------------------- beside the processes


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def lines_of(folder, rank):
    """Return what process `rank` has reported so far."""
    path = Path(folder) / f"process-{rank}"
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []


def launch(folder, processes, layout, options, kill=None):
    """Train in so many processes; kill one, (rank, step), when it has come that far.

    Return the seconds that the others then took to end, or None if none was killed.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    for path in Path(folder).glob("process-*"):
        path.unlink()
    port, env = (
        free_port(),
        os.environ
        | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES // processes}",
            "PYTHONWARNINGS": "ignore",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
    )
    command = [sys.executable, __file__, "--folder", folder, "--processes", processes, "--layout", layout]
    command += ["--steps", options.steps, "--port", port, "--heartbeat", options.heartbeat]
    children = []
    for rank in range(processes):
        log = open(Path(folder) / f"log-{rank}", "w")
        child = subprocess.Popen([*map(str, command), "--rank", str(rank)], env=env, stdout=log, stderr=log)
        children.append(child)
    return watch(folder, children, kill, 3 * options.heartbeat)


def watch(folder, children, kill, grace):
    """Wait for the `children`. If one of them fails, say so and see that the others end within `grace` seconds."""
    gone, killed = None, False
    while any(child.poll() is None for child in children):
        time.sleep(0.1)
        if kill and gone is None and any(line["step"] >= kill[1] for line in lines_of(folder, kill[0])):
            children[kill[0]].send_signal(signal.SIGKILL)
            killed = True
        failed = [rank for rank, child in enumerate(children) if child.poll()]
        if failed and gone is None:
            gone = time.monotonic()
            print(
                f"process {failed[0]} has ended with status {children[failed[0]].returncode}: the others cannot go on"
                f" and end within {grace} s. Start again to go on from the last checkpoint in {folder}."
            )
        if gone and time.monotonic() - gone > grace:
            for child in children:
                child.kill()
    return time.monotonic() - gone if killed else None


def vectors(folder, rank, name):
    """Return {step: vector} of what process `rank` has reported under `name`."""
    import numpy as np

    found = {line["step"]: line[name] for line in lines_of(folder, rank) if name in line}
    return {step: np.frombuffer(bytes.fromhex(text), np.float32) for step, text in found.items()}


def check(folder, processes, steps):
    """Say whether all processes have come to the last step, and had the same parameters at each checkpoint."""
    hashes = [
        {line["step"]: line["hash"] for line in lines_of(folder, rank) if "hash" in line} for rank in range(processes)
    ]
    return all(one == hashes[0] and max(one, default=0) == steps for one in hashes)


def alone(folder):
    """Say whether one optimizer alone, given the same gradients, comes to the same parameters, bit by bit."""
    import brainstate
    import jax.numpy as jnp

    from braintools_adadelta import Adadelta

    parameters, gradients = vectors(folder, 0, "parameters"), vectors(folder, 0, "gradient")
    theta = brainstate.ParamState(jnp.array(parameters.pop(0)))
    optimizer = Adadelta(weight_decay=DECAY).register_trainable_weights({"theta": theta})
    same = []
    for step, g in sorted(gradients.items()):
        optimizer.update({"theta": g})
        if step in parameters:
            same.append((theta.value == parameters[step]).all())
    return bool(same) and all(same)


def compare(options):
    """Train straight on and with a kill and a resume; return whether all went as it should."""
    folder, ok = Path(options.folder), []
    shutil.rmtree(folder, ignore_errors=True)

    def show(what, good=True):
        ok.append(bool(good))
        print(f"  {what:72}{'' if good else '  WRONG'}", flush=True)

    for layout in options.layout.split(","):
        print(f"{layout}: {options.processes} processes, {DEVICES} devices in all", flush=True)
        straight, killed = str(folder / layout / "straight"), str(folder / layout / "killed")
        launch(straight, options.processes, layout, options)
        show(
            "the processes have the same parameters at each checkpoint",
            check(straight, options.processes, options.steps),
        )
        show("an optimizer alone, given the same gradients, has them too, bit by bit", alone(straight))
        losses = [line["loss"] for line in lines_of(straight, 0) if "loss" in line]
        show(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}", losses[-1] < losses[0])
        seconds = launch(killed, options.processes, layout, options, kill=(options.processes - 1, options.kill))
        show(
            f"process {options.processes - 1} killed at step {options.kill}: all have ended after {seconds or 0:.1f} s",
            seconds,
        )
        for count in map(int, options.resume.split(",")):
            again = f"{killed}-{count}"
            shutil.copytree(killed, again)
            launch(again, count, layout, options)
            show(f"{count} processes go on, and have the same parameters", check(again, count, options.steps))
            if not ok[-1]:
                continue
            ends = [vectors(path, 0, "parameters")[options.steps] for path in (straight, again)]
            apart = abs(ends[0] - ends[1]).max()
            exact = count != options.processes or apart == 0  # sums of gradients are then in the same order
            show(f"largest difference of a parameter to the run without a kill: {apart:.1e}", exact and apart < 1e-3)
    return all(ok)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2, help="how many (1, 2 or 4)")
    parser.add_argument("--layout", default="data,fsdp", help="data, zero or fsdp, or several of them")
    parser.add_argument("--steps", type=int, default=30, help="steps to train")
    parser.add_argument("--kill", type=int, default=15, help="at which step the last process is killed")
    parser.add_argument(
        "--resume", default="2,1", help="how many processes go on from the checkpoint, one after the other"
    )
    parser.add_argument("--heartbeat", type=int, default=10, help="seconds without a sign of life until JAX ends all")
    parser.add_argument("--folder", default="build/processes", help="where reports and checkpoints go")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank is None:
        sys.exit(0 if compare(arguments) else 1)
    work(arguments)
