"""Programs of the folder programs that speak the protocol: tf.train.adadelta of @tensorflow/tfjs, and the one in C++."""

import subprocess
import tempfile
from pathlib import Path

from . import UsageError
from .program import Program

FOLDER = Path(__file__).parent.parent / "programs"


def tfjs():
    """Start the program. Node looks for @tensorflow/tfjs in the folders that NODE_PATH names."""
    try:
        return Program(f"node '{FOLDER / 'tfjs.js'}'")
    except UsageError as error:
        raise UsageError(f"tfjs needs node, and @tensorflow/tfjs in a folder of NODE_PATH ({error})") from error


def cpp():
    """Compile the example in C++ and start it."""
    folder = tempfile.TemporaryDirectory(prefix="adadelta-")
    command = ["g++", "-O2", "-std=c++17", str(FOLDER / "adadelta.cpp"), "-o", f"{folder.name}/adadelta"]
    try:
        subprocess.run(command, check=True)
        compiler = subprocess.run(["g++", "-dumpfullversion"], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise UsageError(f"cpp needs the compiler g++ ({error})") from error
    program = Program(f"{folder.name}/adadelta")
    program.folder, program.versions = folder, {"g++": compiler.strip()}  # the folder lives as long as the program
    return program
