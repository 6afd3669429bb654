"""The page of results: tables, figures and what they show, made from the records alone."""

import json
from statistics import median, quantiles

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from braintools_adadelta.bench.plan import size

OURS = "braintools_adadelta"
NAMES = {OURS: "ours", "limit": "limit: C"}
FORMS = {"jit": "in jit", "donated": "in jit, donated", (OURS, "donated"): "eager, donated"}
# Colours of Okabe and Ito, which the colour-blind can tell apart; the forms of a library differ by marker and line.
COLOURS = {"ours": "#D55E00", "braintools": "#0072B2", "optax": "#009E73", "torch": "#CC79A7", "keras": "#E69F00"}
LINES = {"eager": "o-", "jit": "s--", "donated": "^:", "loop": "o-", "foreach": "s--"}
STYLE = {"svg.hashsalt": "adadelta", "axes.spines.top": False, "axes.spines.right": False, "figure.figsize": (7.2, 4.2),
         "savefig.transparent": True, "font.size": 9}  # fmt: skip


def label(library, form):
    name, _, at = library.partition(" ")
    who = NAMES.get(name, name) + (f" at {at}" if at else "")
    if form == "copy":
        return "limit: a copy"
    return f"{who}, {FORMS.get((name, form), FORMS.get(form, form))}"


class Found:
    """The records of one run, by section, workload and contender."""

    def __init__(self, document):
        self.records, self.missing, self.made_with = document["records"], document["missing"], document["made_with"]

    def section(self, section):
        """Return {workload: {(library, form): record}}."""
        found = {}
        for one in self.records:
            if one["section"] == section:
                found.setdefault(one["workload"], {})[one["library"], one["form"]] = one
        return found


def ratio(one, base):
    """Return how many times as long `one` takes as `base`: the median over the rounds, in which both took turns."""
    pairs = zip(one["rounds"], base["rounds"], strict=False)
    return median(a / b for a, b in pairs)


def fastest(row, library):
    """Return the fastest record of a library at one workload, or None."""
    those = [one for (name, _), one in row.items() if name == library]
    return min(those, key=lambda one: median(one["rounds"]), default=None)


def digits(x):
    """Write a number with three digits."""
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def spread(values, unit):
    """Write median and quartiles of seconds in a unit."""
    low, middle, high = (x / unit for x in (quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3))
    return f"{digits(middle)} ({digits(low)} to {digits(high)})"


def table(head, rows):
    return "\n".join(f"| {' | '.join(cells)} |" for cells in ([*head], ["---"] * len(head), *rows))


def by_contender(found, cell):
    """Return a table with a row for each contender and a column for each workload."""
    contenders = dict.fromkeys(contender for row in found.values() for contender in row)
    rows = [[label(*one), *(cell(row, row[one]) if one in row else "" for row in found.values())] for one in contenders]
    return table(["", *found], rows)


def over(base):
    """Return a cell: the ratio to what `base` picks from the same column."""
    return lambda row, one: digits(ratio(one, base(row))) if base(row) else ""


def tables(found):
    """Return {title: text} of all tables that the records fill."""
    limit = lambda row: fastest(row, "limit")
    original = lambda row: row.get(("braintools", "jit"))
    cpu = lambda unit: lambda row, one: digits(median(one["cpu"]) / unit)
    time = lambda unit: lambda row, one: spread(one["rounds"], unit)
    pages = {}
    if large := found.section("large"):
        pages["Large parameters: times of the limit"] = by_contender(large, over(limit))
        pages["Large parameters: milliseconds of a step"] = by_contender(large, time(1e-3))
        pages["Large parameters: milliseconds of CPU time, of all cores"] = by_contender(large, cpu(1e-3))
    if small := found.section("small"):
        pages["Small networks: times of braintools in brainstate's jit"] = by_contender(small, over(original))
        pages["Small networks: microseconds of a step"] = by_contender(small, time(1e-6))
        pages["Small networks: microseconds of CPU time"] = by_contender(small, cpu(1e-6))
    if memory := found.section("memory"):
        pages["Memory, counted"] = counted(memory)
    if first := found.section("first"):
        pages["The first call, in a fresh process: milliseconds"] = by_contender(first, time(1e-3))
    if imports := found.section("import"):
        base = lambda row: row.get(("brainstate", "import"))
        rows = [[library, spread(one["rounds"], 1e-3), over(base)(row, one)]
                for row in imports.values() for (library, _), one in row.items()]  # fmt: skip
        pages["Import"] = table(["", "milliseconds", "times of brainstate"], rows)
    if training := found.section("training"):
        pages["Training steps"] = shares(training)
    turns = {f"{name} ({section})": row for section in ("large", "small") for name, row in found.section(section).items()}
    for name in sorted({one["library"] for one in found.records if one["library"].startswith(f"{OURS} ")}):
        pages[f"This version, as a multiple of {name.split()[1]}"] = against(turns, name)
    return pages


def counted(memory):
    rows = [
        [name, label(*contender), f"{one['temporaries'] / 2**20:.3g}", f"{one['reused'] / 2**20:.3g}",
         f"{one['moved'] / size(one):.3g}"]
        for name, row in memory.items() for contender, one in row.items() if "moved" in one
    ]  # fmt: skip
    return table(["", "", "temporaries, MiB", "written in place, MiB", "bytes moved for a parameter"], rows)


def shares(training):
    rows = []
    for name, row in training.items():
        whole = {library: one for (library, _), one in row.items()}
        if len(whole.keys() & {OURS, "braintools", "idle"}) == 3:
            share = {who: 1 - 1 / ratio(whole[who], whole["idle"]) for who in (OURS, "braintools")}
            times = [spread(whole[who]["rounds"], 1e-3) for who in (OURS, "braintools", "idle")]
            rows.append([name, *times, *(f"{x:.0%}" for x in share.values()), digits(ratio(whole[OURS], whole["braintools"]))])
    head = ["", "ours, ms", "braintools, ms", "without an optimizer, ms", "share of ours", "share of braintools", "ratio"]
    return table(head, rows)


def against(turns, other):
    """Return a table of ratios of this version to another one, form by form."""
    forms = dict.fromkeys(form for row in turns.values() for library, form in row if library == OURS)
    pick = lambda row, form: (row.get((OURS, form)), row.get((other, form)))
    rows = [[form, *(digits(ratio(*pick(row, form))) if all(pick(row, form)) else "" for row in turns.values())]
            for form in forms]  # fmt: skip
    return table(["", *turns], rows)


# ------------------------------------------------------------------------------------------------------------- figures


def style(library, form):
    """Return the colour, marker and line of a contender; those of other versions of ours are thin."""
    name, _, at = library.partition(" ")
    drawn = LINES.get(form, "x-" if form == "one core" else "+--")
    colour = COLOURS.get(NAMES.get(name, name), "#666666")
    return {"color": colour, "marker": drawn[0], "ls": drawn[1:], "lw": 0.8 if at else 1.5, "ms": 5}


def curve(found, x, y, axes):
    """Draw one line for each contender, and say which is lowest at the right end."""
    fig, ax = plt.subplots()
    lines = {}
    for row in found.values():
        for contender, one in row.items():
            lines.setdefault(contender, []).append((x(one), y(one)))
    for contender, points in lines.items():
        ax.loglog(*zip(*sorted(points), strict=True), label=label(*contender), **style(*contender))
    ax.set(**axes)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    last = max(point[0] for points in lines.values() for point in points)
    ends = {contender: y for contender, points in lines.items() for x, y in points if x == last}
    order = ", ".join(f"{label(*one)} {digits(ends[one])}" for one in sorted(ends, key=ends.get))
    return fig, f"{axes['ylabel']} against {axes['xlabel']}. At {last:,} from low to high: {order}."


def dots(large):
    """Draw the ratios to the limit, a panel for each workload."""
    limits = {name: fastest(row, "limit") for name, row in large.items()}
    contenders = list(dict.fromkeys(one for row in large.values() for one in row if one[0] != "limit"))[::-1]
    fig, axes = plt.subplots(1, len(large), figsize=(9, 0.3 * len(contenders) + 1.2), sharey=True, squeeze=False)
    best = []
    for ax, (name, row) in zip(axes[0], large.items(), strict=True):
        for y, contender in enumerate(contenders):
            if contender in row:
                pairs = zip(row[contender]["rounds"], limits[name]["rounds"], strict=False)
                ratios = sorted(a / b for a, b in pairs)
                look = style(*contender) | {"ls": "-"}
                ax.plot([ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]], [y, y], **look | {"marker": "", "lw": 3}, alpha=0.4)
                ax.plot([median(ratios)], [y], **look)
        ax.set(xscale="log", title=name, yticks=range(len(contenders)), yticklabels=[label(*one) for one in contenders])
        ax.axvline(1, color="#666666", lw=1)
        ax.grid(axis="x", alpha=0.3)
        order = sorted((c for c in row if c[0] != "limit"), key=lambda one: median(row[one]["rounds"]))
        best.append(f"{name}: {', '.join(f'{label(*c)} {digits(ratio(row[c], limits[name]))}' for c in order[:3])}")
    fig.supxlabel("time of a step, as a multiple of the limit")
    return fig, f"Time of a step as a multiple of the limit. The three fastest at {'; at '.join(best)}."


def roofline(memory, large, sizes):
    """Draw speed against the bytes that are moved for a parameter, below the two roofs of the machine."""
    (name, counts), *_ = memory.items()
    row = large[name]
    limit = fastest(row, "limit")
    speed = lambda one: size(one) / median(one["rounds"])
    bandwidth = 28 * speed(limit)
    fig, ax = plt.subplots()
    ends = [14, 140]
    ax.loglog(ends, [bandwidth / x / 1e6 for x in ends], color="#666666", label=f"memory: {bandwidth / 1e9:.0f} GB/s")
    cached = max(map(speed, filter(None, (fastest(one, "limit") for one in sizes.values()))), default=0)
    if cached > speed(limit):
        ax.axhline(cached / 1e6, color="#666666", ls=":", label="arithmetic: the same C, from the cache")
    ax.plot([28], [speed(limit) / 1e6], "k*", ms=10, label="limit: each number once")
    points = {}
    for contender, one in counts.items():
        if "moved" in one and contender in row:
            points[contender] = one["moved"] / size(one), speed(row[contender]) / 1e6
            ax.plot(*([x] for x in points[contender]), **style(*contender) | {"ls": ""}, label=label(*contender))
    ax.set(xlabel="bytes moved for one parameter, as XLA counts them", ylabel="million parameters a second")
    ax.set_xticks([14, 28, 56, 84, 112, 140], labels=["14", "28", "56", "84", "112", "140"])
    ax.minorticks_off()
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    told = ", ".join(f"{label(*c)} {digits(x)} bytes and {digits(y)} million" for c, (x, y) in points.items())
    return fig, f"Roofline at {name}: parameters a second against bytes moved for each. {told}."


def figures(found):
    """Return {name: (figure, what it shows)}."""
    drawn, large, small = {}, found.section("large"), found.section("small")
    leaves = lambda one: one["leaves"]
    per_step = lambda unit: lambda one: median(one["rounds"]) / unit
    if large and all(fastest(row, "limit") for row in large.values()):
        drawn["large"] = dots(large)
        memory = found.section("memory")
        if memory and next(iter(memory)) in large:
            drawn["roofline"] = roofline(memory, large, found.section("sizes"))
    if small:
        axes = {"xlabel": "parameters of four elements", "ylabel": "microseconds of a step"}
        drawn["small"] = curve(small, leaves, per_step(1e-6), axes)
    if sizes := found.section("sizes"):
        axes = {"xlabel": "numbers in one parameter", "ylabel": "nanoseconds of a step for each number"}
        drawn["sizes"] = curve(sizes, size, lambda one: median(one["rounds"]) / size(one) / 1e-9, axes)
    if many := found.section("leaves"):
        axes = {"xlabel": "parameters that share the same total", "ylabel": "milliseconds of a step"}
        drawn["leaves"] = curve(many, leaves, per_step(1e-3), axes)
    return drawn


# ---------------------------------------------------------------------------------------------------------------- page

PAGE = """\
# The benchmark

Made by `adadelta-bench` (`make bench`), {kind}, on {date} UTC: {system}, {processor}, {cores} cores, device {device};
load before it began: {load}. Python {python}, {versions}.

Ours, the original, optax, torch and keras take the same float32 step from the same arrays. One process for each library
waits for its turn, in an order that is drawn anew in each round; a number is the median over the rounds, and the
quartiles are in brackets. Ratios are taken round by round. "In jit" is inside the jit of brainstate, JAX or keras.
"Donated" means that the old parameters, and for others the old averages too, may be overwritten. Ours overwrites its
averages in any case. {limit}
"""
LIMITS = {
    "cpu": "The limit is a loop in C that reads and writes each number once, 28 bytes for each parameter.",
    "other": "The limit is a copy on the device that moves 28 bytes for each parameter, read and written.",
}
ROOFLINE = """\
## Why the plain form is slow on a CPU

A step has to read theta, g and two averages and to write three of them: seven passes over memory, 28 bytes for each
parameter in float32. The line that falls in the figure is what memory allows: whoever moves twice the bytes has half the
speed at best. The level line is what the arithmetic allows: the same C on arrays that stay in the cache. Where a
contender stands on the falling line, memory is what it waits for, and only fewer bytes can make it faster.

On a CPU, XLA makes several loops of a step, each of which writes one array that the next one reads from memory again:
optax and the plain form of ours move two to three times the 28 bytes. In blocks (see [One pass over
memory](../05_9_blocks.ipynb)) the same loops run over a piece that fits into the cache, so what they hand to each other
costs no pass. XLA counts what a loop over blocks moves only once; here it is taken to move what goes in and out.
"""
SHOWN = {
    "large": "## Large parameters",
    "small": "## Small networks",
    "sizes": "## Cost against size",
    "leaves": "## Cost against the number of parameters",
    "roofline": ROOFLINE,
}


def page(found, drawn):
    """Return the page, in the Markdown of the docs."""
    about = dict(found.made_with)
    about["versions"] = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    kind, about["device"] = about["device"]["platform"], about["device"]["kind"]
    about["kind"] = {"full": "whole", "quick": "`--quick`", "tiny": "`--tiny`"}[about["kind"]]
    parts = [PAGE.format(**about, limit=LIMITS.get(kind, LIMITS["other"]))]
    for name, (_, shows) in drawn.items():
        parts.append(f"{SHOWN[name]}\n```{{image}} benchmark-{name}.svg\n:alt: {shows}\n:class: chart\n```\n")
    parts.append(text(found, "## "))
    return "\n".join(parts)


def text(found, mark=""):
    """Return the tables, and what is missing from them."""
    parts = [f"{mark}{title}\n\n{rows}\n" for title, rows in tables(found).items()]
    if found.missing:
        parts.append(f"{mark}Left out\n\n" + "\n".join(f"- {name}: {why}" for name, why in found.missing.items()) + "\n")
    return "\n".join(parts)


def write(document, folder):
    """Write the document, its figures and its page into a folder. Return the tables, to be printed."""
    found = Found(document)
    head = {name: document[name] for name in ("made_with", "missing")}
    records = ",\n ".join(json.dumps(one) for one in document["records"])
    folder.joinpath("benchmark.json").write_text(f'{json.dumps(head, indent=1)[:-2]},\n "records": [\n {records}\n ]\n}}\n')
    with plt.rc_context(STYLE):
        drawn = figures(found)
        for name, (fig, _) in drawn.items():
            fig.savefig(folder / f"benchmark-{name}.svg", bbox_inches="tight", metadata={"Date": None})
            plt.close(fig)
    folder.joinpath("benchmark.md").write_text(page(found, drawn), "utf-8")
    return text(found)
