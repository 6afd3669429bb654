"""Compile the update for meshes of 4 to 256 TPU chips that are not here, beside optax's; count what each chip does.

What was counted is carried on to a model that does not fit here. Run by `make accelerators`, with tests/ on the path.
Writes docs/results/meshes.md and .json; with the argument `page` it makes the page anew from what was counted.
"""

import json
import re
import sys
import time
from math import prod

import accelerators  # describes TPUs to their compiler, before JAX is imported
import jax
import numpy as np
import optax
from accelerators import MESHES, RESULTS, bytes_of, counted, described, versions
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from lowered import CASES, program
from tqdm import tqdm

from braintools_adadelta import update
from braintools_adadelta.layouts import Layout

ROWS, COLUMNS = 2**13, 2**12  # of the matrix that a chip has: 2^25 numbers, too many for its own fast memory
CUT, BESIDE, WHOLE = PartitionSpec("x"), PartitionSpec(None, "x"), PartitionSpec()
LAYOUTS = {  # of n chips: the matrix, and how parameter, gradient and accumulators are cut
    "FSDP": (lambda n: (n * ROWS, COLUMNS), CUT, CUT, CUT),
    "tensor parallel": (lambda n: (ROWS, n * COLUMNS), BESIDE, BESIDE, BESIDE),
    "ZeRO-1": (lambda n: (16 * ROWS, COLUMNS), WHOLE, CUT, CUT),
}
NAMES = {"plain": "float32", "clip by norm": "float32, clip by norm"}

# https://docs.cloud.google.com/tpu/docs/v5e, read on 2026-11-26: HBM and both directions of all links of a chip.
CAPACITY, BANDWIDTH, LINKS = 16e9, 819e9, 400e9
MODEL = 10**11  # parameters


def ours(case, place, shape):
    """Lower our update of one parameter; `place` makes abstract arrays, of theta, g or accumulators."""
    anywhere = lambda shape, dtype, spread=False: place(None, shape, dtype)
    (theta, g, before, *others), static = program(case, 1, shape, anywhere)
    move = lambda tree, what: jax.tree.map(lambda x: place(what, x.shape, x.dtype), tree)
    theta, g, before = move(theta, "theta"), move(g, "g"), move(before, "memory")
    layouts = tuple((name, Layout(x.sharding, before.e_g2[name].sharding, shape)) for name, x in theta.items())
    named = dict(zip(("lrs", "counts", "options", "decays"), others, strict=True)) | static
    compiled = update.compiled_for(layouts, update.IN_PLACE)
    return compiled.lower(theta=theta, g=g, before=before, layouts=layouts, **named)


def of_optax(case, place, shape):
    """Lower one step of optax's Adadelta, with its clip by norm where the case has one; all stays where it is."""
    c, adadelta = case.options.get("grad_clip_norm"), optax.adadelta(1.0)
    tx = adadelta if c is None else optax.chain(optax.clip_by_global_norm(c), adadelta)

    def step(theta, state, g):
        updates, state = tx.update(g, state, theta)
        return optax.apply_updates(theta, updates), state

    theta, g = {"w": place("theta", shape, case.dtype)}, {"w": place("g", shape, case.dtype)}
    state = jax.eval_shape(tx.init, theta)
    state = jax.tree.map(lambda x: place("memory" if x.ndim else None, x.shape, x.dtype), state)
    out = jax.tree.map(lambda x: x.sharding, (theta, state))
    return jax.jit(step, donate_argnums=(0, 1), out_shardings=out).lower(theta, state, g)


def copied(hlo):
    """Return the bytes that the copies in the entry computation read and write: they compute nothing."""
    entry = hlo[hlo.index("\nENTRY") :]
    return 2 * sum(sum(bytes_of(type_)) for type_ in re.findall(r" = (\S+) copy\(", entry))


def row(lowered):
    """Compile; return the bytes that a chip reads and writes, and has in use at once, and what it says to others."""
    program = lowered.compile()
    text, memory = program.as_text(), program.memory_analysis()
    moved, operations = counted(text)
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    said = {op: n for op, n in operations.items() if op.startswith(accelerators.COLLECTIVE)}
    held += memory.temp_size_in_bytes
    return {"moved": moved, "copied": copied(text), "held": held, "collectives": said}


def measure():
    """Compile ours and optax's for each mesh and layout, without and with a clip; return what was counted."""
    found = {}
    for layout, n in tqdm([(layout, n) for layout in LAYOUTS for n in MESHES], desc="meshes"):
        shape_on, *specs = LAYOUTS[layout]
        mesh = Mesh(np.array(described(MESHES[n]).devices), ("x",))
        at = dict(zip(("theta", "g", "memory"), (NamedSharding(mesh, spec) for spec in specs), strict=True))
        at[None] = NamedSharding(mesh, WHOLE)
        place = lambda what, shape, dtype, at=at: jax.ShapeDtypeStruct(shape, dtype, sharding=at[what])
        shape = shape_on(n)
        numbers = prod(at["theta"].shard_shape(shape))  # of the parameter, on one chip
        for name, case in NAMES.items():
            rows = {who: row(lower(CASES[case], place, shape)) for who, lower in (("ours", ours), ("optax", of_optax))}
            found.setdefault(layout, {}).setdefault(n, {"numbers": numbers})[name] = rows
    return found


# ---------------------------------------------------------------------------------------------------------------- page


def said(row):
    return ", ".join(f"{n} {op}" for op, n in sorted(row["collectives"].items())) or "none"


def of_each(found):
    """Return the lines of the table of bytes for each number of the parameter that a chip has."""
    lines = ["| layout, chips | | moved | of that copies | held | collectives |", "| " + "--- | " * 6]
    for layout, meshes in found.items():
        for n, cases in meshes.items():
            for name in NAMES:
                both = [cases[name][who] for who in ("ours", "optax")]
                each = lambda key, both=both, m=cases["numbers"]: "{:.2f} ({:.2f})".format(*(x[key] / m for x in both))
                words = said(both[0]) if said(both[0]) == said(both[1]) else f"{said(both[0])} ({said(both[1])})"
                numbers = [each(key) for key in ("moved", "copied", "held")]
                lines.append(f"| {layout}, {n} | {name} | " + " | ".join(numbers) + f" | {words} |")
    return lines


def of_the_model(found):
    """Return the lines of the table for MODEL parameters on the largest mesh: the same bytes for each number."""
    lines = ["| layout | | on a chip | fits | moved | seconds | of that for the norm |", "| " + "--- | " * 7]
    for layout in ("FSDP", "tensor parallel"):
        n, cases = max(found[layout].items(), key=lambda item: int(item[0]))
        plain = cases["plain"]["ours"]["moved"]
        for name in NAMES:
            for who in ("ours", "optax"):
                one = cases[name][who]
                held, moved = (one[key] / cases["numbers"] * MODEL / int(n) for key in ("held", "moved"))
                norm = f"{1 - plain / one['moved']:.0%}" if name != "plain" and who == "ours" else ""
                fits = "yes" if held < CAPACITY else "no"
                cells = [f"{held / 1e9:.1f} GB", fits, f"{moved / 1e9:.1f} GB", f"{moved / BANDWIDTH:.4f}", norm]
                lines.append(f"| {layout} | {name}, {who} | " + " | ".join(cells) + " |")
    return lines


def of_the_largest(found):
    """Return numbers for the largest model that fits a chip as a whole, with ZeRO-1 on the largest mesh."""
    _, cases = max(found["ZeRO-1"].items(), key=lambda item: int(item[0]))
    held, moved = (cases["plain"]["ours"][key] / cases["numbers"] for key in ("held", "moved"))
    largest = CAPACITY / held
    return {"largest": largest, "moving": moved * largest / BANDWIDTH, "gathering": 4 * largest / (LINKS / 2)}


PAGE = """\
# Past this machine

<!-- Made by `make accelerators`: do not edit. -->

What one update costs each chip of a mesh of TPU v5e: compiled by the real compiler for 4 to 256 chips that are not
here, and counted in the program. [On many devices](../scale.md) says how to lay out a run.

Made with {versions}, on {date}.

A chip has {numbers} numbers of one parameter in float32. With ZeRO-1 it has all {whole} of them, and a share of the
gradient and the accumulators. In both optimizers the new arrays take the place of the old ones. All bytes are for
each number of the parameter that a chip has; in brackets, those of optax's Adadelta, with its clip by global norm
where ours clips:

- *moved*: what the chip reads and writes in its main memory, and how much of that are copies, which the compiler
  adds;
- *held*: what is in use at once, gradients and temporaries included;
- *collectives*: what the chips say to each other. An all-reduce is a few numbers from each chip; an all-gather puts the
  new parameter together.

{of_each}

## {model} parameters

The same bytes for each number, on 256 chips, and the time that it takes at least to move them. A chip has
{capacity:.0f} GB and moves {bandwidth:.0f} GB/s, says [Google](https://docs.cloud.google.com/tpu/docs/v5e).

{of_the_model}

The all-reduce of the norm carries 12 bytes from each chip, three sums of squares: it costs the latency of the mesh, and
no bandwidth. What the norm costs is that the gradient is read before the update reads it. Optax's norm is one sum, and
infinite where a component is above 1.8e19.

ZeRO-1 keeps all parameters on each chip, so it is for models that fit one: here, up to {largest:.1e} parameters in
float32. For these an update moves its bytes in {moving:.3f} s, and the all-gather takes {gathering:.3f} s, at
{links:.0f} GB/s for all links of a chip, half of them in each direction. Most of what is moved are copies of the
whole parameter, which the compiler makes for both optimizers before and after the all-gather, to write over the old
one; where the old parameter is kept (`update()` without `donate`), it makes one of the two.
"""


def page(found):
    """Return the results as a page."""
    counts = found["counts"]
    return PAGE.format(
        **{key: found[key] for key in ("versions", "date")},
        numbers=f"2^{(ROWS * COLUMNS).bit_length() - 1}",
        whole=f"2^{(16 * ROWS * COLUMNS).bit_length() - 1}",
        of_each="\n".join(of_each(counts)),
        model=f"10^{len(str(MODEL)) - 1}",
        of_the_model="\n".join(of_the_model(counts)),
        capacity=CAPACITY / 1e9,
        bandwidth=BANDWIDTH / 1e9,
        links=LINKS / 1e9,
        **of_the_largest(counts),
    )


def main():
    path = RESULTS / "meshes.json"
    if sys.argv[1:] != ["page"]:
        found = {"versions": versions(), "date": time.strftime("%Y-%m-%d"), "counts": measure()}
        path.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    path.with_suffix(".md").write_text(page(json.loads(path.read_text())), "utf-8")
    print(path.with_suffix(".md"))


if __name__ == "__main__":
    main()
