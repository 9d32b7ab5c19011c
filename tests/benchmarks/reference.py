"""The ceiling: a bare ASGI application with one prepared statement and JSON by hand, no token."""

import os
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import orjson
import uvicorn

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

# PostgreSQL writes the text of what JSON has no form for: the fastest way known.
COLUMNS = """
    id::text, sku, name, description, price::text, currency, tax_rate::text, tags,
    cost::text, notes, version, created_at::text, updated_at::text
"""
ONE = f"SELECT {COLUMNS} FROM items WHERE id = $1"
PAGE = f"SELECT {COLUMNS} FROM items ORDER BY items.id LIMIT 100"
LOCK = f"SELECT {COLUMNS} FROM items WHERE id = $1 FOR UPDATE"
CHANGE = "UPDATE items SET name = $2, version = version + 1, updated_at = now() WHERE id = $1"
TELL = """
    INSERT INTO events (type, subject_id, payload, actor_id, request_id)
    VALUES ('item.updated', $1, $2, $1, 'b4a3f2e1d0c94b8a9f7e6d5c4b3a2910')
"""


async def serve(pool: Any, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request."""
    item_id = scope["path"][len("/v1/items/") :]
    if scope["method"] == "PATCH":
        body = await change(pool, item_id, orjson.loads((await receive())["body"]))
    elif item_id:
        async with pool.acquire() as connection:
            body = orjson.dumps(dict(await connection.fetchrow(ONE, item_id)))
    else:
        async with pool.acquire() as connection:
            page = [dict(row) for row in await connection.fetch(PAGE)]
        body = orjson.dumps({"items": page, "next_cursor": page[-1]["id"]})
    await answer(send, body)


async def change(pool: Any, item_id: str, changes: dict[str, str]) -> bytes:
    """Lock an item, change its name and record the event, in one transaction."""
    async with pool.acquire() as connection, connection.transaction():
        item = dict(await connection.fetchrow(LOCK, item_id))
        await connection.execute(CHANGE, item_id, changes["name"])
        event = {"item_id": item_id, "sku": item["sku"], "changed": ["name"]}
        await connection.execute(TELL, item_id, orjson.dumps(event).decode())
    return orjson.dumps(item | changes)


async def answer(send: Send, body: bytes) -> None:
    """Send JSON."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Reference:
    """The application; its pool lives from the start of the lifespan to its end."""

    def __init__(self, url: str, connections: int) -> None:
        """Use so many connections."""
        self._url = url
        self._connections = connections
        self._pool: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await serve(self._pool, scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with asyncpg.create_pool(
            self._url,
            min_size=self._connections,
            max_size=self._connections,
            init=_take_ids_as_text,
            reset=_leave_as_is,
        ) as self._pool:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


async def _take_ids_as_text(connection: Any) -> None:
    await connection.set_type_codec(
        "uuid", schema="pg_catalog", encoder=str, decoder=str, format="text"
    )


async def _leave_as_is(_connection: object) -> None:
    """Reset nothing: nothing was set."""


if __name__ == "__main__":
    application = Reference(os.environ["BENCHMARK_DATABASE_URL"], int(sys.argv[2]))
    config = uvicorn.Config(
        application, loop="uvloop", http="httptools", lifespan="on", access_log=False
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
