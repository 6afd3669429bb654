"""A program in any language that answers in JSON, line by line. docs/protocol.md describes the messages."""

import json
import math
import shlex
import subprocess
from contextlib import suppress

import numpy as np

from braintools_adadelta.conformance.adapters import UsageError


class Program:
    """The implementation that a command line starts. The program runs until the judge ends."""

    def __init__(self, command):
        self.command, self.runs = command, 0
        try:
            self.process = subprocess.Popen(
                shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", bufsize=1
            )
        except (OSError, ValueError, IndexError) as error:
            raise UsageError(f"{command!r} cannot be started: {error}") from error
        try:
            about = self.ask(do="hello")
        except RuntimeError as error:
            raise UsageError(f"{command!r} does not speak the protocol: {error}") from error
        self.name = about.get("name", command)
        for member in ("supports", "lacks", "defaults", "versions"):
            setattr(self, member, about.get(member, {} if member in ("defaults", "versions") else []))
        if not about.get("accumulators"):
            self.accumulators = None
        if not about.get("set_lr"):
            self.set_lr = None

    def ask(self, **message):
        """Send a message and return the answer."""
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            line = self.process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            with suppress(OSError):
                self.process.stdin.close()
            raise RuntimeError(
                f"the program ended (exit code {self.process.wait()}) when it was asked to {message['do']}"
            )
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise RuntimeError(
                f"it answered {line[:200]!r}: a line of JSON with an object was expected (print to stderr)"
            )
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def start(self, params, **options):
        self.runs += 1
        on = {k: float(v).hex() for k, v in options.items() if v is not None}
        self.ask(do="start", run=self.runs, options=on, params=written(params))
        return self.runs, {name: (x.dtype, x.shape) for name, x in params.items()}

    def step(self, handle, grads):
        self.ask(do="step", run=handle[0], grads=written(grads))
        return handle

    def params(self, handle):
        return read(self.ask(do="params", run=handle[0])["params"], handle[1])

    def accumulators(self, handle):
        answer = self.ask(do="accumulators", run=handle[0])
        return read(answer["e_g2"], handle[1]), read(answer["e_delta2"], handle[1])

    def set_lr(self, handle, lr):
        self.ask(do="set_lr", run=handle[0], lr=float(lr).hex())
        return handle


def written(tree):
    """Return arrays as a list of rows with hexadecimal numbers. A complex number gives its real part first."""
    out = []
    for name, x in tree.items():
        parts = np.ravel(x).view(x.real.dtype) if np.iscomplexobj(x) else np.ravel(x)
        row = {"name": name, "dtype": x.dtype.name, "shape": list(x.shape), "data": [float(y).hex() for y in parts]}
        out.append(row)
    return out


def read(rows, kinds):
    """Return the arrays that a program sent: rows with a name and data, in the dtypes and shapes that it was given.

    A number that the dtype cannot hold exactly was computed in another precision: then the array is double.
    """
    out = {}
    for row in rows:
        dtype, shape = kinds.get(row["name"], (np.dtype(float), (-1,)))
        numbers = np.array([number(x) for x in row["data"]], float)
        whole = numbers.view(complex) if dtype.kind == "c" else numbers
        with np.errstate(all="ignore"):
            narrow = whole.astype(dtype)
        exact = np.array_equal(narrow.astype(whole.dtype), whole, equal_nan=True)
        x = narrow if exact else whole
        out[row["name"]] = x.reshape(shape) if x.size == math.prod(shape) or shape == (-1,) else x
    return out


def number(x):
    """Return the double that a hexadecimal or decimal number is. Text is hexadecimal, as C's %a writes it, or NaN."""
    return float.fromhex(x) if isinstance(x, str) else float(x)
