"""Arrays on a mesh: eight devices, which need a process of their own, and what holds on one."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def with_devices(count, *arguments):
    """Run Python with so many devices; fail with what it printed if it fails."""
    env = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}", "PYTHONPATH": str(HERE)}
    done = subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, cwd=HERE.parent)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def test_on_eight_devices():
    with_devices(8, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "on_eight_devices.py"))
