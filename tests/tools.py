"""What tests take from the machine: programs such as nginx and promtool, and ports."""

import os
import shutil
import socket

import pytest

# Debian puts servers where only root looks for them.
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def needed(program: str, package: str | None = None) -> str:
    """Return the path of a program, which comes in Debian's `package` of that or another name.

    Without it the test is left out on a developer's machine, and fails where CI runs.
    """
    if path := shutil.which(program, path=_PATH):
        return path
    reason = f"it needs {program}, from Debian's package {package or program}"
    if "CI" in os.environ:
        pytest.fail(f"{reason}: what CI runs is to leave nothing out")
    pytest.skip(reason)
