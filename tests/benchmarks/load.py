"""The load: keep-alive connections that each have one request under way, and count answers."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, cast

_LENGTH = b"\r\ncontent-length: "
_TICK_SECONDS = 0.001


@dataclass
class Tally:
    """What came back: latencies in seconds, and how many answers of each unwanted status."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    refused: dict[int, int] = field(default_factory=dict)

    @property
    def answers(self) -> int:
        """How many answers came."""
        return len(self.latencies)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds

    def percentile(self, share: float) -> float:
        """Return the latency that `share` of the answers did not pass, in milliseconds."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def add(self, status: int, latency_seconds: float) -> None:
        """Count an answer."""
        self.latencies.append(latency_seconds)
        if status >= 300:
            self.refused[status] = self.refused.get(status, 0) + 1

    def merge(self, other: "Tally") -> None:
        """Count what `other` counted."""
        self.seconds += other.seconds
        self.latencies += other.latencies
        for status, count in other.refused.items():
            self.refused[status] = self.refused.get(status, 0) + count


class Connection(asyncio.Protocol):
    """One connection to a server; `on_answer(status, latency)` is called for each answer."""

    def __init__(self) -> None:
        """Begin idle."""
        self.on_answer: Callable[[int, float], None] = lambda _status, _latency: None
        self.closed = asyncio.get_running_loop().create_future()
        self.body: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._status = 0
        self._bytes_left = 0
        self._asked_at = 0.0

    def ask(self, request: bytes, asked_at: float | None = None) -> None:
        """Send a request; its latency counts from `asked_at`, a `perf_counter`."""
        assert self._transport is not None
        self._asked_at = asked_at or time.perf_counter()
        self._transport.write(request)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _error: Exception | None) -> None:
        self.closed.set_result(None)

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._bytes_left:
            self._bytes_left -= len(data)
            self.body.append(data)
        elif not self._begin(self._head + data):
            self._head += data
            return
        if self._bytes_left == 0:
            self.on_answer(self._status, time.perf_counter() - self._asked_at)

    def _begin(self, data: bytes) -> bool:
        """Read the head of an answer, if all of it is here."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return False
        self._status = int(data[9:12])
        at = data.find(_LENGTH, 0, end)
        length = int(data[at + len(_LENGTH) : data.index(b"\r", at + 2)]) if at >= 0 else 0
        self.body = [data[end + 4 :]]
        self._bytes_left = length - len(self.body[0])
        self._head = b""
        return True


@asynccontextmanager
async def connections(port: int, count: int) -> AsyncIterator[list[Connection]]:
    """Open connections to a server of this machine."""
    loop = asyncio.get_running_loop()
    opened = [
        (await loop.create_connection(Connection, "127.0.0.1", port))[1] for _ in range(count)
    ]
    try:
        yield opened
    finally:
        for connection in opened:
            connection.close()
        await asyncio.gather(*(connection.closed for connection in opened))


async def ask_once(port: int, request: bytes) -> tuple[int, bytes]:
    """Return the status and the body of one answer."""
    async with connections(port, 1) as (connection,):
        statuses: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        connection.on_answer = lambda status, _latency: statuses.set_result(status)
        connection.ask(request)
        return await statuses, b"".join(connection.body)


async def saturate(
    port: int, requests: Sequence[bytes], *, count: int = 16, seconds: float
) -> Tally:
    """Keep `count` requests under way for a while, as fast as the server answers."""
    tally, upcoming = Tally(seconds=seconds), cycle(requests)
    async with connections(port, count) as opened:
        ends_at = time.perf_counter() + seconds
        await asyncio.gather(*(_keep_asking(one, upcoming, ends_at, tally) for one in opened))
    return tally


def _keep_asking(
    connection: Connection, requests: Iterator[bytes], ends_at: float, tally: Tally
) -> asyncio.Future[None]:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_answer(status: int, latency: float) -> None:
        if time.perf_counter() >= ends_at:
            done.set_result(None)
            return
        tally.add(status, latency)
        connection.ask(next(requests))

    connection.on_answer = on_answer
    connection.ask(next(requests))
    return done


class Pacer:
    """Asks at a steady rate, whether or not the server keeps up; latency counts from the plan."""

    def __init__(self, opened: Sequence[Connection], requests: Sequence[bytes]) -> None:
        """Ask over these connections."""
        self.tally = Tally()
        self._idle = deque(opened)
        self._waiting: deque[float] = deque()
        self._upcoming = cycle(requests)
        for connection in opened:
            self._watch(connection)

    def _watch(self, connection: Connection) -> None:
        def on_answer(status: int, latency: float) -> None:
            self.tally.add(status, latency)
            if self._waiting:
                connection.ask(next(self._upcoming), self._waiting.popleft())
            else:
                self._idle.append(connection)

        connection.on_answer = on_answer

    async def run(self, rate: float, meanwhile: Coroutine[Any, Any, None]) -> Tally:
        """Ask `rate` times a second until `meanwhile` has ended; return what came back."""
        self.tally = Tally()
        ending = asyncio.ensure_future(meanwhile)
        began, asked = time.perf_counter(), 0
        while not ending.done():
            while asked < (time.perf_counter() - began) * rate:
                self._ask(began + asked / rate)
                asked += 1
            await asyncio.sleep(_TICK_SECONDS)
        await ending
        # What is still under way counts as well: it is the slowest.
        while self.tally.answers < asked:  # noqa: ASYNC110 -- a tick is exact enough
            await asyncio.sleep(_TICK_SECONDS)
        self.tally.seconds = time.perf_counter() - began
        return self.tally

    def _ask(self, planned_at: float) -> None:
        if self._idle:
            self._idle.popleft().ask(next(self._upcoming), planned_at)
        else:
            self._waiting.append(planned_at)
