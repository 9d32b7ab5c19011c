"""Real API processes that come and go: no stream holds them up, and no client misses anything."""

import asyncio
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests.contract.conftest import environment
from tests.events.conftest import Listener, eventually, listen_to, skus, tell

from pricebook.serving import listen, url_of

CLIENTS = 500
EVENTS = 1_000
# The pools may keep a connection for each place; a stream keeps none.
CONNECTIONS = 16


@pytest.fixture
def listening():
    """The socket that outlives the processes, as `pricebook serve` has it."""
    with listen("127.0.0.1", 0) as opened:
        yield opened


@pytest.fixture
def port(listening) -> int:
    return urlsplit(url_of(listening)).port


@contextmanager
def api_process(settings, listening):
    number = listening.fileno()
    command = [sys.executable, "-m", "pricebook.api_process", str(number)]
    env = environment(settings, PRICEBOOK_STREAM__MAX_AGE_SECONDS="600")
    process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, pass_fds=[number])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class Client:
    """Hears the stream, and comes back with its place whenever it ends."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._token = token
        self._listener: Listener | None = None
        self.heard: list[str] = []
        self.connected = 0

    def has_just_heard(self, name: str) -> bool:
        listener = self._listener
        return listener is not None and f'"{name}"'.encode() in listener.received[-1_000:]

    async def run(self) -> None:
        place = None
        while True:
            self._listener = await listen_to(self._port, self._token, last_event_id=place)
            await self._listener.until_ended(600)
            place = self.finish() or place
            await asyncio.sleep(0.05)

    @property
    def is_live(self) -> bool:
        return self._listener is not None and self._listener.is_live

    def finish(self) -> str | None:
        """Take in what was heard, and return the place that it led to."""
        listener, self._listener = self._listener, None
        if listener is None or not listener.has_place:
            return None
        self.connected += 1
        self.heard += skus(listener.events)
        listener.close()
        return listener.last_id


async def test_500_clients_miss_none_of_1000_events_through_a_restart(
    settings, listening, port, api, session, viewer
):
    """They come back to the next process with `Last-Event-ID`."""
    clients = [Client(port, api.tokens[viewer.id]) for _ in range(CLIENTS)]
    with api_process(settings, listening) as first:
        running = [asyncio.create_task(client.run()) for client in clients]
        await eventually(lambda: all(client.is_live for client in clients), 60)
        names = [f"E-{number}" for number in range(EVENTS)]
        await tell_in_turn(session, names[:300])
        assert await connections(settings) <= CONNECTIONS
        first.send_signal(signal.SIGTERM)
        await tell_in_turn(session, names[300:600])
        await asyncio.to_thread(first.wait, 10)
        with api_process(settings, listening):
            await tell_in_turn(session, names[600:])
            await eventually(lambda: all(one.has_just_heard(names[-1]) for one in clients), 60)
            assert await connections(settings) <= CONNECTIONS
            for one in running:
                one.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            for client in clients:
                client.finish()
    assert {client.connected for client in clients} == {2}
    for client in clients:
        counted = Counter(client.heard)
        assert set(counted) == set(names)
        assert set(counted.values()) == {1}


async def tell_in_turn(session, names) -> None:
    """Commit a few at a time."""
    for number in range(0, len(names), 5):
        tell(session, *names[number : number + 5])
        await session.commit()


async def connections(settings) -> int:
    """Return how many connections API processes hold; none may be in a transaction."""
    url = settings.database_url.get_secret_value().replace("+asyncpg", "")
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT state FROM pg_stat_activity"
            " WHERE application_name = 'pricebook-api' AND datname = current_database()"
        )
    finally:
        await connection.close()
    assert "idle in transaction" not in {row["state"] for row in rows}
    return len(rows)


async def test_a_process_with_open_streams_stops_at_once(settings, listening, port, api, viewer):
    with api_process(settings, listening) as process:
        listeners = [await listen_to(port, api.tokens[viewer.id]) for _ in range(50)]
        for listener in listeners:
            await listener.until_live()
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        for listener in listeners:
            await listener.until_ended(5)
            assert listener.body.endswith(b"\r\n0\r\n\r\n")
            assert listener.body.count(b"retry: ") == 2
        await asyncio.to_thread(process.wait, 10)
        assert time.monotonic() - began < 4.5
