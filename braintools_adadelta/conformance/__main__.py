"""The command adadelta-conformance. It says what to install if a package is missing."""

import sys


def main() -> int:
    try:
        from braintools_adadelta.conformance import command
    except ModuleNotFoundError as error:
        message = f"adadelta-conformance needs {error.name}: pip install numpy mpmath pytest"
        print(message, file=sys.stderr)
        return 2
    return command.main()


if __name__ == "__main__":
    sys.exit(main())
