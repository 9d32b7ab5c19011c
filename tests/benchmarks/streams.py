"""A thousand readers of the live stream: how late they hear, and how fast a burst goes out."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, cast

import asyncpg
from tests.benchmarks.cost import cpu_seconds
from tests.benchmarks.findings import Finding, at_least, at_most
from tests.benchmarks.load import ask_once
from tests.benchmarks.servers import Field, Server, broadcaster
from tests.benchmarks.works import request

_STREAM = "/v1/events/stream"
_READERS = 1_000
_EVENTS_A_SECOND = 15
_SECONDS = 20.0
_WARM_UP_SECONDS = 2.0
_BURST = 300
_ROUNDS = 5
_PATIENCE_SECONDS = 60.0
_NAME = re.compile(rb'"sku": "([a-z]+-[0-9]+)"')
_ENDS_WITH = 1_200

# The events of a real change of price, each a moment after the other, committed together.
_TELL = """
    INSERT INTO events (type, subject_id, payload)
    SELECT 'item.price_changed', uuidv7(), jsonb_build_object(
        'item_id', uuidv7(), 'sku', name, 'tags', ARRAY['tools', 'trade-7'],
        'name', 'Angle grinder 115', 'old_price', '12.5000', 'new_price', '13.0000',
        'old_currency', 'EUR', 'currency', 'EUR')
    FROM unnest($1::text[]) AS name
"""


Tell = Callable[[str], Awaitable[None]]


class Reader(asyncio.Protocol):
    """One client of a stream."""

    def __init__(self, opening: bytes, heard: dict[bytes, list[float]]) -> None:
        """Ask with `opening`, and note in `heard` when each named event came."""
        self._opening = opening
        self._heard = heard
        self._tail = b""
        self._awaited = b""
        self.is_live = asyncio.get_running_loop().create_future()
        self.done: asyncio.Future[float] | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._opening)

    def connection_lost(self, error: Exception | None) -> None:
        for waiting in (self.is_live, self.done):
            if waiting is not None and not waiting.done():
                waiting.set_exception(error or ConnectionResetError("the stream has ended"))

    def awaiting(self, name: str) -> asyncio.Future[float]:
        """Return when the event of this name has come."""
        self._awaited = f'"{name}"'.encode()
        self.done = asyncio.get_running_loop().create_future()
        return self.done

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if not self.is_live.done():
            self._open(data)
        elif self.done is None:
            for name in _NAME.findall(data):
                if name in self._heard:
                    self._heard[name].append(now)
        else:
            self._tail = (self._tail + data[-_ENDS_WITH:])[-_ENDS_WITH:]
            if self._awaited in self._tail and not self.done.done():
                self.done.set_result(now)

    def _open(self, data: bytes) -> None:
        self._tail += data
        if b"\nid: " in self._tail or b"\n:\n" in self._tail:
            self.is_live.set_result(None)


@asynccontextmanager
async def readers(
    server: Server, path: str, token: str, heard: dict[bytes, list[float]]
) -> AsyncIterator[list[Reader]]:
    """Open the streams, and wait until all are live."""
    loop = asyncio.get_running_loop()
    opening = request("GET", path, token)
    opened: list[Reader] = []
    try:
        for _ in range(_READERS):
            _, reader = await loop.create_connection(
                lambda: Reader(opening, heard), "127.0.0.1", server.port
            )
            opened.append(reader)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await asyncio.gather(*(reader.is_live for reader in opened))
        yield opened
    finally:
        for reader in opened:
            reader.transport.abort()


async def measure_streams(field: Field, token: str) -> list[Finding]:
    """Tell a thousand readers at a steady rate, and then in bursts beside the references."""
    assert field.settings.database_url
    url = field.settings.database_url.get_secret_value().replace("+asyncpg", "")
    connection = await asyncpg.connect(url)
    try:
        with broadcaster(field) as reference:
            late = await _measure_lateness(field, reference, token, connection)
            return [*late, *await _measure_bursts(field, reference, token, connection)]
    finally:
        await connection.close()


async def _measure_lateness(
    field: Field, reference: Server, token: str, connection: Any
) -> list[Finding]:
    """Commit from outside the API process, which has to find each event by itself."""

    async def commit(name: str) -> None:
        await connection.execute(_TELL, [name])

    async def post(name: str) -> None:
        await ask_once(reference.port, request("POST", "/tell", "", _written(name)))

    bare = await _lateness(reference, "/stream", "", post)
    ours = await _lateness(field.pricebook, _STREAM, token, commit)
    what = (
        f"ms, p99 from commit to {_READERS:,} readers at {_EVENTS_A_SECOND} events/s; "
        f"p50 {ours.percentile(0.5):.1f}, most {ours.percentile(1):.1f}"
    )
    beside = (
        f"x a bare ASGI broadcaster's p99, which is {bare.percentile(0.99):.1f} ms from the request"
    )
    return [
        at_most(60, ours.percentile(0.99), what),
        at_most(30, ours.percentile(0.99), "ms, the same, as it should be one day"),
        at_most(2, ours.percentile(0.99) / bare.percentile(0.99), beside),
        at_most(0, ours.missing, "deliveries missed, or told twice"),
        at_most(1, ours.processors, f"processors used meanwhile, beside {bare.processors:.2f}"),
    ]


@dataclass(frozen=True)
class _Lateness:
    """When a thousand readers heard; in milliseconds."""

    late: Sequence[float]
    missing: int
    processors: float

    def percentile(self, share: float) -> float:
        """Return what `share` of the deliveries did not pass."""
        return self.late[min(len(self.late) - 1, int(share * len(self.late)))]


async def _lateness(server: Server, path: str, token: str, tell: Tell) -> _Lateness:
    heard: dict[bytes, list[float]] = {}
    told: dict[bytes, float] = {}
    async with readers(server, path, token, heard):
        await _tell_steadily(tell, _WARM_UP_SECONDS, "warm", {}, {})
        began, cpu = time.perf_counter(), cpu_seconds(server.pid)
        await _tell_steadily(tell, _SECONDS, "steady", heard, told)
        processors = (cpu_seconds(server.pid) - cpu) / (time.perf_counter() - began)
        await asyncio.sleep(1)
    late = sorted(1000 * (at - told[name]) for name, times in heard.items() for at in times)
    return _Lateness(late, abs(len(told) * _READERS - len(late)), processors)


async def _tell_steadily(
    tell: Tell,
    seconds: float,
    prefix: str,
    heard: dict[bytes, list[float]],
    told: dict[bytes, float],
) -> None:
    began = time.perf_counter()
    for number in range(int(seconds * _EVENTS_A_SECOND)):
        await asyncio.sleep(began + number / _EVENTS_A_SECOND - time.perf_counter())
        name = f"{prefix}-{number}"
        heard[name.encode()] = []
        told[name.encode()] = time.perf_counter()
        await tell(name)


async def _measure_bursts(
    field: Field, reference: Server, token: str, connection: Any
) -> list[Finding]:
    ours: list[float] = []
    bare: list[float] = []
    each: list[float] = []
    for number in range(_ROUNDS):
        names = [f"burst-{number * _BURST + one}" for one in range(_BURST)]
        body = b"".join(_written(name) for name in names)
        async with readers(field.pricebook, _STREAM, token, {}) as opened:
            ours.append(await _rate(opened, names, connection.execute(_TELL, names)))
        for rates, path, query in ((bare, "/stream", ""), (each, "/subscribed", "?by=valkey")):
            async with readers(reference, path, "", {}) as opened:
                telling = request("POST", f"/tell{query}", "", body)
                rates.append(await _rate(opened, names, ask_once(reference.port, telling)))
    to_bare = median(one / other for one, other in zip(ours, bare, strict=True))
    to_each = median(one / other for one, other in zip(ours, each, strict=True))
    return [
        at_least(0.5, to_bare, f"of a bare ASGI broadcaster's deliveries/s{_shown(ours, bare)}"),
        at_least(5, to_each, f"x a Valkey subscription for each reader{_shown(ours, each)}"),
    ]


def _shown(ours: Sequence[float], theirs: Sequence[float]) -> str:
    return f", bursts of {_BURST}: {median(ours):,.0f} beside {median(theirs):,.0f}"


def _written(name: str) -> bytes:
    """Return an event of the same size as Pricebook writes."""
    data = (
        '{"id":"01a204e2-f278-70e5-b6fb-1b79da31e296","type":"item.price_changed",'
        '"occurred_at":"2026-11-22T20:11:51.800089Z","data":{"sku": "' + name + '", '
        '"name": "Angle grinder 115", "tags": ["tools", "trade-7"], '
        '"item_id": "959281d2-7942-4136-af74-fabc76cac32b", "currency": "EUR", '
        '"new_price": "13.0000", "old_price": "12.5000", "old_currency": "EUR"}}'
    )
    place = "762..761.01a204e2f27870e5b6fb1b79da31e296"
    return f"id: {place}\nevent: item.price_changed\ndata: {data}\n\n".encode()


async def _rate(opened: Sequence[Reader], names: Sequence[str], telling: Any) -> float:
    """Return the deliveries a second, from the first word of it to the last reader."""
    done = [reader.awaiting(names[-1]) for reader in opened]
    began = time.perf_counter()
    await telling
    async with asyncio.timeout(_PATIENCE_SECONDS):
        times = await asyncio.gather(*done)
    return len(names) * len(opened) / (max(times) - began)
