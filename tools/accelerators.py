"""Compile the update for GPUs and TPUs that are not here, count what is made of it, and keep the PTX that is judged.

The compilers come in packages that need no device: jax's CUDA plugin with NVIDIA's ptxas, and libtpu. Run by
`make accelerators`, with tests/ on the path. Writes docs/results/accelerators.md and .json, and tests/ptx/.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

os.environ |= {  # describe a TPU to its compiler, which would ask the cloud for one, and let several compilers run
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "JAX_PLATFORMS": "cpu",
}

import brainstate  # noqa: F401  it resets jax_enable_x64
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from lowered import CASES, fingerprint, program
from tqdm import tqdm

from braintools_adadelta import update
from braintools_adadelta.oracle.ptx import arithmetic, kernels

update.suits = lambda x: False  # blocks are for a machine whose first device is a CPU

ROOT = Path(__file__).parent.parent
RESULTS, PTX = ROOT / "docs/results", ROOT / "tests/ptx"
PACKAGES = ("jax", "jaxlib", "jax-cuda12-plugin", "nvidia-cuda-nvcc-cu12", "libtpu", "optax")
ONE, MANY = (2**27,), (64, 64)  # smaller arrays may be fetched into a TPU's own memory before they are counted
IEEE = "--xla_backend_extra_options=-nvptx-prec-divf32=2,-nvvm-reflect-add=__CUDA_PREC_SQRT=1"

# Compute capability; cores, lanes of one, bytes/s, L2 cache, GHz, memory, shared memory of a core and of a block.
GPUS = {
    "sm_70": (7, 0, 80, 64, 898e9, 6 << 20, 1.53, 16 << 30, 98304, 98304, "Tesla V100-SXM2-16GB"),
    "sm_80": (8, 0, 108, 64, 1555e9, 40 << 20, 1.41, 40 << 30, 167936, 166912, "NVIDIA A100-SXM4-40GB"),
    "sm_90": (9, 0, 132, 128, 3352e9, 50 << 20, 1.98, 80 << 30, 233472, 232448, "NVIDIA H100 80GB HBM3"),
    "sm_100": (10, 0, 148, 128, 8000e9, 126 << 20, 1.965, 180 << 30, 233472, 232448, "NVIDIA B200"),
}
TPUS = {"TPU v5e": "v5e:2x2", "TPU v5p": "v5p:2x2x1", "TPU v6e": "v6e:2x2", "TPU7x": "tpu7x:2x2x1"}
MESHES = {4: "v5e:2x2", 16: "v5e:4x4", 64: "v5e:8x8", 256: "v5e:16x16"}
OF_OPTAX = ["float32", "float32, clip by norm", "bfloat16", "bfloat16, clip by norm", "float16", "complex64", "float64"]
KEPT = {  # the PTX that tests/test_ptx.py judges
    "sm_70": ["float32"],
    "sm_80": ["float32"],
    "sm_90": ["float32", "float32, decay and clip by value", "float32, clip by norm", "bfloat16", "float16", "float64"],
    "sm_100": ["float32"],
}


def described(name):
    """Return the topology of a target."""
    if name not in GPUS:
        return topologies.get_topology_desc(TPUS.get(name, name), platform="tpu")
    major, minor, cores, lanes, bandwidth, cache, clock, memory, shared, optin, label = GPUS[name]
    text = f"""gpu_device_info {{ threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
      shared_memory_per_core: {shared} threads_per_core_limit: 2048 core_count: {cores} fpus_per_core: {lanes}
      block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: {int(bandwidth)}
      l2_cache_size: {cache} clock_rate_ghz: {clock} device_memory_size: {memory}
      shared_memory_per_block_optin: {optin} cuda_compute_capability {{ major: {major} minor: {minor} }}
      registers_per_core_limit: 65536 registers_per_block_limit: 65536 }}
    platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 7 }} runtime_version {{ major: 12 minor: 8 patch: 0 }}
    device_description_str: "{label}" """
    return topologies.get_topology_desc(platform="cuda", target_config=text, topology="1x1x1")


def placed(devices):
    """Return a function that makes abstract arrays on `devices`, spread over them or with a copy on each."""
    mesh = Mesh(np.array(devices), ("x",))
    over = lambda spread: NamedSharding(mesh, PartitionSpec("x") if spread and len(devices) > 1 else PartitionSpec())
    return lambda shape, dtype, spread=False: jax.ShapeDtypeStruct(shape, dtype, sharding=over(spread))


def ours(case, place, leaves, shape):
    arguments, static = program(case, leaves, shape, place)
    return update.compiled_for((), update.REUSING).lower(*arguments, **static)


def of_optax(case, place, leaves, shape):
    """Lower one step of optax's Adadelta, with its clip by norm where the case has one."""
    c, adadelta = case.options.get("grad_clip_norm"), optax.adadelta(1.0)
    tx = adadelta if c is None else optax.chain(optax.clip_by_global_norm(c), adadelta)

    def step(theta, state, g):
        updates, state = tx.update(g, state, theta)
        return optax.apply_updates(theta, updates), state

    theta = {f"w{k}": place(shape, case.dtype, True) for k in range(leaves)}
    state = jax.tree.map(lambda x: place(x.shape, x.dtype, x.ndim > 0), jax.eval_shape(tx.init, theta))
    return jax.jit(step, donate_argnums=(0, 1)).lower(theta, state, theta)


BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "f64": 8, "c64": 8}
FREE = {"parameter", "tuple", "get-tuple-element", "constant", "bitcast", "after-all", "partition-id"}
FREE |= {"copy-done", "slice-done"}  # counted where they start
COLLECTIVE = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")


def bytes_of(type_):
    """Return the bytes in main memory of each array in an HLO type; those in S(1) and higher are in other memories."""
    size = lambda dtype, dims: BYTES.get(dtype, 0) * int(np.prod([int(x) for x in dims.split(",") if x]))
    found = re.findall(r"(\w+)\[([\d,]*)\](\{[^}]*\})?", type_)
    return [0 if re.search(r"S\([1-9]\)", layout) else size(dtype, dims) for dtype, dims, layout in found]


def slices(hlo):
    """Return {(name of a fused computation, index of a parameter): bytes}, where no more of it is read than slices."""
    found = {}
    for name, body in re.findall(r"^%(\S+) \(.*?\{\n(.*?)^\}", hlo, re.M | re.S):
        for parameter, k in re.findall(r"%(\S+) = \S+ parameter\((\d+)\)", body):
            uses = re.findall(rf"= (\S+) ([\w-]+)\((?:[^)\n]*, )?%{re.escape(parameter)}[,)]", body)
            if uses and all(op == "dynamic-slice" for _, op in uses):
                found[name, int(k)] = sum(sum(bytes_of(type_)) for type_, _ in uses)
    return found


def counted(hlo):
    """Return the bytes that the operations of the entry computation read and write, and how many of each there are."""
    entry, types, operations, total = hlo[hlo.index("\nENTRY") :], {}, Counter(), 0
    part = slices(hlo)
    line = r"^\s+(?:ROOT )?%(\S+) = (\(.*?\)|\S+) ([\w-]+)\((.*?)\)(?:,|$)(.*)"
    for name, type_, op, operands, others in re.findall(line, entry, re.M):
        types[name] = type_
        if op in FREE:
            continue
        operations[op] += 1
        if op == "copy-start":  # its type is the target, the source and a token
            total += sum(bytes_of(type_)[:2])
        elif op == "slice-start":  # the source, of which the target is read, the target and a token
            total += bytes_of(type_)[1] + bytes_of(re.sub(r"S\(\d+\)", "", type_))[1]
        else:
            called = re.search(r"calls=%([\w.-]+)", others)
            read = [types.get(x, "") for x in re.findall(r"%([\w.-]+)", operands)]
            sizes = [part.get((called and called[1], k), sum(bytes_of(x))) for k, x in enumerate(read)]
            total += sum(bytes_of(type_)) + sum(sizes)
    return total, operations


def row(low, parameters, folder=None):
    """Compile and count: a row of a table, and the program. The PTX goes to `folder`, if there is one."""
    dump = {}
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
        dump = {"xla_dump_to": str(folder), "xla_dump_emitter_re": ".*"}
    program = low.compile(compiler_options=dump)
    total, operations = counted(program.as_text())
    found = {
        "bytes per parameter": round(total / parameters, 2),
        "programs": operations["fusion"] + operations["custom-call"],
        "temporaries": program.memory_analysis().temp_size_in_bytes,
    }
    if collectives := {op: n for op, n in operations.items() if op.startswith(COLLECTIVE)}:
        found["collectives"] = collectives
    if folder:
        found["arithmetic"] = arithmetic("\n".join(path.read_text() for path in Path(folder).glob("*.ptx")))
    return found, program


NAMES = {  # of arguments, in the HLO and in the letters of the equations
    "theta": "theta",
    "g": "g",
    "before_e_g2": "e_g2",
    "before_e_delta2": "e_delta2",
    "lrs": "lr",
    "decays": "decay",
    "options_rho": "rho",
    "options_eps": "eps",
    "options_grad_clip_value": "v",
    "options_grad_clip_norm": "c",
}


def operands_of(kernel, hlo):
    """Return which of our arrays each parameter of a kernel is: its operands in the HLO, then its new results."""
    entry = hlo[hlo.index("\nENTRY") :]
    calls = re.search(rf"%{re.escape(kernel)} = .*? fusion\((.*?)\), kind", entry)
    if calls is None:
        return None
    names = []
    for operand in re.findall(r"%([\w.-]+)", calls[1]):
        known = [new for old, new in NAMES.items() if re.match(rf"{old}(__|_\d|\.|$)", operand)]
        source = source_of(operand, hlo)
        names += known or ["n" if "sqrt" in source else "scale" if "clamp" in source else operand]
    return names


def source_of(name, hlo):
    """Return the operation that makes the number `name`: in a fusion, if it is one of its results."""
    found = re.search(rf"%{re.escape(name)} = \S+ get-tuple-element\(%([\w.-]+)\), index=(\d+)", hlo)
    if found is None:
        return name
    called = re.search(rf"%{re.escape(found[1])} = .*? calls=%([\w.-]+)", hlo)[1]
    body = re.search(rf"^%{re.escape(called)} .*?^\}}", hlo, re.M | re.S)[0]
    results = re.search(r"ROOT .*? tuple\((.*?)\)", body)[1]
    return re.findall(r"%([\w.-]+)", results)[int(found[2])]


def keep(target, name, folder):
    """Write the kernel that updates a parameter to tests/ptx, with what it is and where it came from at its top."""
    case = CASES[name]
    with jax.enable_x64(case.dtype == jnp.float64):
        low = ours(case, placed(described(target).devices[:1]), 1, (2**20,))
        _, program = row(low, 2**20, folder)
    for path in sorted(folder.glob("*.ptx")):
        text = path.read_text()
        kernel = next(iter(kernels(text)), None)  # none in a file of constants
        names = kernel and operands_of(kernel, program.as_text())
        if names and "theta" in names:
            head = {
                "target": f"{target}, {GPUS[target][-1]}",
                "case": name,
                "operands": " ".join(names),
                "operations": fingerprint(case),
                "made with": versions(),
            }
            lines = [f"// {key}: {value}" for key, value in head.items()]
            file = PTX / f"{target} {name}.ptx".replace(", ", " ").replace(" ", "_")
            file.write_text("\n".join(lines) + "\n" + text[text.index(".version") :])


def versions():
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def measure(dump):
    """Compile every case for every target; return what was counted."""
    found, targets = {}, (*GPUS, *TPUS)
    work = [(target, name) for target in targets for name in CASES if target in GPUS or name != "float64"]
    for target, name in tqdm(work, desc="cases"):
        case, folder = CASES[name], dump if target in GPUS else None
        place = placed(described(target).devices[:1])
        rows = found.setdefault(target, {}).setdefault(name, {})
        with jax.enable_x64(case.dtype == jnp.float64):
            rows["ours"], _ = row(ours(case, place, case.groups, ONE), case.groups * ONE[0], folder)
            if name in OF_OPTAX:
                rows["optax"], _ = row(of_optax(case, place, 1, ONE), ONE[0], folder)
    return found


def measure_many():
    """Count for a hundred parameters in one program."""
    found, many = {}, 100
    work = [(target, name) for target in ("sm_90", "TPU v5e") for name in OF_OPTAX[:2]]
    for target, name in tqdm(work, desc="a hundred parameters"):
        place = placed(described(target).devices[:1])
        rows = found.setdefault(target, {}).setdefault(name, {})
        for who, lower in (("ours", ours), ("optax", of_optax)):
            rows[who], _ = row(lower(CASES[name], place, many, MANY), many * int(np.prod(MANY)))
    return found


def measure_meshes():
    """Count, for one chip of a mesh, its bytes and what it says to the others; each has a share of one parameter."""
    found, share = {}, ONE[0] // 4
    work = [(n, name) for n in MESHES for name in ("float32", "float32, clip by norm", "float32, skip")]
    for n, name in tqdm(work, desc="meshes"):
        place = placed(described(MESHES[n]).devices)
        found.setdefault(n, {})[name], _ = row(ours(CASES[name], place, 1, (n * share,)), share)
    return found


def measure_ieee():
    """Compile with the flags for correctly rounded division and root, in a process of its own: flags are read once."""
    code = "import accelerators as a; print(a.json.dumps(a.one('sm_90', 'float32')))"
    folders = f"{ROOT / 'tools'}:{ROOT / 'tests'}:{ROOT}"
    environment = os.environ | {"XLA_FLAGS": IEEE, "PYTHONPATH": folders}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def one(target, name):
    """Return the row of one case for a GPU."""
    low = ours(CASES[name], placed(described(target).devices[:1]), 1, ONE)
    return row(low, ONE[0], Path(tempfile.mkdtemp()) / "dump")[0]


def page(found):
    """Return the results as a page."""
    about = [
        "# Compiled for accelerators",
        "",
        "<!-- Made by `make accelerators`: do not edit. -->",
        "",
        "What the compilers for GPUs and TPUs make of one update, on a machine that has none of them. [The page on",
        "platforms](../where_it_runs.md) says what follows from it, and what does not.",
        "",
        f"Made with {found['versions']}, on {found['date']}.",
        "",
        "*Bytes* are what the operations of the compiled program read and write in main memory, for each number of",
        "the parameter, of which there are 2^27; *programs* are the kernels or fusions that it starts; *temporaries*",
        "are bytes. In brackets: optax's Adadelta, with its clip by global norm where ours clips. For parameters of",
        "16 bits optax keeps accumulators of 16 bits; ours have 32.",
        "",
    ]
    both = lambda rows, key: str(rows["ours"][key]) + (f" ({rows['optax'][key]})" if "optax" in rows else "")
    for target, cases in found["targets"].items():
        about += [f"## {target}" + (f", {GPUS[target][-1]}" if target in GPUS else ""), ""]
        about += ["| case | bytes | programs | temporaries |", "| --- | --- | --- | --- |"]
        keys = ("bytes per parameter", "programs", "temporaries")
        about += [f"| {name} | " + " | ".join(both(rows, key) for key in keys) + " |" for name, rows in cases.items()]
        about += [""]
    about += ["## Arithmetic", "", "Instructions in the PTX of all kernels; a thread updates several numbers.", ""]
    about += ["| target, case | ours | optax |", "| --- | --- | --- |"]
    for target, cases in found["targets"].items():
        for name, rows in cases.items():
            if "arithmetic" in rows["ours"]:
                cells = [spelled(rows[who]["arithmetic"]) if who in rows else "" for who in ("ours", "optax")]
                about.append(f"| {target}, {name} | {cells[0]} | {cells[1]} |")
    about += [f"| sm_90, float32, with the flags below | {spelled(found['ieee']['arithmetic'])} | |", ""]
    about += ["The flags for correctly rounded division and root in single precision:", ""]
    about += ["```text", f"XLA_FLAGS={IEEE}", "```", ""]
    about += ["## A hundred parameters in one program", "", "Each of 64 x 64 numbers.", ""]
    about += ["| target, case | bytes | programs |", "| --- | --- | --- |"]
    for target, cases in found["many"].items():
        for name, rows in cases.items():
            about.append(f"| {target}, {name} | {both(rows, 'bytes per parameter')} | {both(rows, 'programs')} |")
    about += ["", "## On a mesh of TPU v5e chips", ""]
    about += ["One parameter, spread over all chips; counted on one of them.", ""]
    about += ["| chips, case | bytes per parameter | collectives |", "| --- | --- | --- |"]
    for n, cases in found["meshes"].items():
        for name, row in cases.items():
            said = ", ".join(f"{n} {op}" for op, n in row.get("collectives", {}).items()) or "none"
            about.append(f"| {n}, {name} | {row['bytes per parameter']} | {said} |")
    return "\n".join(about) + "\n"


def spelled(counts):
    """Return the counts of instructions in a cell, for one number of the array: a thread of a GPU does several."""
    return ", ".join(f"{n} `{op}`" for op, n in counts.items())


def main():
    only, dump = sys.argv[1] if len(sys.argv) > 1 else "", Path(tempfile.mkdtemp()) / "dump"
    PTX.mkdir(exist_ok=True)
    for target, name in tqdm([(target, name) for target, names in KEPT.items() for name in names], desc="PTX"):
        keep(target, name, dump)
    if only == "ptx":
        return
    found = {"versions": versions(), "date": time.strftime("%Y-%m-%d"), "targets": measure(dump)}
    found |= {"many": measure_many(), "meshes": measure_meshes(), "ieee": measure_ieee()}
    (RESULTS / "accelerators.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    (RESULTS / "accelerators.md").write_text(page(found), "utf-8")
    print(RESULTS / "accelerators.md")


if __name__ == "__main__":
    main()
