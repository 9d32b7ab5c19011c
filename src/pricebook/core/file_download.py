"""A file as the answer to a request: whole or a range of it, and conditional (RFC 9110)."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import structlog
from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from pricebook.core.conditions import conditions_of
from pricebook.core.errors import NotFound, RangeNotSatisfiable
from pricebook.core.files import FileMissingError, Files, Stored
from pricebook.core.streaming import ABORT, left

_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
# What one `send` has: however slow a reader is, it takes that much before it counts as stalled.
_SEND_BYTES = 64 * 1024

log = structlog.get_logger(__name__)


class FileExpired(NotFound):
    """The file has expired, or was never written to its end."""


class Span(NamedTuple):
    """Bytes of a file, from `first` up to `end`."""

    first: int
    end: int


async def file_response(
    request: Request, files: Files, name: str, *, media_type: str, filename: str
) -> Response:
    """Answer with a file, as the conditions and the range of the request ask.

    Raises:
        FileExpired: There is no such file.
        PreconditionFailed: If-Match names another one.
        RangeNotSatisfiable: The range lies past the end.

    """
    stored = await _found(files, name)
    etag = _etag(stored)
    headers = {"ETag": etag, "Cache-Control": "private", "Accept-Ranges": "bytes"}
    if conditions_of(request).is_met_by(etag):
        return Response(status_code=304, headers=headers)
    span = _span(request, stored, etag)
    headers |= {"Content-Type": media_type, "Content-Disposition": attachment(filename)}
    stall_seconds = request.app.state.settings.exports.stall_seconds
    return _FileResponse(files, stored, span, headers, stall_seconds)


async def _found(files: Files, name: str) -> Stored:
    try:
        return await files.find(name)
    except FileMissingError as error:
        raise FileExpired from error


def attachment(filename: str) -> str:
    """Have a browser save it under this name (RFC 6266)."""
    if _PLAIN_NAME.fullmatch(filename):
        return f'attachment; filename="{filename}"'
    return f"attachment; filename*=utf-8''{quote(filename, safe='')}"


def _etag(stored: Stored) -> str:
    """Return a strong entity tag, whatever the store calls this writing of the file."""
    mark = f"{stored.name} {stored.size} {stored.written_at.timestamp()} {stored.etag}"
    return f'"{hashlib.sha256(mark.encode()).hexdigest()[:32]}"'


def _span(request: Request, stored: Stored, etag: str) -> Span | None:
    """Return the range that is asked for; None asks for all of it.

    A range that cannot be read, more than one, and one of another file are no reason to refuse
    (RFC 9110, section 14.2): the file is answered whole.
    """
    headers = request.headers
    given = _RANGE.fullmatch(headers.get("range", ""))
    if given is None or _is_head(request) or headers.get("if-range", etag) != etag:
        return None
    first, last = given.groups()
    if not first:
        return _suffix(int(last), stored) if last else None
    if last and int(last) < int(first):
        return None
    if int(first) >= stored.size:
        raise RangeNotSatisfiable(size=stored.size)
    return Span(int(first), min(int(last) + 1, stored.size) if last else stored.size)


def _suffix(length: int, stored: Stored) -> Span | None:
    if not length:
        raise RangeNotSatisfiable(size=stored.size)
    return Span(max(0, stored.size - length), stored.size) if stored.size else None


def _is_head(request: Request) -> bool:
    """A range is for GET alone (section 14.2), and the application sees HEAD as one."""
    return bool(request.scope["pricebook.exchange"].is_head)


class _FileResponse(Response):
    """Reads on as the client does; whoever stalls is cut off, and may go on by a range."""

    def __init__(
        self,
        files: Files,
        stored: Stored,
        span: Span | None,
        headers: dict[str, str],
        stall_seconds: float,
    ) -> None:
        self._files = files
        self._stored = stored
        self._span = span or Span(0, stored.size)
        self._stall_seconds = stall_seconds
        self.status_code = 200 if span is None else 206
        self.background = None
        first, end = self._span
        headers["Content-Length"] = str(end - first)
        if span is not None:
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{stored.size}"
        self.init_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head, and the bytes as they are taken."""
        exchange = scope["pricebook.exchange"]
        head = {"type": "http.response.start", "status": self.status_code}
        await send({**head, "headers": self.raw_headers})
        if exchange.is_head:
            await send({"type": "http.response.body"})
            return
        # It waits far more than it works: it is not to count among the requests.
        exchange.step_aside()
        await _while_there(receive, self._send_all(send, scope.get(ABORT, _nothing)))

    async def _send_all(self, send: Send, abort: Callable[[], None]) -> None:
        async for chunk in self._chunks():
            try:
                async with asyncio.timeout(self._stall_seconds):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except TimeoutError:
                log.info("stalled reader cut off", file=self._stored.name)
                abort()
                return
        await send({"type": "http.response.body"})

    async def _chunks(self) -> AsyncIterator[bytes]:
        async for piece in self._files.pieces(self._stored, *self._span):
            for first in range(0, len(piece), _SEND_BYTES):
                yield piece[first : first + _SEND_BYTES]


def _nothing() -> None:
    """Leave the connection to the server."""


async def _while_there(receive: Receive, sending: Coroutine[None, None, None]) -> None:
    """Send until all is sent, or the client has left."""
    tasks = [asyncio.create_task(sending), asyncio.create_task(left(receive))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            await tasks[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def documented_file(description: str) -> dict[int | str, dict[str, Any]]:
    """Describe for OpenAPI what a route that answers with a file may answer."""
    content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    return {
        200: {"description": description, "content": content},
        206: {"description": "The range of it that was asked for.", "content": content},
        304: {"description": "It is the one of If-None-Match."},
        409: {"description": "There is no file yet."},
        412: {"description": "It is not the one of If-Match."},
        416: {"description": "The range begins past its end."},
    }
