"""The command adadelta-conformance, or what it lacks."""

import sys


def main():
    try:
        from braintools_adadelta.conformance import command
    except ModuleNotFoundError as error:
        lacks = f"adadelta-conformance needs {error.name}: pip install 'braintools_adadelta[conformance]'"
        print(lacks, file=sys.stderr)
        return 2
    return command.main()


if __name__ == "__main__":
    sys.exit(main())
