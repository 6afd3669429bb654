"""Arrays on a mesh: eight devices, and several processes, each in a process of its own."""

import os
import re
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from subprocess import PIPE

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent


def run(*arguments, **env):
    """Run Python in the folder of the project; fail with what it printed if it fails."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_on_eight_devices(request):
    profile = request.config.getoption("--hypothesis-profile") or "ci"
    eight = "--xla_force_host_platform_device_count=8"
    options = ["-q", "-p", "no:cacheprovider", f"--hypothesis-profile={profile}"]
    run("-m", "pytest", *options, TESTS / "on_eight_devices.py", XLA_FLAGS=eight, JAX_PLATFORMS="cpu")


def test_in_two_processes(tmp_path):
    """What the two print when they have come that far, and nothing hangs."""
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    orbax = ["orbax"] * bool(find_spec("orbax"))
    command = [sys.executable, TESTS / "in_two_processes.py"]
    two = "--xla_force_host_platform_device_count=2"
    env = os.environ | {"XLA_FLAGS": two, "JAX_PLATFORMS": "cpu", "PYTHONPATH": ":".join([str(ROOT), *sys.path])}
    start = lambda rank: subprocess.Popen(
        [*map(str, [*command, rank, port, tmp_path]), *orbax], env=env, text=True, stdout=PIPE, stderr=PIPE
    )
    said = [process.communicate(timeout=300) for process in [start(0), start(1)]]
    for rank, (out, err) in enumerate(said):
        assert out.count(f"process {rank} ") == 3 + len(orbax), out + err[-4000:]


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "resume"), [(2, "2,1,4"), (4, "4,2,1")])
def test_several_processes(processes, resume, tmp_path):
    """One is killed, the others end, and as many or others go on from the checkpoint."""
    pytest.importorskip("orbax.checkpoint")
    how = ["--processes", processes, "--resume", resume, "--layout", "data,zero,fsdp", "--heartbeat", 40]
    run("examples/processes.py", "--folder", tmp_path, *how)


def test_the_page_about_it():
    """Its cells run, each with the assertions that follow it, and what it quotes is in the example."""
    run("tools/page.py", "docs/scale.md")
    quoted = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/scale.md").read_text(), re.S | re.M)
    example = (ROOT / "examples/processes.py").read_text()
    assert len(quoted) == 3 and all(code in example for code in quoted)
