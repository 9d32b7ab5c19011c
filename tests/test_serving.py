"""`pricebook serve`: processes that share one socket."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from tests.tools import free_port, listens

from pricebook.core.settings import Settings
from pricebook.serving import CannotListenError, listen, url_of

HOSTS = {"127.0.0.1": "http://127.0.0.1:", "0.0.0.0": "http://127.0.0.1:", "::1": "http://[::1]:"}


def eventually(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


@pytest.mark.parametrize("host", HOSTS)
def test_a_socket_names_its_url(host: str) -> None:
    with listen(host, 0) as listening:
        assert url_of(listening) == f"{HOSTS[host]}{listening.getsockname()[1]}"


def test_a_taken_port_is_refused_with_what_to_do() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(CannotListenError, match=f"port {port} .* set PRICEBOOK_PORT"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(CannotListenError, match=f"cannot listen on {host}"):
        listen(host, 0)


class Served:
    """A `pricebook serve` with two processes."""

    def __init__(self, settings: Settings) -> None:
        assert settings.database_url
        assert settings.redis_url
        self.port = free_port()
        env = os.environ | {
            "PRICEBOOK_DATABASE_URL": settings.database_url.get_secret_value(),
            "PRICEBOOK_REDIS_URL": settings.redis_url.get_secret_value(),
            "PRICEBOOK_PORT": str(self.port),
            "PRICEBOOK_PROCESSES": "2",
            "PRICEBOOK_DRAIN_SECONDS": "0.2",
        }
        command = [sys.executable, "-m", "pricebook.cli", "serve"]
        # Without a terminal, as services run: there SIGHUP asks for new processes.
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL)
        eventually(self.listens)

    def listens(self) -> bool:
        return listens(self.port)

    def children(self) -> list[int]:
        pid = self.process.pid
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]

    def ping(self) -> str:
        return httpx2.get(f"http://127.0.0.1:{self.port}/ping", timeout=60).text


@pytest.fixture
def served(settings: Settings) -> Iterator[Served]:
    server = Served(settings)
    yield server
    server.process.terminate()
    server.process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_are_replaced_while_connections_wait(served: Served) -> None:
    assert served.ping() == "pong"
    first = served.children()
    assert len(first) == 2
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    assert served.ping() == "pong"
    eventually(lambda: len(served.children()) == 2)
    assert not set(first) & set(served.children())


def test_sigterm_ends_it_in_good_order(served: Served) -> None:
    assert served.ping() == "pong"
    served.process.terminate()
    assert served.process.wait(30) == 0
    assert not served.listens()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_sighup_replaces_each_process_once_its_successor_serves(served: Served) -> None:
    eventually(lambda: len(served.children()) == 2)
    assert served.ping() == "pong"
    first = set(served.children())
    counts, refused = set(), []

    def are_replaced() -> bool:
        now = served.children()
        counts.add(len(now))
        try:
            assert served.ping() == "pong"
        except httpx2.TransportError as error:
            refused.append(error)
        return len(now) == 2 and not first & set(now)

    served.process.send_signal(signal.SIGHUP)
    eventually(are_replaced)
    assert refused == []
    # One more than usual while a successor gets ready, and never one less.
    assert counts <= {2, 3}
    assert served.process.poll() is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_outlives_a_serve_that_is_killed(served: Served) -> None:
    assert served.ping() == "pong"
    children = served.children()
    served.process.kill()
    served.process.wait()
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), seconds=15)
