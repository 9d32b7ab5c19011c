"""Processes of Pricebook that tests stop and kill, forked from one that has imported all of it."""

import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, ClassVar

import uvloop

from pricebook import api_process, worker
from pricebook.core.logging import configure_logging
from pricebook.core.settings import Settings
from pricebook.core.spawn import _die_with
from pricebook.jobs.run import Tasks
from pricebook.serving import listen, url_of

# To start one takes the time of a fork: so tests can afford to kill a hundred.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.forkable"])
_STOP_SECONDS = 20


class Forked:
    """A process that can be ended in every way, and started again."""

    def __init__(self, work: Callable[..., None], *arguments: Any, log: Path | None = None) -> None:
        """Run `work(*arguments)`, which must be importable; what it writes goes to `log`."""
        self._work, self._arguments, self._log = work, arguments, log
        self._process: ForkServerProcess | None = None

    def start(self) -> None:
        self._process = _FORKS.Process(
            target=_be, args=(self._log, self._work, *self._arguments), daemon=True
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        assert self._process.pid is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.exitcode if self._process else None

    def is_alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = _STOP_SECONDS) -> bool:
        """Whether it ended within so long."""
        assert self._process is not None
        self._process.join(seconds)
        return not self._process.is_alive()

    def kill(self) -> None:
        """End it as `kill -9` does."""
        if self.is_alive():
            self.send(signal.SIGKILL)
            assert self.wait()

    def close(self) -> None:
        """End it for good."""
        self.kill()


def _be(log: Path | None, work: Callable[..., None], *arguments: Any) -> None:
    _die_with(os.getppid(), signal.SIGKILL)
    with (log or Path(os.devnull)).open("ab", buffering=0) as target:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(target.fileno(), stream.fileno())
    work(*arguments)


class ForkedApi(Forked):
    """One API process on a socket that outlives it, as under `pricebook serve`."""

    def __init__(self, settings: Settings, log: Path | None = None) -> None:
        self._listening = listen("127.0.0.1", 0)
        self.url = url_of(self._listening)
        super().__init__(_be_api, settings, self._listening, log=log)

    def close(self) -> None:
        super().close()
        self._listening.close()


def _be_api(settings: Settings, listening: Any) -> None:
    configure_logging(settings.log)
    api_process.run(settings, listening)


class ForkedWorker(Forked):
    """One worker process."""

    tasks: ClassVar[Tasks] = worker.TASKS

    def __init__(self, settings: Settings, log: Path | None = None) -> None:
        super().__init__(_be_worker, settings, self.tasks, log=log)


def _be_worker(settings: Settings, tasks: Tasks) -> None:
    configure_logging(settings.log)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(worker.work(settings, tasks))
