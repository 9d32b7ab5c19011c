"""Downloads that are made as they are sent: whole to their end, or visibly broken off.

They are written straight to ASGI, out of a snapshot that lives only while its reader reads.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog
from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from pricebook.core.compression import Encoding, compressed, negotiate
from pricebook.core.file_download import attachment
from pricebook.core.metrics import note_export
from pricebook.core.replica_snapshots import ReplicaFailedError, Snapshots
from pricebook.core.setting_groups import ExportSettings
from pricebook.core.snapshots import Snapshot
from pricebook.core.streaming import ABORT, left

TRAILERS: Final = "http.response.trailers"
"""The extension of ASGI by which an answer goes on after its body (RFC 9110, section 6.5)."""

# What one `send` has: however slow a reader is, it takes that much before it counts as stalled.
_SEND_BYTES: Final = 128 * 1024
_ROW_COUNT: Final = b"X-Row-Count"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Download:
    """What is sent, and under which name."""

    media_type: str
    filename: str
    chunks: Callable[[Snapshot], AsyncGenerator[bytes, None]]
    count: Callable[[Snapshot], Awaitable[int]] | None = None
    """Counts the rows, if they are to be told ahead."""


class Downloads:
    """All downloads of a process, and its hold on them."""

    def __init__(self, settings: ExportSettings, pool: Snapshots) -> None:
        """Bound them by the settings, and read from snapshots of `pool`."""
        self.pool = pool
        self.stall_seconds = settings.stall_seconds
        self._most_seconds = settings.max_minutes * 60
        self._open: set[asyncio.Timeout] = set()
        self._end = math.inf

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._open)

    @asynccontextmanager
    async def limited(self) -> AsyncIterator[asyncio.Timeout]:
        """Bound the time of one download; the limit may be brought forward."""
        end = asyncio.get_running_loop().time() + self._most_seconds
        async with asyncio.timeout_at(min(end, self._end)) as limit:
            self._open.add(limit)
            try:
                yield limit
            finally:
                self._open.discard(limit)

    def end_within(self, seconds: float) -> None:
        """Cut off what is not whole by then, and what begins later: the process is stopping."""
        self._end = asyncio.get_running_loop().time() + seconds
        for limit in self._open:
            _bring_forward(limit, self._end)


class DownloadResponse(Response):
    """The answer of a route that downloads; everything else about it is an ordinary route."""

    # Its type is in the headers, or FastAPI would describe it as plain text.
    media_type = None

    def __init__(self, request: Request, download: Download) -> None:
        """Answer in the encoding that the client wants most."""
        self._downloads: Downloads = request.app.state.downloads
        self._download = download
        self._encoding = negotiate(request.headers.get("accept-encoding"))
        self.status_code = 200
        self.background = None
        self.init_headers(_headers(download, self._encoding))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it, or a problem, or cut the connection."""
        exchange = scope["pricebook.exchange"]
        if exchange.is_head:
            await send(self._head())
            await send({"type": "http.response.body"})
            return
        try:
            await self._send_to_client(scope, receive, send)
        except BaseException as error:
            # Before the head nothing is lost: a problem tells.
            if not exchange.status:
                raise
            await _cut(scope, receive, error)

    async def _send_to_client(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it; a client that leaves ends it at once."""
        leaving = None
        try:
            async with self._downloads.limited() as limit:
                leaving = asyncio.create_task(_end_with_client(receive, limit))
                await self._send_all(scope, _impatient(send, self._downloads.stall_seconds))
        except TimeoutError:
            if leaving is None or not leaving.done():
                raise
        finally:
            if leaving is not None:
                leaving.cancel()

    async def _send_all(self, scope: Scope, send: Send) -> None:
        try:
            await self._send_snapshot(scope, send)
        except ReplicaFailedError:
            # What has gone out cannot be taken back, and another moment would not go on from there.
            if scope["pricebook.exchange"].status:
                raise
            await self._send_snapshot(scope, send, on_primary=True)

    async def _send_snapshot(self, scope: Scope, send: Send, *, on_primary: bool = False) -> None:
        has_trailers = TRAILERS in (scope.get("extensions") or {})
        async with self._downloads.pool.snapshot(on_primary=on_primary) as snapshot:
            count = self._download.count
            rows_ahead = await count(snapshot) if count else None
            chunks = compressed(self._download.chunks(snapshot), self._encoding)
            # What can be wrong with the statement is wrong before the head goes out.
            first = await anext(chunks, b"")
            # It waits far more than it works, and is counted among the downloads instead.
            scope["pricebook.exchange"].step_aside()
            await send(self._head(rows_ahead, has_trailers=has_trailers))
            sent_bytes = len(first)
            try:
                await _send_body(send, first)
                async for chunk in chunks:
                    await _send_body(send, chunk)
                    sent_bytes += len(chunk)
            finally:
                note_export(snapshot.rows, sent_bytes)
        await send({"type": "http.response.body"})
        if has_trailers:
            await send({"type": TRAILERS, "headers": [(_ROW_COUNT.lower(), b"%d" % snapshot.rows)]})

    def _head(self, rows: int | None = None, *, has_trailers: bool = False) -> dict[str, Any]:
        headers = list(self.raw_headers)
        if rows is not None:
            headers.append((b"x-total-count", b"%d" % rows))
        if has_trailers:
            headers.append((b"trailer", _ROW_COUNT))
        return {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": headers,
            "trailers": has_trailers,
        }


def _headers(download: Download, encoding: Encoding) -> dict[str, str]:
    coding = {} if encoding == "identity" else {"Content-Encoding": encoding}
    return {
        "Content-Type": download.media_type,
        "Content-Disposition": attachment(download.filename),
        **coding,
        # What is shown depends on the reader's role as well.
        "Vary": "Accept-Encoding, Authorization",
        "Cache-Control": "no-store",
        # nginx is to pass on each block as it comes.
        "X-Accel-Buffering": "no",
    }


async def _send_body(send: Send, chunk: bytes) -> None:
    for first in range(0, len(chunk), _SEND_BYTES):
        piece = chunk[first : first + _SEND_BYTES]
        await send({"type": "http.response.body", "body": piece, "more_body": True})


def _impatient(send: Send, seconds: float) -> Send:
    """Have `send` raise TimeoutError when the reader takes nothing for so long."""

    async def send_in_time(message: Any) -> None:  # noqa: ANN401 -- any message of ASGI
        async with asyncio.timeout(seconds):
            await send(message)

    return send_in_time


async def _end_with_client(receive: Receive, limit: asyncio.Timeout) -> None:
    await left(receive)
    _bring_forward(limit, asyncio.get_running_loop().time())


def _bring_forward(limit: asyncio.Timeout, end: float) -> None:
    if not limit.expired():
        limit.reschedule(min(end, limit.when() or end))


async def _cut(scope: Scope, receive: Receive, error: BaseException) -> None:
    """Cut the connection, so that nobody takes what was sent for all there is."""
    abort: Callable[[], None] | None = scope.get(ABORT)
    if abort is not None:
        abort()
    if abort is None or not isinstance(error, TimeoutError):
        raise error
    log.info("download cut off: its reader or its time ran out", path=scope["path"])
    await left(receive)


def documented(media_type: str, example: str) -> dict[int | str, dict[str, Any]]:
    """Describe a download for OpenAPI."""
    text = {"type": "string"}
    count = {"schema": {"type": "integer", "minimum": 0}}
    headers = {
        "Content-Disposition": {"schema": text},
        "X-Total-Count": {"description": "With `count=exact`: the rows to come.", **count},
        "X-Row-Count": {"description": "A trailer: the rows that came.", **count},
    }
    content = {media_type: {"schema": text, "example": example}}
    return {200: {"description": "The whole list.", "headers": headers, "content": content}}
