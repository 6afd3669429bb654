"""The process in which one implementation is loaded and judged. It tells the command what it finds, line by line.

What it prints, or does to the process, cannot be taken for a verdict: only the last line, "done", ends a report.
"""

import json
import os
import sys
from argparse import Namespace

from braintools_adadelta.conformance import adapters, causes, report, runner


def main():
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the implementation prints is no message

    def tell(**message):
        print(json.dumps(message), file=out, flush=True)

    options = Namespace(**json.loads(sys.argv[1]))
    try:
        it = adapters.load(options.target)
    except adapters.UsageError as error:
        return tell(problem=str(error))
    tell(about=report.about(it))
    collector, problem = runner.collect([options.target], options, tell=tell)
    if problem:
        return tell(problem=problem)
    tell(causes=causes.why(it, report.failed_tests(collector.rows[options.target])))
    tell(about=report.about(it) | report.traits(it))
    tell(done=True)


if __name__ == "__main__":
    main()
