"""A real server in this process, readers that see what goes over the wire, and many items."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import orjson
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from tests.conftest import Api, connected, until

from pricebook.api_process import make_server
from pricebook.core.settings import Settings
from pricebook.main import create_app
from pricebook.serving import listen

MANY = 4_000
# Of what it receives, a reader that does not read holds no more.
_RECEIVE_BYTES = 65_536
EXPORTS_UNDER_WAY = """
    SELECT pid, state FROM pg_stat_activity
    WHERE application_name = 'pricebook-exports' AND datname = current_database()
        AND state <> 'idle'
"""


class Reader:
    """One client: it takes no more than it is asked to."""

    def __init__(self, incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self.status = 0
        self.headers: dict[str, str] = {}
        self.trailers: dict[str, str] = {}
        self.body = b""
        self.is_whole = False

    @classmethod
    async def open(cls, port: int, path: str, token: str, *headers: str, method="GET") -> "Reader":
        """Ask, and read the head of the answer."""
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
        reader = cls(*await asyncio.open_connection(sock=client, limit=_RECEIVE_BYTES))
        lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {token}", *headers]
        reader._outgoing.write("\r\n".join([*lines, "", ""]).encode())
        first = await reader._incoming.readline()
        reader.status = int(first.split()[1])
        reader.headers = await reader._fields()
        return reader

    async def _fields(self) -> dict[str, str]:
        found = {}
        while (line := await self._incoming.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            found[name.lower()] = value.strip()
        return found

    async def read(self) -> "Reader":
        """Read to the end of the answer, or of the connection."""
        try:
            while await self.read_chunk():
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            self.leave()
            return self
        self.trailers = await self._fields()
        self.is_whole = True
        self.leave()
        return self

    async def read_chunk(self) -> bytes:
        """Read one chunk, and nothing after it; the last is empty."""
        size = int(await self._incoming.readuntil(b"\r\n"), 16)
        if not size:
            return b""
        chunk = await self._incoming.readexactly(size + 2)
        self.body += chunk[:-2]
        return chunk[:-2]

    async def read_problem(self) -> dict[str, Any]:
        """Read an answer that says how long it is."""
        return orjson.loads(await self._incoming.readexactly(int(self.headers["content-length"])))

    def leave(self) -> None:
        """Be gone, in the middle of whatever it is."""
        self._outgoing.transport.abort()


class Server:
    """The application behind uvicorn, in this process."""

    def __init__(self, app: FastAPI, port: int, api: Api, connections: set[Any]) -> None:
        self.app = app
        self.port = port
        self.connections = connections
        self._api = api
        self._readers: list[Reader] = []

    async def export(
        self, user: Any, what: str = "items.csv", *headers: str, method="GET"
    ) -> Reader:
        """Ask for an export, and read the head of the answer."""
        path, token = f"/v1/exports/{what}", self._api.tokens[user.id]
        reader = await Reader.open(self.port, path, token, *headers, method=method)
        self._readers.append(reader)
        return reader

    def close(self) -> None:
        for reader in self._readers:
            reader.leave()


@asynccontextmanager
async def serving(settings: Settings, api: Api) -> AsyncIterator[Server]:
    app = create_app(settings)
    with listen("127.0.0.1", 0) as listening:
        server = make_server(app, settings)
        running = asyncio.create_task(server.serve(sockets=[listening]))
        await until(lambda: server.started)
        connections = server.server_state.connections
        served = Server(app, listening.getsockname()[1], api, connections)
        yield served
        served.close()
        server.should_exit = True
        await running


@pytest.fixture
async def serve(
    settings: Settings, api: Api, database: Any
) -> AsyncIterator[Callable[..., Awaitable[Server]]]:
    """Serve with some settings of exports changed: `serve(at_once=1)`."""
    async with AsyncExitStack() as started:

        async def start(**changed: Any) -> Server:
            exports = settings.exports.model_copy(update=changed)
            mine = settings.model_copy(update={"exports": exports, "stop_seconds": 4})
            return await started.enter_async_context(serving(mine, api))

        yield start


@pytest.fixture
async def many_items(session: Any) -> int:
    """Make more items than the buffers of a connection hold."""
    new = text(
        "INSERT INTO items (sku, name, notes, price, currency)"
        " SELECT 'SKU-' || n, 'Hammer', repeat('x', 5000), 12.5, 'EUR'"
        " FROM generate_series(1, :many) AS n"
    )
    await session.execute(new, {"many": MANY})
    await session.commit()
    return MANY


@pytest.fixture
def under_way(
    urls: dict[str, str], worker_name: str
) -> Callable[[], Awaitable[Sequence[asyncpg.Record]]]:
    """Return pid and state of the connections for exports that are not at rest."""

    async def read() -> Sequence[asyncpg.Record]:
        async with connected(urls[f"database_{worker_name}"]) as connection:
            return await connection.fetch(EXPORTS_UNDER_WAY)

    return read
