"""Promise 39: ten minutes of it all mixed, and neither memory nor what is due piles up."""

import asyncio
import os
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import linear_regression

import asyncpg
import httpx2
import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from tests.benchmarks.data import COLUMNS, ROWS
from tests.benchmarks.memory import MEGABYTE, resident_bytes
from tests.conftest import PASSWORD, Api, connected
from tests.faults.conftest import (
    Backlog,
    backlog,
    eventually,
    for_delivery,
    run_worker,
    start,
    valkey,
)
from tests.processes import Forked, ForkedApi, ForkedWorker
from tests.receiver import ForkedReceiver

from pricebook.core.sealing import Sealer
from pricebook.core.settings import LogSettings, Settings, StreamSettings
from pricebook.users.models import User
from pricebook.webhooks.events import NEVER_TOLD
from pricebook.webhooks.models import WebhookEndpoint
from pricebook.webhooks.signing import new_secret

pytestmark = pytest.mark.chaos

SECONDS = float(os.environ.get("PRICEBOOK_SOAK_SECONDS", "600"))
# Until then caches, pools and prepared statements fill.
WARM_UP_SECONDS = min(120, SECONDS / 4)
SAMPLE_SECONDS = 2
GROWTH_MEGABYTES_A_MINUTE = 1
OLDEST_DUE_SECONDS = 10

ITEMS = 5_000
ENDPOINTS = 2
IMPORTED_ROWS = 20
STREAM_SECONDS = 4
A_SECOND = {
    "read": 20,
    "list": 4,
    "patch": 5,
    "stream": 1,
    "export": 0.5,
    "log in": 0.5,
    "import": 0.2,
}
# What is due and not yet told, and what has happened and is not yet made due.
OLDEST = """
    SELECT coalesce(extract(epoch FROM clock_timestamp() - least(
        (SELECT min(due_at) FROM webhook_deliveries WHERE status = 'pending'),
        (SELECT min(occurred_at) FROM events WHERE expanded_at IS NULL)
    )), 0)::float
"""
TOLD = "SELECT id::text FROM events WHERE type <> ALL($1)"
OPEN = "SELECT count(*) FROM jobs WHERE status IN ('queued', 'running')"
UNSUCCESSFUL = "SELECT count(*) FROM jobs WHERE status <> 'succeeded'"

__all__ = ["backlog", "for_delivery", "run_worker", "start", "valkey"]

Ask = Callable[[httpx2.AsyncClient, int], Awaitable[int]]


@dataclass
class Mix:
    """All that is asked, each kind at its own rate, whether or not the answers keep up."""

    clients: Sequence[httpx2.AsyncClient]
    items: Sequence[Mapping[str, str]]
    email: str
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    faults: Counter[str] = field(default_factory=Counter)
    told: int = 0
    """Bytes of the streams."""

    async def run(self, seconds: float) -> None:
        """Ask for so long; what is under way then comes to its end."""
        kinds: dict[str, Ask] = {
            "read": self._read,
            "list": self._list,
            "patch": self._patch,
            "stream": self._stream,
            "export": self._export,
            "log in": self._log_in,
            "import": self._import,
        }
        async with asyncio.TaskGroup() as asking:
            for name, ask in kinds.items():
                asking.create_task(self._keep_asking(asking, name, ask, seconds))

    async def _keep_asking(
        self, asking: asyncio.TaskGroup, name: str, ask: Ask, seconds: float
    ) -> None:
        began = time.monotonic()
        for turn in range(int(seconds * A_SECOND[name])):
            planned_at = began + turn / A_SECOND[name]
            await asyncio.sleep(planned_at - time.monotonic())
            asking.create_task(self._ask(name, ask, turn, planned_at))

    async def _ask(self, name: str, ask: Ask, turn: int, planned_at: float) -> None:
        client = self.clients[turn % len(self.clients)]
        try:
            status = await ask(client, turn)
        except httpx2.TransportError as error:
            self.faults[f"{name}: {error!r}"] += 1
            return
        self.seconds[name].append(time.monotonic() - planned_at)
        if status >= 400:
            self.faults[f"{name}: {status}"] += 1

    def _item(self, turn: int) -> str:
        return f"/v1/items/{self.items[turn % len(self.items)]['id']}"

    async def _read(self, client: httpx2.AsyncClient, turn: int) -> int:
        return (await client.get(self._item(turn * 7))).status_code

    async def _list(self, client: httpx2.AsyncClient, turn: int) -> int:
        query = {"limit": "50", "q": f"hammer {turn % 900}"} if turn % 2 else {"limit": "50"}
        return (await client.get("/v1/items", params=query)).status_code

    async def _patch(self, client: httpx2.AsyncClient, turn: int) -> int:
        reply = await client.patch(self._item(turn), json={"price": f"{turn % 9973}.50"})
        return reply.status_code

    async def _stream(self, client: httpx2.AsyncClient, _turn: int) -> int:
        async with client.stream("GET", "/v1/events/stream") as reply:
            try:
                async with asyncio.timeout(STREAM_SECONDS):
                    async for chunk in reply.aiter_raw():
                        self.told += len(chunk)
            except TimeoutError:
                return reply.status_code
        # It is the client who goes: a stream that ends before has been cut.
        return 599

    async def _export(self, client: httpx2.AsyncClient, _turn: int) -> int:
        reply = await client.get("/v1/exports/items.csv", params={"count": "exact"})
        if reply.status_code == 200:
            rows = reply.content.count(b"\r\n") - 1
            assert rows == ITEMS == int(reply.headers["X-Total-Count"])
        return reply.status_code

    async def _log_in(self, client: httpx2.AsyncClient, _turn: int) -> int:
        form = {"username": self.email, "password": PASSWORD}
        return (await client.post("/v1/auth/token", data=form)).status_code

    async def _import(self, client: httpx2.AsyncClient, turn: int) -> int:
        first = turn * IMPORTED_ROWS
        chosen = (self.items[(first + row) % len(self.items)] for row in range(IMPORTED_ROWS))
        rows = "".join(f"{one['sku']},Hammer,{turn % 997}.25,EUR\r\n" for one in chosen)
        reply = await client.post(
            "/v1/imports/items",
            params={"mode": "apply"},
            headers={"Content-Type": "text/csv"},
            content=f"sku,name,price,currency\r\n{rows}".encode(),
        )
        return reply.status_code

    def lines(self) -> list[str]:
        """Say how long it took, from when each was planned to be asked."""
        lines = []
        for name, seconds in self.seconds.items():
            ordered = sorted(seconds)
            p50, p99 = (1000 * ordered[int(share * len(ordered))] for share in (0.5, 0.99))
            rate = A_SECOND[name]
            said = f"{name}: {len(ordered):,} at {rate:g} a second"
            lines.append(f"{said}, p50 {p50:.0f} ms, p99 {p99:.0f} ms")
        return lines


@dataclass
class Watch:
    """What each process holds in memory and how long the oldest delivery has been due."""

    processes: Mapping[str, Forked]
    connection: asyncpg.Connection
    at: list[float] = field(default_factory=list)
    resident: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    oldest: list[float] = field(default_factory=list)

    async def until(self, ending: asyncio.Event) -> None:
        began = time.monotonic()
        while not ending.is_set():
            self.oldest.append(await self.connection.fetchval(OLDEST))
            if time.monotonic() - began > WARM_UP_SECONDS:
                self.at.append((time.monotonic() - began) / 60)
                for name, process in self.processes.items():
                    self.resident[name].append(resident_bytes(process.pid) / MEGABYTE)
            await asyncio.sleep(SAMPLE_SECONDS)

    def slopes(self) -> dict[str, float]:
        """Return by how many megabytes a minute each process grows, by least squares."""
        return {
            name: linear_regression(self.at, held).slope for name, held in self.resident.items()
        }


@pytest.fixture
def as_shipped(for_delivery: Settings) -> Settings:
    """With a line in the log for each request, and streams as long as they are."""
    changes = {"log": LogSettings(format="json"), "stream": StreamSettings()}
    return for_delivery.model_copy(update=changes)


async def add_endpoints(session: AsyncSession, settings: Settings, url: str) -> None:
    """Have each event told to each of some endpoints."""
    sealer = Sealer(settings)
    for number in range(ENDPOINTS):
        secret = sealer.seal(new_secret())
        session.add(WebhookEndpoint(url=f"{url}/{number}", sealed_secret=secret))
    await session.commit()


async def no_job_is_open(connection: asyncpg.Connection) -> bool:
    return not await connection.fetchval(OPEN)


async def test_promise_39_ten_minutes_of_it_all_leave_nothing_behind(
    as_shipped: Settings,
    start: Callable[..., Forked],
    receiver: ForkedReceiver,
    session: AsyncSession,
    urls: Mapping[str, str],
    worker_name: str,
    api: Api,
    editor: User,
    backlog: Backlog,
    capsys: pytest.CaptureFixture,
) -> None:
    apis = [start(ForkedApi, as_shipped) for _ in range(2)]
    processes = {"API 1": apis[0], "API 2": apis[1], "worker": start(ForkedWorker, as_shipped)}
    await add_endpoints(session, as_shipped, receiver.url)
    headers = {"Authorization": f"Bearer {api.tokens[editor.id]}"}
    ending = asyncio.Event()
    async with AsyncExitStack() as opened:
        connection = await opened.enter_async_context(connected(urls[f"database_{worker_name}"]))
        await connection.execute(f"INSERT INTO items ({COLUMNS}) {ROWS.format(rows=ITEMS)}")
        items = await connection.fetch("SELECT id::text, sku FROM items ORDER BY random()")
        clients = [
            await opened.enter_async_context(
                httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=30)
            )
            for server in apis
        ]
        mix, watch = Mix(clients, items, editor.email), Watch(processes, connection)
        watching = asyncio.create_task(watch.until(ending))
        await mix.run(SECONDS)
        ending.set()
        await watching
        # The end of a job is an event itself.
        await eventually(lambda: no_job_is_open(connection))
        await eventually(backlog.is_gone)
        happened = {row["id"] for row in await connection.fetch(TOLD, list(NEVER_TOLD))}
        unsuccessful = await connection.fetchval(UNSUCCESSFUL)
    taken, _ = await asyncio.to_thread(receiver.tally)
    slopes = watch.slopes()
    with capsys.disabled():
        grown = (f"{name} {slope:+.2f}" for name, slope in slopes.items())
        held = ", ".join(f"{name} {values[-1]:.0f}" for name, values in watch.resident.items())
        print("", *mix.lines(), sep="\n")  # noqa: T201 -- it is run for the figures
        print(f"growth in MB a minute: {', '.join(grown)}; at the end {held} MB")  # noqa: T201 -- likewise
        said = f"the oldest was due for {max(watch.oldest):.2f} s at most"
        print(f"{said}; {len(happened):,} events told to {ENDPOINTS} endpoints")  # noqa: T201 -- likewise
    assert mix.faults == {}
    assert mix.told > 0
    assert unsuccessful == 0
    assert all(process.is_alive() for process in processes.values())
    assert max(watch.oldest) < OLDEST_DUE_SECONDS
    assert len(happened) > SECONDS * A_SECOND["patch"]
    for number in range(ENDPOINTS):
        assert happened <= taken[f"/{number}"].keys()
    assert await backlog.unfinished() == 0
    assert max(slopes.values()) < GROWTH_MEGABYTES_A_MINUTE
