"""How much memory a process needs: what it holds now, and the most it ever held, from /proc."""

import time
from pathlib import Path

MEGABYTE = 1e6
_SETTLED_SECONDS = 3.0


def resident_bytes(pid: int) -> int:
    """Return what it holds in memory now (proc_pid_status(5))."""
    return _field(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """Return the most that it has held since `forget_peak`."""
    return _field(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Let the peak begin at what is held now (proc_pid_clear_refs(5))."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def wait_until_idle(pid: int) -> None:
    """Wait until a process that starts has loaded all that it begins with."""
    before = 0
    while (now := resident_bytes(pid)) > before:
        before = now
        time.sleep(_SETTLED_SECONDS)


class Growth:
    """The most that a process held beyond what it holds at this moment, in megabytes."""

    def __init__(self, pid: int) -> None:
        """Begin now."""
        self._pid = pid
        self._idle = resident_bytes(pid)
        forget_peak(pid)

    @property
    def megabytes(self) -> float:
        """How much more it was at its most."""
        return (peak_bytes(self._pid) - self._idle) / MEGABYTE


def _field(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.removesuffix("kB")) * 1024
    raise LookupError(name)
