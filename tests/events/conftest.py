"""A real server in this process, lean readers of its streams, and events to tell of."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.api_process import make_server
from pricebook.core.outbox import record
from pricebook.core.settings import Settings
from pricebook.items.events import ItemPriceChanged
from pricebook.main import create_app
from pricebook.serving import listen

# Every piece that the server sends holds whole events, so the framing of pieces need not be read.
_EVENT = re.compile(rb"id: ([^\n]+)\nevent: ([^\n]+)\ndata: ([^\n]+)\n\n")
_ID = re.compile(rb"id: ([^\n]+)\n")
# An id without an event: all that was missed has been told.
_LIVE = re.compile(rb"id: [^\n]+\n\n")


async def eventually(condition: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 -- what is waited for tells nobody
            await asyncio.sleep(0.01)


class Listener(asyncio.Protocol):
    """One client of the stream."""

    def __init__(self, request: bytes) -> None:
        self.received = bytearray()
        self._request = request
        self._news = asyncio.Event()
        self.is_closed = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._news.set()

    def connection_lost(self, _error: Exception | None) -> None:
        self.is_closed = True
        self._news.set()

    def close(self) -> None:
        self.transport.abort()

    @property
    def status(self) -> int:
        return int(self.received[9:12])

    @property
    def body(self) -> bytes:
        return bytes(self.received.partition(b"\r\n\r\n")[2])

    @property
    def events(self) -> list[dict[str, Any]]:
        return [orjson.loads(data) for _, _, data in _EVENT.findall(self.received)]

    @property
    def ids(self) -> list[str]:
        return [found.decode() for found, _, _ in _EVENT.findall(self.received)]

    @property
    def last_id(self) -> str:
        return _ID.findall(self.received)[-1].decode()

    async def until(self, condition: Callable[["Listener"], object], seconds: float = 20) -> None:
        async with asyncio.timeout(seconds):
            while not condition(self):
                assert not self.is_closed, self.received[-2_000:]
                self._news.clear()
                await self._news.wait()

    @property
    def has_place(self) -> bool:
        return _ID.search(self.received) is not None

    @property
    def is_live(self) -> bool:
        return _LIVE.search(self.received) is not None

    async def until_live(self) -> "Listener":
        await self.until(lambda one: one.is_live or one.is_refused)
        return self

    @property
    def is_refused(self) -> bool:
        return bool(self.received) and self.status != 200

    async def until_told(self, count: int, seconds: float = 20) -> list[dict[str, Any]]:
        await self.until(lambda one: len(one.ids) >= count, seconds)
        return self.events

    async def until_ended(self, seconds: float = 20) -> None:
        """Wait for the end of the answer, or of the connection."""
        async with asyncio.timeout(seconds):
            while not self.is_closed and b"\r\n0\r\n\r\n" not in self.received:
                self._news.clear()
                await self._news.wait()


async def listen_to(
    port: int, token: str, query: str = "", last_event_id: str | None = None
) -> Listener:
    """Open a stream; it may not be live yet."""
    headers = [] if last_event_id is None else [f"Last-Event-ID: {last_event_id}"]
    return await open_path(port, token, f"/v1/events/stream{query}", *headers)


async def open_path(port: int, token: str, path: str, *headers: str) -> Listener:
    lines = [f"GET {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {token}", *headers]
    request = "\r\n".join((*lines, "", "")).encode()
    loop = asyncio.get_running_loop()
    _, listener = await loop.create_connection(lambda: Listener(request), "127.0.0.1", port)
    return listener


class Server:
    """The application behind uvicorn, in this process."""

    def __init__(self, app: FastAPI, port: int, tokens: dict[UUID, str]) -> None:
        self.app = app
        self.port = port
        self._tokens = tokens
        self._opened: list[Listener] = []

    async def listen(
        self, user: Any, query: str = "", last_event_id: str | None = None
    ) -> Listener:
        """Open a stream and wait until it is live, or refused."""
        listener = await listen_to(self.port, self._token_of(user), query, last_event_id)
        self._opened.append(listener)
        return await listener.until_live()

    async def open(self, user: Any, path: str) -> Listener:
        """Open what is at a path, and wait until it answers."""
        listener = await open_path(self.port, self._token_of(user), path)
        self._opened.append(listener)
        await listener.until(lambda one: b"\r\n\r\n" in one.received)
        return listener

    def _token_of(self, user: Any) -> str:
        return user if isinstance(user, str) else self._tokens[user.id]

    def close(self) -> None:
        for listener in self._opened:
            listener.close()


@asynccontextmanager
async def _serving(app: FastAPI, settings: Settings) -> AsyncIterator[int]:
    with listen("127.0.0.1", 0) as listening:
        server = make_server(app, settings)
        port = listening.getsockname()[1]
        running = asyncio.create_task(server.serve(sockets=[listening]))
        await eventually(lambda: server.started)
        yield port
        server.should_exit = True
        await running


@pytest.fixture
async def make_server_with(settings, api) -> AsyncIterator[Callable[..., Awaitable[Server]]]:
    """Start the application with other stream settings: `make_server_with(max_readers=2)`."""
    async with AsyncExitStack() as started:

        async def make(**stream: Any) -> Server:
            changed = {"max_age_seconds": 600, **stream}
            own = settings.model_copy(update={"stream": settings.stream.model_copy(update=changed)})
            app = create_app(own)
            port = await started.enter_async_context(_serving(app, own))
            server = Server(app, port, api.tokens)
            started.callback(server.close)
            return server

        yield make


@pytest.fixture
async def server(make_server_with) -> Server:
    return await make_server_with()


def price_change(sku: str = "HAM-1", tags: Sequence[str] = (), item_id: UUID | None = None):
    return ItemPriceChanged(
        item_id=item_id or uuid4(),
        sku=sku,
        tags=list(tags),
        name="Hammer",
        old_price="12.5000",
        new_price="13.0000",
        old_currency="EUR",
        currency="EUR",
    )


def tell(session: AsyncSession, *names: str) -> None:
    """Record a price change for each name, which stands in its SKU."""
    for name in names:
        record(session, price_change(name))


def skus(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["data"]["sku"] for event in events]
