"""The process of one library: it does what it is told, and only then. ``python -P worker.py FILE LIBRARY``

FILE has a dictionary LIBRARIES. LIBRARIES[LIBRARY]() gives the library's forms; a form takes a workload and returns a
function that takes a step, one that waits until it is done, and what else it likes. Requests and replies are lines of JSON. This file
runs beside whatever version of the package is to be measured, and so imports nothing of it.
"""

import gc
import json
import os
import runpy
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

with suppress(ImportError):  # which Windows has not
    import resource

LONG_ENOUGH = 0.005  # seconds: shorter steps are timed several at a time


def versions(names=("jax", "brainstate", "braintools", "optax", "torch", "keras", "numpy")):
    """Return the versions of those packages that were imported."""
    found = {}
    for name in names:
        if name in sys.modules:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                found[name] = str(getattr(sys.modules[name], "__version__", "unknown"))
    return found


def device():
    """Return what JAX computes on, and how much memory it has, if JAX was imported."""
    if "jax" not in sys.modules:
        return {}
    first = sys.modules["jax"].devices()[0]
    memory = first.memory_stats() if first.platform != "cpu" else None
    limit = {"bytes": memory["bytes_limit"]} if memory and "bytes_limit" in memory else {}
    return {"platform": first.platform, "kind": first.device_kind} | limit


def programs():
    """Return the programs that XLA has compiled and that are still there."""
    if "jax" not in sys.modules:
        return []
    from jax.extend.backend import get_backend

    return get_backend().live_executables()


def counted(program):
    """Return what XLA says of the memory that one run of a program takes and moves, in bytes."""
    memory = program.get_compiled_memory_stats()
    moved = float(program.cost_analysis().get("bytes accessed", 0))
    if "while(" in program.hlo_modules()[0].to_string():  # counted once, however often it turns
        moved += memory.argument_size_in_bytes + memory.output_size_in_bytes
    return {"temporaries": memory.temp_size_in_bytes, "reused": memory.alias_size_in_bytes, "moved": moved}


def used():
    """Return what this process has used so far: CPU seconds, those in the kernel among them, and pages of fresh memory."""
    if "resource" not in globals():
        return {"cpu": time.process_time()}
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu": usage.ru_utime + usage.ru_stime, "kernel": usage.ru_stime, "pages": usage.ru_minflt}


class Worker:
    """The forms of one library, and those that are ready to take steps, each at one workload."""

    def __init__(self, forms):
        self.forms, self.ready = forms, {}

    def make(self, form, workload, count=False):
        """Make the arrays of a form, take its first step and measure it: what is compiled is compiled here."""
        self.ready.pop(form, None)
        made = self.forms[form](workload)
        step, wait = made[:2]
        before, usage, wall = programs(), used(), time.perf_counter()
        step(), wait()
        first = {"seconds": [time.perf_counter() - wall]}
        first |= {name: x - usage[name] for name, x in used().items()}
        new = [program for program in programs() if program not in before]
        step(), wait()  # where the arrays are others than at first, the second may be compiled too
        self.ready[form] = workload, made
        return first | {"programs": [counted(program) for program in new] if count else []}

    def turn(self, form, workload, seconds, keep):
        """Take steps for some time. Return the seconds of each of several measurements, and what a step used."""
        if form not in self.ready or self.ready[form][0] != workload:
            self.make(form, workload)
        step, wait = self.ready[form][1][:2]
        wall = time.perf_counter()
        step(), wait()  # others had the cache
        together = max(1, int(LONG_ENOUGH / max(time.perf_counter() - wall, 1e-7)))
        taken, before, end = [], used(), time.perf_counter() + seconds
        while not taken or time.perf_counter() < end:
            wall = time.perf_counter()
            for _ in range(together):
                step()
            wait()
            taken.append((time.perf_counter() - wall) / together)
        steps = together * len(taken)
        found = {"seconds": taken} | {name: (x - before[name]) / steps for name, x in used().items()}
        return found if keep else found | self.drop()

    def drop(self):
        """Forget all arrays, but not what is compiled."""
        self.ready.clear()
        gc.collect()
        return {}


def main(file, library):
    replies, sys.stdin = os.fdopen(os.dup(1), "w"), open(os.devnull)
    requests = os.fdopen(os.dup(0))
    os.dup2(2, 1)  # what a library prints does not mix with the replies

    def reply(**answer):
        print(json.dumps(answer), file=replies, flush=True)

    try:
        worker = Worker(runpy.run_path(file)["LIBRARIES"][library]())
    except Exception as error:
        return reply(missing=str(error) or type(error).__name__)
    reply(forms=list(worker.forms), versions=versions(), device=device())
    for line in requests:
        request = json.loads(line)
        try:
            reply(**getattr(worker, request.pop("do"))(**request))
        except Exception as error:  # whatever a library raises is told, and the others go on
            reply(error=f"{type(error).__name__}: {error}"[:300])


if __name__ == "__main__":
    main(*sys.argv[1:])
