"""References for streams: the least that ASGI needs to tell many, and a subscription for each.

`GET /stream` waits for what `POST /tell` is given; `GET /subscribed` for the same by way of Valkey,
with a subscription of its own for each reader, as is usual.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from redis.asyncio import Redis

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

CHANNEL = "benchmark"
_HEAD = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]


class Reader:
    """What waits for one client."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.chunks: list[bytes] = []
        self.something = asyncio.Event()
        self.is_gone = False

    async def watch(self, receive: Receive) -> None:
        """Wait until the client is gone."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.is_gone = True
        self.something.set()


class Broadcaster:
    """The application."""

    def __init__(self, valkey_url: str) -> None:
        """Subscribe at `valkey_url`."""
        self._readers: set[Reader] = set()
        self._valkey: Redis = Redis.from_url(valkey_url, max_connections=5_000)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "lifespan":
            return
        path = scope["path"]
        if path == "/tell":
            await self._tell(scope["query_string"], receive)
            await _answer(send)
        elif path == "/stream":
            await self._stream(receive, send)
        elif path == "/subscribed":
            await self._subscribed(receive, send)
        else:
            await _answer(send)

    async def _tell(self, query: bytes, receive: Receive) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        events = [event + b"\n\n" for event in body.split(b"\n\n") if event]
        if query == b"by=valkey":
            for event in events:
                await self._valkey.publish(CHANNEL, event)
            return
        for event in events:
            for reader in self._readers:
                reader.chunks.append(event)
                reader.something.set()

    async def _stream(self, receive: Receive, send: Send) -> None:
        reader = Reader()
        self._readers.add(reader)
        await _open(send)
        watching = asyncio.create_task(reader.watch(receive))
        while not reader.is_gone:
            await reader.something.wait()
            reader.something.clear()
            body = b"".join(reader.chunks)
            reader.chunks.clear()
            await _write(send, body)
        self._readers.discard(reader)
        await watching

    async def _subscribed(self, receive: Receive, send: Send) -> None:
        reader = Reader()
        watching = asyncio.create_task(reader.watch(receive))
        async with self._valkey.pubsub(ignore_subscribe_messages=True) as subscription:
            await subscription.subscribe(CHANNEL)
            await _open(send)
            while not reader.is_gone:
                message = await subscription.get_message(timeout=0.5)
                if message is not None:
                    await _write(send, message["data"])
        await watching


async def _open(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": _HEAD})
    await _write(send, b":\n\n")


async def _write(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _answer(send: Send) -> None:
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


if __name__ == "__main__":
    config = uvicorn.Config(
        Broadcaster(os.environ["BENCHMARK_VALKEY_URL"]),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="critical",
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
