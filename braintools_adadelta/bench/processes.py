"""A worker in a process of its own, seen from the process that says what is to be done."""

import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).parent
TREE = HERE.parent.parent  # the folder that this package is imported from
STARTING = 120  # seconds that imports may take


class Gone(Exception):
    """A process that ended or took too long, or a step that failed."""


def environment(tree=TREE, device="cpu"):
    """Return the environment of a process that measures the package in the folder `tree`."""
    path = os.pathsep.join(filter(None, [str(tree), os.environ.get("PYTHONPATH")]))
    # Several processes share an accelerator: none may take all of its memory at once.
    own = {"PYTHONPATH": path, "ADADELTA_BENCH_DEVICE": device, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    own["KERAS_BACKEND"] = "jax"
    return {name: x for name, x in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"} | own


class Process:
    """The worker of one library. It is started again if it had to be ended."""

    def __init__(self, library, file="contenders.py", patience=120, **where):
        self.library, self.file, self.patience, self.where = library, file, patience, where
        self.start()

    def start(self):
        command = [sys.executable, "-P", "-W", "ignore", HERE / "worker.py", HERE / self.file, self.library]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, env=environment(**self.where), text=True, **pipes)
        self.about = None

    def hello(self):
        """Return what it says of itself: its forms and versions, or why it is missing."""
        self.about = self.about or self.answer(STARTING)
        return self.about

    def ask(self, do, **request):
        """Let it do something and return the answer."""
        if self.process.poll() is not None:
            self.close()
            self.start()
        self.hello()
        print(json.dumps({"do": do, **request}), file=self.process.stdin, flush=True)
        answer = self.answer(self.patience)
        if "error" in answer:
            raise Gone(answer["error"])
        return answer

    def answer(self, patience):
        readable, _, _ = select.select([self.process.stdout], [], [], patience)
        if not (line := self.process.stdout.readline() if readable else ""):
            with suppress(subprocess.TimeoutExpired):  # it may need a moment to end
                self.process.wait(5 if readable else 0)
            self.close()
            raise Gone(f"its process ended with {self.process.returncode}" if readable else f"took over {patience} s")
        return json.loads(line)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        with suppress(BrokenPipeError):  # it ended before it could read
            self.process.stdin.close()
