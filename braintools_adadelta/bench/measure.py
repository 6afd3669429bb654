"""Who is measured when: one process for each library, which take turns, so that all meet the same disturbances."""

import json
import os
import platform
import random
import subprocess
import sys
import time
import tomllib
from collections import namedtuple
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import psutil

from braintools_adadelta.bench import plan
from braintools_adadelta.bench.contenders import LIBRARIES
from braintools_adadelta.bench.processes import Gone, Process, environment

OURS = "braintools_adadelta"
ARRAYS = 16  # of float32 and of the size of the parameters: what a contender may need at most

Contender = namedtuple("Contender", "library form")


class Bench:
    """Processes, what they measured, and what could not be measured."""

    def __init__(self, effort, bar, device):
        self.effort, self.bar, self.device = effort, bar, device
        self.records, self.missing, self.versions = [], {}, {}
        self.random = random.Random(0)

    def start(self, processes):
        """Wait until the processes are ready. Return those that are, and their contenders."""
        there, contenders = {}, []
        for name, process in processes.items():
            try:
                about = process.hello()
            except Gone as error:
                about = {"missing": str(error)}
            if "missing" in about:
                self.missing[name] = about["missing"]
                process.close()
            else:
                there[name] = process
                contenders += [Contender(name, form) for form in about["forms"]]
                self.versions |= about["versions"]
        return there, contenders

    def leave_out(self, section, name, contender, error):
        self.missing[f"{section}, {name}: {contender.library} {contender.form}"] = str(error)

    def record(self, section, name, load, contender, rounds, **more):
        """Keep a measurement: `rounds` are what :meth:`worker.Worker.turn` returned, one for each turn."""
        self.records.append({
            "section": section,
            "workload": name,
            **{key: load[key] for key in ("leaves", "shape") if key in load},
            **contender._asdict(),
            "rounds": [median(one["seconds"]) for one in rounds],
            "least": min(x for one in rounds for x in one["seconds"]),
            **{name: median(one[name] for one in rounds) for name in ("cpu", "kernel", "pages") if name in rounds[0]},
            **more,
        })  # fmt: skip

    def turns(self, section, name, load, processes, contenders):
        """Let all take turns at a workload. Where their arrays do not fit into memory together, each makes its own anew."""
        self.bar.set_description(f"{section}: {name}")
        need = ARRAYS * 4 * plan.size(load) if "shape" in load else 0
        keep = need * len(contenders) < self.device["bytes"] / 2
        rounds = self.effort.rounds if keep else min(2, self.effort.rounds)
        taking, found = list(contenders), {contender: [] for contender in contenders}
        spent = dict.fromkeys(contenders, 0)
        if need > self.device["bytes"]:
            self.missing[f"{section}, {name}"] = f"needs up to {need / 2**30:.0f} GiB of memory"
            taking = []
        for k in range(rounds):
            self.random.shuffle(taking)
            for contender in list(taking):
                request = {"form": contender.form, "workload": load, "seconds": self.effort.seconds, "keep": keep}
                begin = time.monotonic()
                try:
                    found[contender].append(processes[contender.library].ask("turn", **request))
                except Gone as error:
                    self.leave_out(section, name, contender, error)
                    del found[contender]
                    taking.remove(contender)
                spent[contender] += (time.monotonic() - begin) * (k > 0)  # the first one compiles
                if spent[contender] > self.effort.enough and k >= 2 and contender in taking:
                    taking.remove(contender)
                self.bar.update()
        self.bar.update(len(contenders) * self.effort.rounds - sum(map(len, found.values())))
        for library in {contender.library for contender in found if found[contender]}:
            processes[library].ask("drop")
        for contender, turns in found.items():
            if turns:
                self.record(section, name, load, contender, turns)

    def fresh(self, section, name, load, contenders, repeats, processes):
        """Take a first step, each in a process that has taken none."""
        self.bar.set_description(f"{section}: {name}")
        found = {contender: [] for contender in contenders}
        for _ in range(repeats):
            self.random.shuffle(contenders)
            for contender in contenders:
                old = processes[contender.library]
                process = Process(old.library, old.file, old.patience, **old.where)
                try:
                    made = process.ask("make", form=contender.form, workload=load)
                    found[contender].append(made)
                except Gone as error:
                    self.leave_out(section, name, contender, error)
                process.close()
                self.bar.update()
        for contender, rounds in found.items():
            if rounds:
                self.record(section, name, load, contender, rounds)

    def counts(self, section, name, load, contenders, processes):
        """Keep what XLA says of the memory that a step takes and moves, which is one program."""
        self.bar.set_description(f"{section}: {name}")
        for contender in contenders:
            process = processes[contender.library]
            try:
                made = process.ask("make", form=contender.form, workload=load, count=True)
                process.ask("drop")
                largest = max(made["programs"], key=lambda one: one["moved"], default={})
                self.record(section, name, load, contender, [made], **largest)
            except Gone as error:
                self.leave_out(section, name, contender, error)
            self.bar.update()

    def steps(self, work, processes):
        """Measure everything that is one step of an optimizer."""
        processes, contenders = self.start(processes)
        kinds = lambda names: [one for one in contenders if (one.library.split()[0], one.form) in names]
        compiling, one_program = kinds(plan.COMPILES), kinds(plan.ONE_PROGRAM)
        self.expect(len(contenders) * self.effort.rounds, *(work[section] for section in plan.TURNS))
        self.expect(len(compiling) * self.effort.fresh, work["first"])
        self.expect(len(one_program), work["memory"])
        for name, load in work["memory"].items():  # first, while nothing of that size is compiled
            self.counts("memory", name, load, one_program, processes)
        for section in plan.TURNS:
            for name, load in work[section].items():
                self.turns(section, name, load, processes, contenders)
        for name, load in work["first"].items():
            self.fresh("first", name, load, compiling, self.effort.fresh, processes)
        for process in processes.values():
            process.close()

    def training(self, networks, processes):
        """Measure whole training steps."""
        processes, contenders = self.start(processes)
        self.expect(len(processes) * self.effort.rounds, networks)
        for name, load in networks.items():
            form = "program" if load else name
            self.turns("training", name, load, processes, [one for one in contenders if one.form == form])
        for process in processes.values():
            process.close()

    def expect(self, each, *workloads):
        self.bar.total = (self.bar.total or 0) + each * sum(map(len, workloads))

    def imports(self, repeats, versions, only):
        """Import packages, each time in a fresh process. `versions` are those of this package."""
        code = "import time; a, b = time.perf_counter(), time.process_time(); {}; print(time.perf_counter() - a,"
        code += " time.process_time() - b)"
        others = {
            name: {} for name in plan.IMPORTS if name in ("brainstate", *only) and name != OURS and find_spec(name)
        }
        rows = [(name, plan.IMPORTS[name.split()[0]], tree) for name, tree in (versions | others).items()]
        self.expect(repeats, rows)
        found = {name: [] for name, *_ in rows}
        for _ in range(repeats):
            self.random.shuffle(rows)
            for name, statement, tree in rows:
                self.bar.set_description(f"import: {name}")
                command = [sys.executable, "-P", "-W", "ignore", "-c", code.format(statement)]
                done = subprocess.run(command, env=environment(**tree), capture_output=True, text=True)
                if done.returncode:
                    self.missing[f"import: {name}"] = done.stderr.strip().splitlines()[-1]
                else:
                    wall, cpu = map(float, done.stdout.split()[-2:])
                    found[name].append({"seconds": [wall], "cpu": cpu})
                self.bar.update()
        for name, rounds in found.items():
            if rounds:
                self.record("import", "import", {}, Contender(name, "import"), rounds)


def found_device():
    """Return what JAX computes on, and where all others are to compute too. It is asked in a process that ends."""
    code = "import jax, json, worker; print(json.dumps(worker.device()))"
    where = environment(tree=Path(__file__).parent)
    done = subprocess.run([sys.executable, "-P", "-c", code], env=where, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine():
    """Return what the numbers depend on besides the code."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": cores,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,  # before anything is measured
        "python": platform.python_version(),
    }


def run(kind, bar, sections=plan.SECTIONS, only=tuple(LIBRARIES), against=None, programs=None):
    """Measure, and return all of it as one document.

    `only` are the libraries to be measured. `against` are folders with other versions of this package, and `programs`
    workloads of :func:`networks.program`, each by its name.
    """
    (work, effort), about, begin = plan.PLANS[kind], machine(), time.monotonic()
    device = {"bytes": psutil.virtual_memory().available} | found_device()
    versions = {OURS: {}} | {f"{OURS} {name}": {"tree": str(tree)} for name, tree in (against or {}).items()}
    versions = versions if OURS in only else {}
    work = {section: work.get(section, {}) if section in sections else {} for section in plan.SECTIONS}
    work["training"] |= (programs or {}) if "training" in sections else {}

    def processes(names, **more):
        where = {"patience": effort.patience, "device": device["platform"], **more}
        others = {name: Process(name, **where) for name in names if name != OURS}
        return others | {name: Process(OURS, **where, **tree) for name, tree in versions.items()}

    bench = Bench(effort, bar, device)
    bench.steps(work, processes(only))
    if "import" in sections:
        bench.imports(effort.fresh, versions, only)
    if work["training"]:
        bench.training(work["training"], processes(["braintools", "idle"], file="networks.py"))
    about |= {"minutes": round((time.monotonic() - begin) / 60, 1), "kind": kind, "device": device}
    about["versions"] = dict(sorted(bench.versions.items()))
    return {"made_with": about, "missing": bench.missing, "records": bench.records}


def programs_in(table, clones):
    """Return workloads of the programs in a table like tools/ecosystem.toml that say what their training step is."""
    found = {}
    for one in tomllib.loads(Path(table).read_text("utf-8"))["programs"]:
        if "step" in one:
            path = Path(clones, one["repo"], one["path"]).resolve()
            load = {"tools": str(Path(table).resolve().parent), "path": str(path), "lr": 1.0}
            name = f"{one['repo'].split('/')[1]}: {path.name}"
            found[name] = load | {"patches": one.get("patches", []), "step": one["step"]}
    return found
