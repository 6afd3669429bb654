"""The command adadelta-bench. It says what to install if a package is missing."""

import argparse
import json
import sys
from contextlib import suppress
from pathlib import Path


SUMMARY = "This Adadelta, those of other libraries and the limit of the machine take turns, and a page shows the times."


def main(argv=None):
    try:
        from tqdm import tqdm

        from braintools_adadelta.bench import measure, plan, report
    except ModuleNotFoundError as error:
        print(f"adadelta-bench needs {error.name}: pip install '.[bench]' in a clone", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(prog="adadelta-bench", description=SUMMARY)
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--quick", dest="kind", action="store_const", const="quick", default="full",
                       help="small workloads and few turns: under a minute")  # fmt: skip
    kinds.add_argument("--tiny", dest="kind", action="store_const", const="tiny", help="only to see whether it works")
    parser.add_argument("--section", nargs="+", choices=plan.SECTIONS, default=plan.SECTIONS, metavar="NAME",
                        help=f"what to measure: {' '.join(plan.SECTIONS)} (default: all)")  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=measure.LIBRARIES, default=list(measure.LIBRARIES), metavar="LIBRARY",
                        help=f"whom to measure: {' '.join(measure.LIBRARIES)} (default: all)")  # fmt: skip
    parser.add_argument("--against", nargs="+", default=[], metavar="NAME=FOLDER", type=pair,
                        help="other versions of this package: folders that hold it")  # fmt: skip
    parser.add_argument("--programs", nargs=2, metavar=("TABLE", "CLONES"),
                        help="programs of others: a table like tools/ecosystem.toml, and a folder of clones")  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path("build/bench"), help="folder of the page (default: %(default)s)"
    )
    parser.add_argument("--page", type=Path, metavar="JSON", help="measure nothing: make the page anew from its JSON")
    arguments = parser.parse_args(argv)

    if arguments.page:
        found = json.loads(arguments.page.read_text("utf-8"))
    else:
        programs = measure.programs_in(*arguments.programs) if arguments.programs else {}
        with tqdm(unit="turn", disable=None) as bar:
            rest = arguments.section, arguments.only, dict(arguments.against), programs
            found = measure.run(arguments.kind, bar, *rest)
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(report.write(found, arguments.out))
    print(f"written: {arguments.out}/benchmark.md, benchmark.json and figures")
    return 0


def pair(text):
    name, separator, folder = text.partition("=")
    if not separator or not Path(folder, "braintools_adadelta").is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER, where FOLDER holds braintools_adadelta")
    return name, Path(folder).resolve()


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        sys.exit(main())
