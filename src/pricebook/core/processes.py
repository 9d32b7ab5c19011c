"""The supervisor: it keeps processes running, and stops all of them in order and in time."""

import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any, Self, cast

import structlog

from pricebook.core.spawn import STOP_SIGNALS, ManagedProcess, Service

_LOOK_EVERY_SECONDS = 0.1
# A process that ends sooner than this after its start has failed rather than been killed.
_QUICK_END_SECONDS = 1.5
_LONGEST_PAUSE_SECONDS = 2.0
# So long a successor may take until it serves.
_READY_SECONDS = 30.0

log = structlog.get_logger(__name__)


@dataclass
class _Watched:
    """A process, and how its starts have gone."""

    process: ManagedProcess
    started_at: float = 0.0
    quick_ends: int = 0
    start_at: float = 0.0

    def launch(self) -> None:
        self.started_at = time.monotonic()
        self.start_at = 0.0
        self.process.launch()

    def plan_restart(self) -> None:
        """Start again at once, or after a pause that grows with each quick end."""
        now = time.monotonic()
        is_quick = now - self.started_at < _QUICK_END_SECONDS
        self.quick_ends = self.quick_ends + 1 if is_quick else 0
        pause = min(0.1 * 2**self.quick_ends, _LONGEST_PAUSE_SECONDS) if is_quick else 0.0
        self.start_at = now + pause


@dataclass(frozen=True)
class _Stage:
    """Processes that stop together, and by when, counted from the request to stop."""

    watched: tuple[_Watched, ...]
    stopped_by_seconds: float
    leaving: list[ManagedProcess] = field(default_factory=list)
    """Those whose successors are there, and who have not ended yet."""


class Supervisor(AbstractContextManager["Supervisor"]):
    """Runs processes until SIGINT, SIGTERM or SIGHUP; a second one kills them.

    Stages stop in the reverse order of `add`, and at the end of the `with` block nothing runs any
    more. Within the block but outside `run` such a signal raises KeyboardInterrupt. `on_change`
    is called when process ids have changed.

    One that `rolls` takes SIGHUP for something else, unless it belongs to a terminal: it replaces
    its services, one after another, each once its successor serves.
    """

    def __init__(self, *, rolls: bool = False) -> None:
        """Begin with nothing to look after."""
        self._rolls = rolls and not sys.stdin.isatty()
        self._is_to_roll = False
        self.on_change: Callable[[], object] = lambda: None
        self._stages: list[_Stage] = []
        self._signals = 0
        self._is_running = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take over the signals."""
        self._handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        if self._handlers[signal.SIGHUP] is signal.SIG_IGN:  # started by nohup
            del self._handlers[signal.SIGHUP]
        for number in self._handlers:
            signal.signal(number, self._on_signal)
        if self._rolls:
            self._handlers.setdefault(signal.SIGHUP, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, self._on_hangup)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop everything."""
        self._signals = max(self._signals, 1)
        self._stop()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def add(self, *processes: ManagedProcess, stopped_by_seconds: float) -> None:
        """Look after processes that stop together, within this time of the request to stop."""
        watched = tuple(_Watched(process, time.monotonic()) for process in processes)
        self._stages.append(_Stage(watched, stopped_by_seconds))

    def launch(self) -> None:
        """Start every process that does not run yet."""
        for watched in self._all():
            if not watched.process.is_alive():
                watched.launch()
        self.on_change()

    def run(self) -> None:
        """Replace what ends, until told to stop."""
        self._is_running = True
        while not self._signals:
            self._look_after_all()
            if self._is_to_roll:
                self._is_to_roll = False
                self._roll()
        self._is_running = False

    def _look_after_all(self) -> None:
        for watched in self._all():
            if not watched.process.is_alive():
                self._replace(watched)
        time.sleep(_LOOK_EVERY_SECONDS)

    def _roll(self) -> None:
        """Replace every service; where no successor gets ready, the rest stay as they are."""
        for stage in self._stages:
            for watched in stage.watched:
                if isinstance(watched.process, Service) and not self._succeed(stage, watched):
                    return
        log.info("all processes replaced")

    def _succeed(self, stage: _Stage, watched: _Watched) -> bool:
        old = cast("Service", watched.process)
        watched.process = old.successor()
        stage.leaving.append(old)
        watched.launch()
        ends_at = time.monotonic() + _READY_SECONDS
        while not (watched.process.is_ready() or self._signals or time.monotonic() > ends_at):
            self._look_after_all()
        if not watched.process.is_ready():
            return self._give_up(stage, watched, old)
        self.on_change()
        old.ask_to_stop()
        ends_at = time.monotonic() + stage.stopped_by_seconds
        while old.is_alive() and time.monotonic() < ends_at:
            self._look_after_all()
        _end(old, 0)
        stage.leaving.remove(old)
        return not self._signals

    def _give_up(self, stage: _Stage, watched: _Watched, old: Service) -> bool:
        """Go on with the old process, unless all are to stop anyway."""
        if not self._signals:
            log.error("successor not ready in time; the old process goes on", pid=old.pid)
            _end(watched.process, 0)
            watched.process = old
            stage.leaving.remove(old)
        return False

    def _all(self) -> list[_Watched]:
        return [watched for stage in self._stages for watched in stage.watched]

    def _replace(self, watched: _Watched) -> None:
        process = watched.process
        if not watched.start_at:
            watched.plan_restart()
            log.warning(
                "process ended", process=process.name, pid=process.pid, ending=_ending(process)
            )
        if time.monotonic() < watched.start_at:
            return
        watched.launch()
        log.info("process started again", process=process.name, pid=process.pid)
        self.on_change()

    def _stop(self) -> None:
        begun = time.monotonic()
        for stage in reversed(self._stages):
            processes = [*(watched.process for watched in stage.watched), *stage.leaving]
            for process in processes:
                process.ask_to_stop()
            for process in processes:
                _end(process, begun + stage.stopped_by_seconds - time.monotonic())

    def _on_hangup(self, _number: int, _frame: FrameType | None) -> None:
        self._is_to_roll = True

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1:
            for watched in self._all():
                watched.process.kill()
        elif not self._is_running:
            raise KeyboardInterrupt


def _end(process: ManagedProcess, seconds: float) -> None:
    """Kill it if it does not end by itself within so long."""
    if not process.has_stopped(seconds):
        log.warning("process killed", process=process.name, pid=process.pid)
        process.kill()
        process.has_stopped(1)


def _ending(process: ManagedProcess) -> str:
    code = process.exit_code
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"
