"""What work costs: the processor time that a process and its children have used, from /proc."""

import os
from pathlib import Path

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
# Fields of /proc/PID/stat after the name (proc_pid_stat(5)): 4 is ppid, 14 utime, 15 stime.
_PARENT, _USER, _SYSTEM = 1, 11, 12


def cpu_seconds(pid: int) -> float:
    """Return the processor time of one process, all its threads included."""
    fields = _stat(Path(f"/proc/{pid}/stat"))
    return (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS_A_SECOND


def family_cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and its living children: PostgreSQL's backends."""
    children = [
        int(stat.parent.name)
        for stat in Path("/proc").glob("[0-9]*/stat")
        if (fields := _stat(stat)) and int(fields[_PARENT]) == pid
    ]
    return sum(cpu_seconds(one) for one in (pid, *children))


def _stat(path: Path) -> list[str]:
    try:
        return path.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
