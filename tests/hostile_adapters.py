"""Implementations that are hard to judge: they end the process, hang, or are never the same. Each must exit with 1."""

import ctypes
import os
import random
import time

import numpy as np
import pytest

from braintools_adadelta.conformance.corpus import Hidden, Numpy


class Exits(Hidden):
    """SystemExit with the status of success."""

    says = "step() raised SystemExit"

    def step(self, h, grads):
        raise SystemExit(0)


class ExitsAtOnce(Hidden):
    """The process ends without an exception, with the status of success, after some right steps."""

    says = "the process ended with exit code 0"
    steps = 0

    def step(self, h, grads):
        type(self).steps += 1
        if self.steps == 30:
            os._exit(0)
        return super().step(h, grads)


class Skips(Hidden):
    """The outcomes of pytest are exceptions, too."""

    says = "step() raised Skipped"

    def step(self, h, grads):
        pytest.skip("not today")


class Interrupts(Hidden):
    says = "step() raised KeyboardInterrupt"

    def step(self, h, grads):
        raise KeyboardInterrupt


class Falls(Hidden):
    """The interpreter crashes, and only for empty arrays."""

    says = "the process was ended by SIGSEGV"

    def step(self, h, grads):
        if any(not g.size for g in grads.values()):
            ctypes.string_at(0)
        return super().step(h, grads)


class Hangs(Hidden):
    says = "no answer within"

    def step(self, h, grads):
        time.sleep(1000)


class Random(Numpy):
    says = "not deterministic"

    def delta(self, g, e_g2, e_delta2, h):
        return (super().delta(g, e_g2, e_delta2, h) * random.uniform(1, 2)).astype(g.dtype)


class Remembers(Numpy):
    """A count outside of the handle: in a process of its own, the first steps are right."""

    says = "not deterministic: in a process of its own"
    steps = 0

    def delta(self, g, e_g2, e_delta2, h):
        type(self).steps += 1
        return super().delta(g, e_g2, e_delta2, h) * np.asarray(1 + (self.steps > 300), g.dtype)


class Prints(Hidden):
    """It says that it is judged. This one is right."""

    says = "conforms"

    def step(self, h, grads):
        os.write(1, b'{"done": true}\n')
        return super().step(h, grads)


class WithoutLr:
    """Zeiler's method as published. This one is right."""

    says = "conforms; it has no lr"
    lacks = {"lr"}
    it = Numpy()

    def start(self, params, *, rho, eps):
        return self.it.start(params, lr=1.0, rho=rho, eps=eps)

    def __getattr__(self, name):
        return getattr(self.it, name) if name in ("step", "params", "accumulators") else super().__getattribute__(name)


WRONG = (Exits, ExitsAtOnce, Skips, Interrupts, Falls, Hangs, Random, Remembers)
RIGHT = (Prints, WithoutLr)
LIKE_OTHERS = (Skips, Interrupts)  # for every exception there is one way
