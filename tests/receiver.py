"""A receiver of webhooks: it counts what it is told, fails or holds its answers as it is bid."""

import asyncio
import socket
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import cast
from urllib.request import urlopen

import orjson
import uvloop
from tests.processes import Forked

from pricebook.serving import listen, url_of

_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_FAILED = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"
_TALLY = b"GET /tally"


class Receiver:
    """What came, by the path it came to and the `webhook-id` it carried."""

    def __init__(self, failing_share: float = 0.0) -> None:
        """Answer 500 to a share of the requests."""
        self.failing_share = failing_share
        self.taken: dict[str, Counter[str]] = defaultdict(Counter)
        """How often each id was answered with 200."""
        self.asked: Counter[str] = Counter()
        """How many requests came to each path, whatever they were answered."""
        self.failed = 0
        self.answer_seconds = 0.0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.connections: set[asyncio.Transport] = set()
        self._chance = Random(1)

    def answer(self, path: str, webhook_id: str) -> bytes:
        if self._chance.random() < self.failing_share:
            self.failed += 1
            return _FAILED
        self.taken[path][webhook_id] += 1
        return _OK

    def tally(self) -> bytes:
        return orjson.dumps({"taken": self.taken, "failed": self.failed})


class _Conversation(asyncio.Protocol):
    """One connection, spoken to by a client that does not pipeline."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._buffer = b""
        self._waiting: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._receiver.connections.add(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        if len(self._buffer) < end + 4 + int(_header(head, b"content-length") or 0):
            return
        target = self._buffer[: self._buffer.index(b" HTTP/")]
        self._buffer = b""
        if target == _TALLY:
            tally = self._receiver.tally()
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(tally))
            self._transport.write(tally)
            return
        self._take(target.partition(b" ")[2].decode(), _header(head, b"webhook-id").decode())

    def _take(self, path: str, webhook_id: str) -> None:
        self._receiver.asked[path] += 1
        if self._receiver.may_answer.is_set() and not self._receiver.answer_seconds:
            self._transport.write(self._receiver.answer(path, webhook_id))
            return
        waiting = asyncio.get_running_loop().create_task(self._take_later(path, webhook_id))
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)

    async def _take_later(self, path: str, webhook_id: str) -> None:
        await asyncio.sleep(self._receiver.answer_seconds)
        await self._receiver.may_answer.wait()
        if not self._transport.is_closing():
            self._transport.write(self._receiver.answer(path, webhook_id))

    def connection_lost(self, _error: Exception | None) -> None:
        self._receiver.connections.discard(self._transport)
        for task in self._waiting:
            task.cancel()


def _header(head: bytes, name: bytes) -> bytes:
    at = head.find(b"\r\n" + name + b":")
    return head[at + len(name) + 3 :].partition(b"\r\n")[0].strip() if at >= 0 else b""


@asynccontextmanager
async def receiving(receiver: Receiver, listening: socket.socket) -> AsyncIterator[str]:
    """Let a receiver be reached over a socket; yield its URL."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Conversation(receiver), sock=listening)
    try:
        yield url_of(listening)
    finally:
        server.close()
        for connection in receiver.connections:
            connection.abort()
        await asyncio.sleep(0)


class ForkedReceiver(Forked):
    """A receiver in a process of its own, for when there is much to receive."""

    def __init__(self, failing_share: float = 0.0, log: Path | None = None) -> None:
        self._listening = listen("127.0.0.1", 0)
        self.url = url_of(self._listening)
        super().__init__(_be_receiver, self._listening, failing_share, log=log)

    def tally(self) -> tuple[dict[str, dict[str, int]], int]:
        """Return how often each id was taken by path, and how many requests were refused."""
        with urlopen(f"{self.url}/tally", timeout=60) as reply:
            found = orjson.loads(reply.read())
        return found["taken"], found["failed"]

    def close(self) -> None:
        super().close()
        self._listening.close()


def _be_receiver(listening: socket.socket, failing_share: float) -> None:
    async def receive() -> None:
        async with receiving(Receiver(failing_share), listening):
            await asyncio.Event().wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(receive())
