"""The supervisor: it replaces what ends, and stops everything in order and in time."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pricebook.core.processes import _Watched
from pricebook.core.spawn import Child, Service, command_of

# A child writes its name and what happens to it into a diary that all share.
CHILD = """
    import os, signal, sys, time
    name, diary, obeys = sys.argv[1], sys.argv[2], sys.argv[3] == "obeys"
    def write(word):
        with open(diary, "a") as file:
            file.write(f"{name} {word} {os.getpid()}\\n")
    def stop(*_):
        write("asked")
        if obeys:
            sys.exit()
    signal.signal(signal.SIGTERM, stop)
    write("started")
    while True:
        time.sleep(0.05)
"""
PARENT = """
    import sys
    from pricebook.core.processes import Supervisor
    from pricebook.core.spawn import Child, Service
    script, diary, obeys = sys.argv[1:]
    def service(name):
        return Service(name, Child((sys.executable, "-c", script, name, diary, obeys)))
    with Supervisor(rolls=obeys == "rolls") as supervisor:
        supervisor.add(service("first"), stopped_by_seconds=4)
        supervisor.add(service("second"), service("second"), stopped_by_seconds=2)
        supervisor.launch()
        supervisor.run()
"""


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


class Supervised:
    """A supervisor in a process of its own, with three children that keep a diary."""

    def __init__(self, folder: Path, obeys: str) -> None:
        self.diary = folder / "diary"
        self.diary.touch()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", textwrap.dedent(PARENT)),
                *(textwrap.dedent(CHILD), self.diary, obeys),
            ],
        )
        eventually(lambda: len(self.pids("started")) == 3)

    def entries(self, word: str) -> list[tuple[str, int]]:
        lines = [line.split() for line in self.diary.read_text().splitlines()]
        return [(name, int(pid)) for name, said, pid in lines if said == word]

    def pids(self, word: str) -> list[int]:
        return [pid for _, pid in self.entries(word)]

    def is_gone(self) -> bool:
        return not any(map(command_of, self.pids("started")))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    started: list[Supervised] = []

    def make(obeys: str = "obeys") -> Supervised:
        started.append(Supervised(tmp_path, obeys))
        return started[-1]

    yield make
    for supervised in started:
        supervised.process.kill()
        supervised.process.wait()
        for pid in filter(command_of, supervised.pids("started")):
            os.kill(pid, signal.SIGKILL)


def test_a_killed_child_is_replaced(start: Callable[..., Supervised]) -> None:
    supervised = start()
    name, pid = supervised.entries("started")[1]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(supervised.pids("started")) == 4)
    assert supervised.entries("started")[-1][0] == name


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_children_stop_in_the_reverse_order(
    start: Callable[..., Supervised], told: signal.Signals
) -> None:
    supervised = start()
    supervised.process.send_signal(told)
    assert supervised.process.wait(20) == 0
    assert [name for name, _ in supervised.entries("asked")] == ["second", "second", "first"]
    assert supervised.is_gone()


def test_under_nohup_the_end_of_the_terminal_changes_nothing(
    start: Callable[..., Supervised],
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    supervised = start()
    signal.signal(signal.SIGHUP, before)
    supervised.process.send_signal(signal.SIGHUP)
    supervised.process.send_signal(signal.SIGTERM)
    assert supervised.process.wait(20) == 0
    assert len(supervised.entries("asked")) == 3


def test_a_child_that_will_not_stop_is_killed(start: Callable[..., Supervised]) -> None:
    supervised = start("refuses")
    supervised.process.terminate()
    assert supervised.process.wait(20) == 0
    assert supervised.is_gone()


def test_a_second_signal_kills_at_once(start: Callable[..., Supervised]) -> None:
    supervised = start("refuses")
    supervised.process.send_signal(signal.SIGINT)
    eventually(lambda: len(supervised.entries("asked")) == 2)
    supervised.process.send_signal(signal.SIGINT)
    assert supervised.process.wait(20) == 0
    assert "first" not in dict(supervised.entries("asked"))
    assert supervised.is_gone()


def test_ctrl_c_at_the_terminal_reaches_the_supervisor_alone(
    start: Callable[..., Supervised],
) -> None:
    supervised = start()
    groups = {os.getpgid(pid) for pid in supervised.pids("started")}
    assert os.getpgid(supervised.process.pid) not in groups


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_children_end_with_a_killed_supervisor(start: Callable[..., Supervised]) -> None:
    supervised = start()
    supervised.process.kill()
    eventually(supervised.is_gone)
    assert len(supervised.entries("asked")) == 3


def test_what_ends_at_once_is_started_after_growing_pauses() -> None:
    watched = _Watched(Service("short-lived", Child(("true",))), started_at=time.monotonic())
    pauses = []
    for _ in range(7):
        watched.started_at = time.monotonic()
        watched.plan_restart()
        pauses.append(round(watched.start_at - watched.started_at, 1))
    assert pauses == sorted(pauses)
    assert 0.1 < pauses[0] < pauses[-1] < 3


def test_what_ran_for_a_while_is_started_at_once() -> None:
    watched = _Watched(Service("steady", Child(("true",))), started_at=time.monotonic() - 60)
    watched.plan_restart()
    assert watched.start_at <= time.monotonic()
