"""What must an Adadelta in any language compute, and which bugs does that tell? ``python tools/vectors.py [--check]``

Writes vectors.json and corpus.json of braintools_adadelta/conformance, or compares them. A vector is a training run
with the exact answers in double precision and how far rounding may take an implementation from each. A corpus entry
names a bug, what an implementation must offer to have it, and the clauses that tell it from the spec.
"""

import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from braintools_adadelta.conformance import adapters, vectors  # noqa: E402
from braintools_adadelta.conformance.cases import (  # noqa: E402
    ALIKE,
    EMPTY,
    HYPER,
    MANY,
    NAMES,
    NARROW,
    SCALARS,
    SINGLE,
    SPECIAL,
    regions_of,
    rng_of,
    runs,
)
from braintools_adadelta.conformance.corpus import WRONG  # noqa: E402
from braintools_adadelta.conformance.judge import Case, pairs, saturates_at  # noqa: E402
from braintools_adadelta.oracle import ulp  # noqa: E402
from braintools_adadelta.oracle.bounds import ANY, bounds  # noqa: E402
from braintools_adadelta.oracle.exact import CONTEXT as mp  # noqa: E402
from braintools_adadelta.oracle.exact import exact, step  # noqa: E402

KIT = ROOT / "braintools_adadelta/conformance"
FEW = {"w": (2, 2), "s": (1,), "bias": (2,), "a": (2,)}
CLIP = {"lr": 0.75, "rho": 0.625, "eps": 1.0}
SMALL = {"lr": 1.0, "rho": 0.9, "eps": 1e-6}
STAYS = [None, 0.1, *[None] * 8, 0.7, *[None] * 5]
ORDER = {"grad_clip_norm": 2.0, "grad_clip_value": 1.5, "weight_decay": 0.5}


def cases():
    """Yield (clause, dtype, Case)."""
    for dtype in ("float32", "float64"):
        rng = rng_of("vectors", dtype)
        zeros = {"w": np.array([1.0, -2.0], dtype), "b": np.array([3.0], dtype)}
        yield "S2", dtype, Case(zeros, [{k: np.zeros_like(x) for k, x in zeros.items()}] * 2, SMALL)
        for options in HYPER.values():
            yield "S2", dtype, runs(rng, dtype, options, shapes=ALIKE, steps=1)
            for _ in range(2):
                yield "E1", dtype, runs(rng, dtype, options, shapes=FEW, steps=4)
                yield "E2", dtype, runs(rng, dtype, options | {"lr": 1.0}, shapes=FEW, steps=3, theta=0.0)
                yield "E3", dtype, runs(rng, dtype, options, shapes=FEW, steps=4, regions=["near_eps"])
                yield "E4", dtype, runs(rng, dtype, options, shapes=FEW, steps=3, regions=["ordinary"])
            yield "L1", dtype, runs(rng, dtype, options, shapes=ALIKE, lrs=[0.25, 0.0, 3.0, None])
            far = list(regions_of(dtype, far=True))
            yield "E4", dtype, runs(rng, dtype, options, shapes=ALIKE, steps=3, regions=far)
        yield "E1", dtype, runs(rng, dtype, CLIP, shapes=NAMES, steps=3)
        yield "E4", dtype, runs(rng, dtype, CLIP, shapes={"conv": (2, 2, 1, 2)}, steps=2)
        yield "E4", dtype, runs(rng, dtype, CLIP, shapes=SINGLE, steps=210, regions="near_eps")
        yield "E4", dtype, runs(rng, dtype, CLIP | {"lr": 0.0}, shapes=SINGLE, steps=2)
        yield "L1", dtype, runs(rng, dtype, CLIP, shapes=SINGLE, steps=16, lrs=STAYS, regions="near_eps")
        for name, x in ORDER.items():
            yield "G4", dtype, runs(rng, dtype, CLIP | {name: x}, shapes=ALIKE, steps=12, regions="near_eps")
        tiny = np.array([1e-9, -1e-12, 1e-15, 0.0], dtype)
        grads = [{"w": tiny}, {"w": -3 * tiny}, {"w": 0 * tiny}, {"w": tiny}]
        yield "E4", dtype, Case({"w": np.zeros(4, dtype)}, grads, SMALL)
        yield "E4", dtype, runs(rng, dtype, CLIP, shapes=MANY, steps=3)
        yield "E4", dtype, runs(rng, dtype, CLIP, shapes={"long": (131,)}, steps=2)
        long = {"lr": 0.5, "rho": 0.9, "eps": 1e-4}
        yield "E4", dtype, runs(rng, dtype, long, shapes=SINGLE, steps=105, regions=["ordinary", "near_eps"])
        for shapes in (SCALARS, EMPTY):
            for option in ({}, *({name: x} for name, x in ORDER.items())):
                yield "S4", dtype, runs(rng, dtype, CLIP | option, shapes=shapes, steps=2, regions="near_eps")
        tree = lambda v, u, dtype=dtype: {"v": np.array([v], dtype), "u": np.array([[u]], dtype)}
        met = [
            tree(3.0015, -4.002),
            tree(3, -4),
            tree(0, 0),
            tree(-5, 0),
            tree(0, 2),
            tree(3.01, -4.02),
            tree(400, 300),
        ]
        for c in (1e-3, 1.0, 5.0, 50.0):
            hyper, region = (SMALL, "near_eps") if c == 1e-3 else (CLIP, "ordinary")
            for name, clause in (("grad_clip_norm", "G1"), ("grad_clip_value", "G2")):
                yield clause, dtype, Case(tree(3, -4), met, CLIP | {name: c})
                for shapes in (FEW, ALIKE):
                    yield clause, dtype, runs(rng, dtype, hyper | {name: c}, shapes=shapes, steps=2, regions=region)
        for decay in (0.01, 0.5, 3.0):
            yield "G3", dtype, Case(tree(3, -4), met, CLIP | {"weight_decay": decay})
            yield "G3", dtype, runs(rng, dtype, CLIP | {"weight_decay": decay}, shapes=FEW, steps=3)
        yield "G3", dtype, runs(rng, dtype, CLIP | {"weight_decay": 0.5}, shapes={k: (1,) for k in SPECIAL}, steps=2)
        for off in (None, *ORDER):
            options = CLIP | {name: x for name, x in ORDER.items() if name != off}
            u = {"u": np.array([-2.0, 6.0], dtype)}
            yield "G4", dtype, Case(u, [{"u": np.array([3.0, 1.0], dtype)}] * 2, options)
            yield "G4", dtype, runs(rng, dtype, options, shapes=ALIKE, steps=3, regions="ordinary")
        root = float(np.finfo(dtype).max) ** 0.5
        spike = [{"w": np.array([x, 1.0], dtype)} for x in (root * 2, -1.0, 0.5)]
        yield "X1", dtype, Case({"w": np.array([0.5, 0.5], dtype)}, spike, SMALL)
        number = "complex64" if dtype == "float32" else "complex128"
        for options in HYPER.values():
            yield "X3", number, runs(rng_of("vectors", number), number, options, shapes=FEW, steps=3)
        for name, x in ORDER.items():
            options = CLIP | {name: x}
            yield "X3", number, runs(rng_of(name), number, options, shapes=ALIKE, steps=3, regions="near_eps")
        yield "X3", number, runs(rng, number, CLIP, shapes=ALIKE, steps=3, lrs=[None, 0.1, None])
        yield "X3", number, runs(rng, number, CLIP, shapes={"long": (150,)}, steps=1)
    for options in NARROW.values():
        yield "E4", "float16", runs(rng_of("vectors", "float16"), "float16", options, shapes=FEW, steps=3)
    rng, options = rng_of("narrow"), NARROW["large_eps"]
    yield "E4", "float16", runs(rng, "float16", options, shapes={"long": (70,)}, steps=1)
    yield "E4", "float16", runs(rng, "float16", options, shapes=SINGLE, steps=12, regions="near_eps", theta=0.0)
    yield "L1", "float16", runs(rng, "float16", options, shapes=ALIKE, lrs=[None, 0.1, None, 3.0])
    for name, x in ORDER.items():
        yield "G4", "float16", runs(rng, "float16", options | {name: x}, shapes=ALIKE, steps=3, regions="near_eps")
    spike = [{"w": np.array([x, 1.0], "float16")} for x in (300.0, 1.0, -1.0)]
    yield "X1", "float16", Case({"w": np.array([0.5, 0.5], "float16")}, spike, {"lr": 1.0, "rho": 0.9, "eps": 0.01})


def vector(number, clause, dtype, case):
    """Return a case with its answers as plain data."""
    fmt, names = ulp.FORMATS[{"complex64": "float32", "complex128": "float64"}.get(dtype, dtype)], sorted(case.params)
    sizes = {name: len(vectors.numbers(case.params[name])) for name in names}
    options = {"lr": 1.0} | {k: v for k, v in case.options.items() if v is not None}
    options["largest"] = saturates_at(fmt)
    theta, carried = exact(pairs(case.params)), None
    e_g2 = e_delta2 = exact([0.0] * len(theta))
    steps = []
    for t, grads in enumerate(case.grads):
        if case.lrs and case.lrs[t] is not None:
            options["lr"] = case.lrs[t]
        after = step(theta, exact(pairs(grads)), e_g2, e_delta2, **options)
        carried = bounds(after, theta, e_g2, e_delta2, fmt=fmt, form=ANY, carried=carried, **options)
        theta, e_g2, e_delta2 = after.theta, after.e_g2, after.e_delta2
        row = vectors.twice("g", {k: vectors.numbers(x) for k, x in grads.items()})
        if case.lrs and case.lrs[t] is not None:
            row |= vectors.twice("lr", float(case.lrs[t]))
        for field in ("e_g2", "e_delta2", "theta"):
            rows = list(zip(getattr(after, field), getattr(carried, field), strict=True))
            row |= vectors.twice(field, spread([float(x) for x, _ in rows], sizes))
            # Outwards, and with what the answer itself lost when it was written in double precision.
            row[f"{field}_within"] = spread(
                [f"{float((b + abs(x - mp.mpf(float(x)))) * (1 + mp.ldexp(1, -20))):.4g}" for x, b in rows], sizes
            )
        steps.append(row)
    given = {k: float(v) for k, v in case.options.items() if v is not None}
    params = {k: vectors.numbers(x) for k, x in case.params.items()}
    shapes = {k: list(x.shape) for k, x in case.params.items()}
    name = f"{clause}-{dtype}-{number}"
    about = {"id": name, "clause": clause, "dtype": dtype, "shapes": shapes}
    return about | vectors.twice("options", given) | vectors.twice("params", params) | {"steps": steps, "kills": []}


def spread(numbers, sizes):
    """Return the flat list `numbers` as lists by name."""
    numbers = iter(numbers)
    return {name: [next(numbers) for _ in range(size)] for name, size in sizes.items()}


def main(check=False):
    rows = [vector(k, *row) for k, row in enumerate(cases())]
    corpus = {}
    for cls in WRONG:
        told = {"shown": set(), "theta": set()}
        for row in rows:
            for how in told:
                it = adapters.Subject(cls.__name__, cls())
                if how == "theta":
                    it.it.accumulators = lambda handle: None
                if row["clause"] != "X1" and vectors.wrong(it, row):  # overflow is no bug of its own
                    told[how].add(row["clause"])
                    row["kills"] += [cls.__name__] if how == "shown" else []
        corpus[cls.__name__] = {
            "what": (cls.__doc__ or cls.__name__).splitlines()[0].rstrip("."),
            "needs": sorted(getattr(cls, "needs", ())),
            "clauses": sorted({cls.clause} | (told["theta"] & {"E2", "E4"})),
            "vectors": sorted(told["shown"]),
        }
    page = {"about": "see docs/vectors.md", "version": 2, "vectors": rows}
    for name, thing in (("vectors.json", page), ("corpus.json", corpus)):
        text = json.dumps(thing, indent=None if name == "vectors.json" else 1, separators=(",", ": ")) + "\n"
        text = text.replace('{"id"', '\n{"id"')
        if check and (KIT / name).read_text("utf-8") != text:
            sys.exit(f"{name} is not what tools/vectors.py makes")
        (KIT / name).write_text(text, "utf-8")
    alive = [name for name, row in corpus.items() if not row["vectors"]]
    print(f"{len(rows)} vectors; {len(corpus) - len(alive)} of {len(corpus)} bugs told; not: {', '.join(alive)}")


if __name__ == "__main__":
    main("--check" in sys.argv)
