"""Child processes that never outlive their parent, under another user where that is needed."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, cast

# What tells a process to stop: the terminal, whoever manages services, the terminal's end.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# A process that serves says so by a line to the file of this number.
_READY_FD = "READY_FD"

_PR_SET_PDEATHSIG = 1
_PR_SET_SECUREBITS = 28
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_SECBIT_NO_SETUID_FIXUP = 4
_CAP_DAC_OVERRIDE = 1
_CAP_SETPCAP = 8
_CAP_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Identity:
    """The user a child runs as; `keeps_file_access` lets it enter folders closed to that user."""

    uid: int
    gid: int
    keeps_file_access: bool = False


@dataclass(frozen=True)
class Child:
    """How to start a child: what it runs, what it gets, and the signal that asks it to stop."""

    command: Sequence[str | Path]
    stop_signal: signal.Signals = signal.SIGTERM
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    log: Path | None = None
    stdin: bytes = b""
    pass_fds: Sequence[int] = ()
    identity: Identity | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """Start it in a process group of its own, so that Ctrl-C reaches the parent alone.

        Its stdin is left open, for the caller to close. To be called from the main thread: Linux
        ends the child with the thread that made it.
        """
        log = self.log.open("ab") if self.log else None
        try:
            process = subprocess.Popen(  # noqa: S603 -- the caller's own command, no shell
                [os.fspath(part) for part in self.command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.cwd,
                env=self.env,
                pass_fds=self.pass_fds,
                process_group=0,
                preexec_fn=self._in_the_child(),  # noqa: PLW1509 -- only between fork and exec can a child be tied to its parent
            )
        finally:
            if log:
                log.close()
        # A child that died at once is for the caller to notice, by its exit code.
        with contextlib.suppress(BrokenPipeError):
            stdin = cast("IO[bytes]", process.stdin)
            stdin.write(self.stdin)
            stdin.flush()
        return process

    def run(self, timeout_seconds: float) -> subprocess.CompletedProcess[str]:
        """Run it to its end and return what it wrote."""
        return subprocess.run(  # noqa: S603 -- the caller's own command, no shell
            [os.fspath(part) for part in self.command],
            input=self.stdin.decode(),
            capture_output=True,
            text=True,
            check=False,
            cwd=self.cwd,
            env=self.env,
            timeout=timeout_seconds,
            preexec_fn=self._in_the_child(),
        )

    def _in_the_child(self) -> Callable[[], None]:
        parent = os.getpid()

        def prepare() -> None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
            if self.identity is not None:
                _become(self.identity)
            _die_with(parent, self.stop_signal)

        return prepare


class ManagedProcess(ABC):
    """A child process that can be started again, asked to stop, and ended."""

    name: str

    def __init__(self) -> None:
        """Begin without a process."""
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def child(self) -> Child:
        """Describe how its process is started."""

    def launch(self) -> None:
        """Start it, without waiting until it is of use."""
        self._start()
        self._close_stdin()

    def _start(self) -> None:
        # A KeyboardInterrupt between fork and assignment would lose sight of the child.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            self._process = self.child().start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _close_stdin(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    @property
    def pid(self) -> int:
        """The process id, 0 before the first start."""
        return self._process.pid if self._process else 0

    @property
    def exit_code(self) -> int | None:
        """How it ended, as `subprocess` has it: a signal's number is negative."""
        return self._process.returncode if self._process else None

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def ask_to_stop(self) -> None:
        """Send the signal that stops it in good order."""
        if self._process is not None:
            self._process.send_signal(self.child().stop_signal)

    def kill(self) -> None:
        """End it at once, without waiting."""
        if self._process is not None:
            self._process.kill()

    def has_stopped(self, timeout_seconds: float) -> bool:
        """Wait for its end at most so long, and tell whether it came."""
        try:
            if self._process is not None:
                self._process.wait(max(0.01, timeout_seconds))
        except subprocess.TimeoutExpired:
            return False
        return True


class Service(ManagedProcess):
    """A process of Pricebook itself.

    It may be held: it gets ready, and begins when its stdin ends, which `release` brings about.
    """

    def __init__(self, name: str, child: Child) -> None:
        """Give it the name that people read in the log."""
        super().__init__()
        self.name = name
        self._described = child
        self._ready: int | None = None
        self._is_ready = False

    def child(self) -> Child:
        """Describe how its process is started."""
        return self._described

    def successor(self) -> "Service":
        """Return another that does the same, not started yet."""
        return Service(self.name, self._described)

    def _start(self) -> None:
        self._listen_no_more()
        self._is_ready = False
        self._ready, write = os.pipe()
        os.set_blocking(self._ready, False)
        described = self._described
        self._described = replace(
            described,
            pass_fds=(*described.pass_fds, write),
            env={**(os.environ if described.env is None else described.env), _READY_FD: str(write)},
        )
        try:
            super()._start()
        finally:
            self._described = described
            os.close(write)

    def is_ready(self) -> bool:
        """Whether it has said that it serves."""
        if self._ready is not None:
            with contextlib.suppress(BlockingIOError):
                self._is_ready = bool(os.read(self._ready, 1))
                self._listen_no_more()
        return self._is_ready

    def _listen_no_more(self) -> None:
        if self._ready is not None:
            os.close(self._ready)
            self._ready = None

    def hold(self) -> None:
        """Start the process, and let it wait for `release`."""
        self._start()

    def release(self) -> None:
        """Let a held process begin."""
        self._close_stdin()


def say_ready() -> None:
    """Tell the parent that this process serves, if it has a parent that wants to know."""
    if (number := os.environ.pop(_READY_FD, None)) is not None:
        os.write(int(number), b"\n")
        os.close(int(number))


def command_of(pid: int) -> str:
    """Read the command line of a process, empty if there is none of that id."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        return ""
    shown = subprocess.run(  # noqa: S603 -- a fixed command and a number
        ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    return shown.stdout.strip()


def may_keep_file_access() -> bool:
    """Whether this process may hand file access to a child of another user (Linux, as root)."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    permitted = next(line for line in status.splitlines() if line.startswith("CapPrm:"))
    needed = 1 << _CAP_DAC_OVERRIDE | 1 << _CAP_SETPCAP
    return int(permitted.split()[1], 16) & needed == needed


def _become(identity: Identity) -> None:
    os.setgroups([])
    os.setgid(identity.gid)
    if identity.keeps_file_access:
        # The change of user leaves the capabilities alone, and so does access(2), by which
        # PostgreSQL finds its own programs.
        _libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setuid(identity.uid)
    if identity.keeps_file_access:
        # One is kept. An ambient capability is the only kind that a program without file
        # capabilities still has after exec (capabilities(7)).
        bit = 1 << _CAP_DAC_OVERRIDE
        header = (ctypes.c_uint32 * 2)(_CAP_VERSION_3, 0)
        _libc.capset(header, (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0))
        _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)


def _die_with(parent: int, stop_signal: signal.Signals) -> None:
    # After _become: a change of user clears it (prctl(2)).
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, int(stop_signal), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
