"""The page of results: tables, figures and what they show, made from the records alone."""

import json
from statistics import median, quantiles

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from braintools_adadelta.bench.plan import size

OURS = "braintools_adadelta"
ORDER = ["limit", OURS, "braintools", "optax", "torch", "keras"]
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
        place = lambda contender: ORDER.index(name) if (name := contender[0].split()[0]) in ORDER else len(ORDER)
        return {name: {one: row[one] for one in sorted(row, key=place)} for name, row in found.items()}


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
    low, middle, high = (
        x / unit for x in (quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3)
    )
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
    """Return {section: {title: table}} of what the records hold."""
    limit = lambda row: fastest(row, "limit")
    original = lambda row: row.get(("braintools", "jit"))
    names = {"large": ("milliseconds", 1e-3), "small": ("microseconds", 1e-6)}
    bases = {"large": ("Times of the limit", limit), "small": ("Times of braintools in brainstate's jit", original)}
    pages = {}
    for section, (word, unit) in names.items():
        if rows := found.section(section):
            title, base = bases[section]
            pages[section] = {
                title: by_contender(rows, over(base)),
                f"Time of a step, {word}": by_contender(rows, lambda row, one, unit=unit: spread(one["rounds"], unit)),
                f"CPU time of a step, {word} on all cores, and how much of it the kernel took": by_contender(
                    rows, lambda row, one, unit=unit: cpu(one, unit)
                ),
            }
    if memory := found.section("memory"):
        pages["roofline"] = {"Memory, counted": counted(memory, found.section("large"))}
    if first := found.section("first"):
        milliseconds = lambda row, one: spread(one["rounds"], 1e-3)
        pages["first"] = {"Milliseconds, in a fresh process": by_contender(first, milliseconds)}
    if imports := found.section("import"):
        base = lambda row: row.get(("brainstate", "import"))
        rows = [[library, spread(one["rounds"], 1e-3), over(base)(row, one)]
                for row in imports.values() for (library, _), one in row.items()]  # fmt: skip
        pages["import"] = {"": table(["", "milliseconds", "times of brainstate"], rows)}
    if training := found.section("training"):
        pages["training"] = {"": shares(training)}
    turns = {f"{name} ({section})": row for section in names for name, row in found.section(section).items()}
    others = sorted({one["library"] for one in found.records if one["library"].startswith(f"{OURS} ")})
    if others and turns:
        pages["against"] = {f"Times of {name.split()[1]}": against(turns, name) for name in others}
    return pages


def cpu(one, unit):
    share = f" ({one['kernel'] / one['cpu']:.0%})" if one.get("kernel") is not None and one["cpu"] else ""
    return digits(one["cpu"] / unit) + share


def counted(memory, large):
    rows = []
    for name, row in memory.items():
        for contender, one in row.items():
            if "moved" in one:
                pages = large.get(name, {}).get(contender, {}).get("pages")
                bytes_ = [f"{one[key] / 2**20:.3g}" for key in ("temporaries", "reused")]
                fresh = "" if pages is None else digits(pages)
                rows.append([name, label(*contender), *bytes_, f"{one['moved'] / size(one):.3g}", fresh])
    head = ["temporaries, MiB", "written in place, MiB", "bytes moved for a parameter", "fresh pages in a step"]
    return table(["", "", *head], rows)


def shares(training):
    rows = []
    for name, row in training.items():
        whole = {library: one for (library, _), one in row.items()}
        if len(whole.keys() & {OURS, "braintools", "idle"}) == 3:
            share = {who: 1 - 1 / ratio(whole[who], whole["idle"]) for who in (OURS, "braintools")}
            times = [spread(whole[who]["rounds"], 1e-3) for who in (OURS, "braintools", "idle")]
            rows.append(
                [name, *times, *(f"{x:.0%}" for x in share.values()), digits(ratio(whole[OURS], whole["braintools"]))]
            )
    head = [
        "",
        "ours, ms",
        "braintools, ms",
        "without an optimizer, ms",
        "share of ours",
        "share of braintools",
        "ratio",
    ]
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
                ax.plot(
                    [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]],
                    [y, y],
                    **look | {"marker": "", "lw": 3},
                    alpha=0.4,
                )
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

Made by `adadelta-bench` (`make bench`), {kind}, on {date} UTC in {minutes} minutes: {system}, {processor}, {cores}
cores, device {device}; load before it began: {load}. Python {python}, {versions}.

Ours, the original, optax, torch and keras take the same float32 step from the same arrays. Each library has a process
of its own, which waits for its turn, in an order that is drawn anew in each round. A number is the median over the
rounds, with the quartiles in brackets. Ratios are taken round by round. "In jit" is inside the jit of brainstate, of JAX,
or of keras. "Donated" means that the old parameters may be overwritten, and with optax and keras the old averages too;
ours overwrites its averages in any case. {limit}
"""
BUSY = """\
**The machine was busy with other things, so these times are a first look, and not to be quoted.**
"""
LIMITS = {
    "cpu": "The limit is a loop in C that reads and writes each number once, 28 bytes for each parameter.",
    "other": "The limit is a copy on the device that moves 28 bytes for each parameter, read and written.",
}
ROOFLINE = """\
A step has to read theta, g and two averages and to write three of them: seven passes over memory, 28 bytes for each
parameter in float32. The falling line in the figure is what memory allows: whoever moves twice the bytes has half the
speed at best. The level line is what the arithmetic allows: the same C on arrays that stay in the cache.

On a CPU, XLA makes several loops of a step, each of which writes one array that a later one reads from memory again, so
optax and the plain form of ours move two to three times the 28 bytes. That alone puts them further to the right, on a
lower part of the line. What puts them below the line is fresh memory: an array that is made anew at each step, a result
or a temporary, comes from the kernel page by page, and each page is cleared first. The table counts those pages, and the
tables of CPU time show what the kernel took.

In blocks (see [One pass over memory](../05_9_blocks.ipynb)) the same loops run over a piece that fits into the cache. What
they hand to each other then costs no pass, the results are written where the old values were, and no page is fresh. XLA
counts what a loop over blocks moves only once; here it is taken to move what goes in and what comes out.
"""
ELSEWHERE = """\
The falling line in the figure is what memory allows: whoever moves twice the bytes has half the speed at best. A form
that stands on it, at 28 bytes, cannot be made faster.
"""
SIZES = "A line that is level costs the same for each number, whatever the size; a step up would be a cliff."
FIRST = "The first call compiles. torch compiles nothing, and keras' own jit is that of JAX."
TRAINING = """\
The digits of `make demo` (64-128-10), a GRU of 128 units over 50 steps of time, and 128 spiking neurons with recurrent
connections over 50 steps, each with a batch of 64, and programs of others (see [Programs of others](ecosystem.md)), where
a folder of clones was given. The share is what the whole takes longer than a step that only computes the gradients.
"""
IMPORT = (
    "`from braintools_adadelta import Adadelta` imports brainstate; `import braintools_adadelta` alone imports nothing."
)
PARTS = {  # heading and text of each section, in the order of the page
    "large": ("Large parameters", ""),
    "roofline": ("Why the plain form is slow on a CPU", ROOFLINE),
    "sizes": ("Cost against size", SIZES),
    "leaves": ("Cost against the number of parameters", ""),
    "small": ("Small networks", ""),
    "first": ("The first call", FIRST),
    "import": ("Import", IMPORT),
    "training": ("Whole training steps", TRAINING),
    "against": ("This version and another", ""),
}


CAPTIONS = {
    "large": "Time of a step, as a multiple of the limit. Further left is faster.",
    "roofline": "Parameters a second against the bytes that are moved for each. Nobody can be above the lines.",
    "sizes": "Time of a step for each number, against the size of one parameter.",
    "leaves": "Time of a step, against the number of parameters that share one total.",
    "small": "Time of a step of a small network, against the number of its parameters.",
}


def page(found, drawn):
    """Return the page, in the Markdown of the docs."""
    about = dict(found.made_with)
    about["versions"] = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    platform, about["device"] = about["device"]["platform"], about["device"]["kind"]
    about["kind"] = {"full": "whole", "quick": "`--quick`", "tiny": "`--tiny`"}[about["kind"]]
    parts, rows = [PAGE.format(**about, limit=LIMITS.get(platform, LIMITS["other"]))], tables(found)
    parts += [BUSY] if (about["load"] or 0) > 1 else []
    told_of = PARTS if platform == "cpu" else PARTS | {"roofline": ("What memory allows", ELSEWHERE)}
    for section, (heading, told) in told_of.items():
        if section in drawn or section in rows:
            parts.append(f"## {heading}\n")
            parts += [told.rstrip() + "\n"] if told else []
            if section in drawn:
                options = f":alt: {drawn[section][1]}\n:class: chart\n\n{CAPTIONS[section]}\n"
                parts.append(f"```{{figure}} benchmark-{section}.svg\n{options}```\n")
            for title, text in rows.get(section, {}).items():
                parts.append(f"{title}:\n\n{text}\n" if title else f"{text}\n")
    return "\n".join(parts + left_out(found, "## "))


def left_out(found, mark=""):
    rows = [f"- {name}: {why}" for name, why in found.missing.items()]
    return [f"{mark}Left out\n", "\n".join(rows) + "\n"] if rows else []


def text(found):
    """Return the tables, and what is missing from them, for a terminal."""
    parts = []
    for section, those in tables(found).items():
        parts += [f"{PARTS[section][0]}. {title}\n\n{rows}\n" for title, rows in those.items()]
    return "\n".join(parts + left_out(found))


def write(document, folder):
    """Write the document, its figures and its page into a folder. Return the tables, to be printed."""
    found = Found(document)
    head = {name: document[name] for name in ("made_with", "missing")}
    records = ",\n ".join(json.dumps(one) for one in document["records"])
    folder.joinpath("benchmark.json").write_text(
        f'{json.dumps(head, indent=1)[:-2]},\n "records": [\n {records}\n ]\n}}\n'
    )
    with plt.rc_context(STYLE):
        drawn = figures(found)
        for name, (fig, _) in drawn.items():
            fig.savefig(folder / f"benchmark-{name}.svg", bbox_inches="tight", metadata={"Date": None})
            plt.close(fig)
    folder.joinpath("benchmark.md").write_text(page(found, drawn), "utf-8")
    return text(found)
