"""How large does the error of a step get over all 2^32 float32 gradients? Take each of them from five named states.

Our compiled float32 step, on whatever JAX computes on, is compared with a reference that numpy computes in float64,
and judged by the bound of that platform. The error of the reference is at
most gamma(9, 2^-53), or 2e-8 of a float32 ulp. A gradient and its negative must give the same bits, except for the sign
of Delta. So the reference takes only one of the two. Errors are measured in ulps and as a share of the derived bound,
for each region of the input.

Each finished chunk is saved. A run that was stopped goes on there when it is started again.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
from pathlib import Path

import numpy as np

# Where the gradient arrives: E[g2], E[Delta2], rho, eps.
STATES = {
    "first": (0.0, 0.0, 0.9, 1e-6),
    "settled": (0.73, 3.1e-5, 0.9, 1e-6),
    "faded": (1.3e-7, 2.9e-7, 0.95, 1e-6),
    "near_overflow": (3.1e38, 4.7e-4, 0.9, 1e-8),
    "tiny_eps": (5.1e-33, 2.3e5, 0.999, 2.0**-102),
}
FIELDS = "e_g2", "delta", "e_delta2"
CHUNK, BLOCK = 2**26, 2**17
FINITE = 0x7F800000  # the bits of infinity: below are the finite numbers, above the NaNs


def reference(g, e_g2, e_delta2, rho, eps):
    """Return E[g2]_t, -Delta_t and E[Delta2]_t for float64 `g` >= 0. The square of a float32 is exact there."""
    g2 = g * g
    e_g2 = (1 - rho) * g2 + rho * e_g2
    r = (e_delta2 + eps) / (e_g2 + eps)
    return e_g2, np.sqrt(r) * g, (1 - rho) * (r * g2) + rho * e_delta2


def ulp(x):
    """Return the float32 ulp of each positive float64: the power of two below it, 23 places on, with a floor."""
    powers = (x.view(np.uint64) & np.uint64(0x7FF0000000000000)).view(np.float64)
    return np.maximum(powers * 2.0**-23, 2.0**-149)


def measure(state, first, count):
    """Return {region: {field: [worst ulps, its bits, worst share of the bound, its bits]}}."""
    import jax
    import platform_arithmetic

    from braintools_adadelta.equations import adadelta
    from braintools_adadelta.oracle.bounds import PLAIN, average_bound, delta_bounds, edges, machine_of, square_bound
    from braintools_adadelta.oracle.exact import largest_root
    from braintools_adadelta.oracle.ulp import float32

    e_g2, e_delta2 = (float(np.float32(x)) for x in STATES[state][:2])
    rho, eps = STATES[state][2:]
    ours = jax.jit(lambda g: adadelta(g, np.float32(e_g2), np.float32(e_delta2), rho, eps))
    m = machine_of(platform_arithmetic.platform(), float32, number=float)
    options = {"rho": rho, "m": m, "form": PLAIN}
    limits, worst = edges(float32, eps), {}
    for start in range(first, first + count, BLOCK):
        bits = np.arange(start, start + BLOCK, dtype=np.uint32)
        got, mirror = ([np.asarray(x) for x in ours(y.view(np.float32))] for y in (bits, bits | np.uint32(0x80000000)))
        real = ~np.isnan(got[1])
        same = [
            (x.view(np.uint32) == y.view(np.uint32))[real].all() for x, y in ((got[0], mirror[0]), (got[2], mirror[2]))
        ]
        assert all(same) and (got[1] == -mirror[1])[real].all(), f"{state}: the sign matters near {start:#x}"
        if start >= FINITE:
            nan = bits > FINITE
            assert np.isnan(got[0])[nan].all() and (got[0] == np.inf)[~nan].all()
            assert np.isnan(got[1]).all() and np.isnan(got[2]).all()
            continue
        g = np.minimum(bits.view(np.float32).astype(np.float64), float(largest_root(float32)))
        truth = reference(g, e_g2, e_delta2, rho, eps)
        b_g2 = average_bound(e_g2, g * g, 0.0, square_bound(g, 0.0, m), **options)
        b, b2 = delta_bounds(g, truth[0], e_delta2, 0.0, (0.0, b_g2), eps=eps, m=m, form=PLAIN)
        allowed = b_g2, b, average_bound(e_delta2, truth[1] ** 2, 0.0, b2, **options)
        names = list(limits)
        cuts = [*np.searchsorted(bits.view(np.float32), [float(x) for x in limits.values()]), BLOCK]
        for field, x, y, bound in zip(FIELDS, got, truth, allowed, strict=True):
            error = np.abs(np.abs(x).astype(np.float64) - y)
            assert (np.isfinite(x)).all() and (x <= 0 if field == "delta" else x >= 0).all()
            in_ulps, share = error / ulp(y), error / bound
            for name, low, high in zip(names, cuts, cuts[1:], strict=False):
                if low < high:
                    i, j = low + in_ulps[low:high].argmax(), low + share[low:high].argmax()
                    new = [float(in_ulps[i]), int(bits[i]), float(share[j]), int(bits[j])]
                    worst.setdefault(name, {})[field] = larger(worst.get(name, {}).get(field), new)
    return worst


def larger(a, b):
    """Merge two records of a worst case."""
    if a is None:
        return b
    return [*(a[:2] if a[0] >= b[0] else b[:2]), *(a[2:] if a[2] >= b[2] else b[2:])]


def work(task):
    import jax

    return task, measure(*task), jax.devices()[0].device_kind


def table(done):
    """Merge the records of all chunks: {state: {region: {field: record}}}."""
    merged = {}
    for key, worst in done.items():
        for region, fields in worst.items():
            for field, record in fields.items():
                place = merged.setdefault(key.split(":")[0], {}).setdefault(region, {})
                place[field] = larger(place.get(field), record)
    return merged


def page(found, names, devices, note):
    """Return the result as a page of the docs."""
    where = "the CPU" if devices == ["cpu"] else " and ".join(devices)
    lines = [
        "# Every float32 gradient" + (f", on {where}" if devices != ["cpu"] else ""),
        "",
        "Made by `make exhaustive`: the step from five named states with each of the $2^{32}$ gradients, compiled, on"
        f" {where}, against a reference in double precision. A row gives the largest error in ulps and, in brackets,"
        " the largest share that an error took of its [derived bound](../12_error_analysis.ipynb). The ulp has a floor"
        " at the subnormal numbers: where a result below the normal range is flushed to zero, as XLA does on the CPU,"
        " its error is up to $2^{23}$ of them, and the bound counts it as one $\\eta$.",
        *["", note][: 2 * bool(note)],
    ]
    titles = {"e_g2": "E[g2]", "delta": "Delta", "e_delta2": "E[Delta2]"}
    for state, regions in found.items():
        e_g2, e_delta2, rho, eps = STATES[state]
        lines += [
            "",
            f"## {state}",
            "",
            f"E[g2] = {e_g2:g}, E[Delta2] = {e_delta2:g}, rho = {rho:g}, eps = {eps:.3g}",
            "",
        ]
        lines += ["| region | " + " | ".join(titles.values()) + " |", "| --- | --- | --- | --- |"]
        for region in (name for name in names if name in regions):
            cells = (f"{regions[region][f][0]:.3g} ({regions[region][f][2]:.0%})" for f in titles)
            lines.append(f"| {region} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main():
    from tqdm import tqdm

    from braintools_adadelta.oracle.bounds import edges
    from braintools_adadelta.oracle.ulp import float32

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results/exhaustive.json"), help="(default: %(default)s)")
    parser.add_argument("--progress", type=Path, default=Path("build/exhaustive.jsonl"), help="(default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: %(default)s)")
    parser.add_argument("--note", default="", help="a sentence for the page")
    parser.add_argument("--part", type=int, default=1, help="judge one chunk in PART only, and write no result")
    arguments = parser.parse_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the processes share a GPU

    arguments.progress.parent.mkdir(parents=True, exist_ok=True)
    done, devices = {}, set()
    if arguments.progress.exists():
        for line in arguments.progress.read_text().splitlines():
            if line.endswith("]"):
                key, done[key], device = json.loads(line)
                devices.add(device)
    tasks = [(state, first, CHUNK) for state in STATES for first in range(0, 2**31, CHUNK)][:: arguments.part]
    left = [task for task in tasks if f"{task[0]}:{task[1]:#010x}" not in done]
    gradients = 2 * CHUNK * len(tasks)
    context = multiprocessing.get_context("spawn")
    with (
        concurrent.futures.ProcessPoolExecutor(arguments.jobs, mp_context=context) as pool,
        tqdm(total=gradients, initial=gradients - 2 * CHUNK * len(left), unit="g", unit_scale=True) as bar,
        arguments.progress.open("a") as log,
    ):
        for future in concurrent.futures.as_completed([pool.submit(work, task) for task in left]):
            (state, first, _), worst, device = future.result()
            done[key := f"{state}:{first:#010x}"] = worst
            devices.add(device)
            log.write(json.dumps([key, worst, device]) + "\n")
            log.flush()
            bar.update(2 * CHUNK)

    found = table(done)
    for state, regions in found.items():
        print(f"\n{state}: E[g2], E[Delta2], rho, eps = {STATES[state]}")
        for region in (name for name in edges(float32, STATES[state][3]) if name in regions):
            cells = (f"{field} {x[0]:.3g} ulps, {x[2]:.0%}" for field, x in regions[region].items())
            print(f"  {region:18}" + "   ".join(cells))
    worst_share = max(x[2] for regions in found.values() for fields in regions.values() for x in fields.values())
    print(f"\n{gradients} steps, the largest error is {worst_share:.1%} of its bound")
    if arguments.part == 1:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        about = {"states": STATES, "gradients per state": 2**32, "devices": sorted(devices), "note": arguments.note}
        arguments.out.write_text(json.dumps({"about": about, "worst": found}, indent=1) + "\n")
        text = page(found, list(edges(float32, 1e-6)), sorted(devices), arguments.note)
        arguments.out.with_suffix(".md").write_text(text)
    raise SystemExit(worst_share > 1)


if __name__ == "__main__":
    main()
