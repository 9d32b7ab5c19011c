"""One HTTP connection: what uvicorn's protocol lacks for trailers, slow clients and a quiet end."""

import math
from collections.abc import Iterable
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from pricebook.core.downloads import TRAILERS
from pricebook.core.rush import ADMITTED, Rush, field_lines
from pricebook.core.streaming import ABORT

HEAD_SECONDS: Final = 10.0
"""How long the head of a request may take, from its first byte or from a connection's begin."""

# A body that comes slower than this on the whole, once it has had so long, is cut off: one that
# sends a byte now and then would hold its connection for ever.
_BODY_GRACE_SECONDS = 10.0
_LEAST_BODY_BYTES_PER_SECOND = 256
# A connection as young as this at the end has its request on the way.
_YOUTH_SECONDS = 1.0

_TOO_SLOW = (
    b'{"type":"/problems/request-timeout","title":"Request timeout","status":408,'
    b'"detail":"The request did not come in time.","request_id":""}'
)
_TOO_SLOW_ANSWER = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/problem+json\r\n"
    b"cache-control: no-store\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"
) % (len(_TOO_SLOW), _TOO_SLOW)
_UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\n"


class Connections(ServerState):
    """All connections of a process, and its hold on them."""

    def __init__(self, rush: Rush) -> None:
        """Begin with none; what is too much for `rush` goes no further than its connection."""
        super().__init__()
        self.is_draining = False
        self.rush = rush

    def drain(self) -> None:
        """Close each connection after its next answer, and say so in it (RFC 9112, section 9.6)."""
        self.is_draining = True
        for connection in self._all():
            connection.last_answer()

    def cut_slow(self, now: float) -> None:
        """Cut those whose request does not get here."""
        for connection in self._all():
            connection.cut_if_slow(now)

    def _all(self) -> "list[Connection]":
        return cast("list[Connection]", list(self.connections))


class _Cycle(RequestResponseCycle):
    """Sends trailers after a body, as ASGI's extension says; uvicorn knows of none."""

    has_trailers = False

    async def send(self, message: Any) -> None:  # noqa: ANN401 -- any message of ASGI
        if message["type"] == TRAILERS:
            self._write_trailers(message["headers"])
            message = {"type": "http.response.body"}
        elif message["type"] == "http.response.start":
            self.has_trailers = message.get("trailers", False)
        elif self.has_trailers:
            message = {**message, "more_body": True}
        await super().send(message)

    def _write_trailers(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """End the chunks (RFC 9112, section 7.1); what is left to uvicorn is to write nothing."""
        if not self.disconnected:
            self.transport.write(b"0\r\n%s\r\n" % field_lines(headers))
        self.chunked_encoding = False
        self.has_trailers = False


class Connection(HttpToolsProtocol):
    """Lets the application cut a connection, which ASGI has no word for, and send trailers.

    It is cut if its request comes too slowly, and not while one is on its way.
    """

    _head_by = math.inf
    _opened_at = 0.0
    _body_began = math.inf
    _body_bytes = 0

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 -- uvloop's derive from nothing
        """Give the head of the first request its time."""
        super().connection_made(transport)
        self._opened_at = self.loop.time()
        self._head_by = self._opened_at + HEAD_SECONDS

    def on_message_begin(self) -> None:
        """Give the head its time, and the application its hold."""
        super().on_message_begin()
        self._head_by = self.loop.time() + HEAD_SECONDS
        scope = cast("dict[str, Any]", self.scope)
        scope[ABORT] = self.transport.abort
        scope["extensions"] = {TRAILERS: {}}

    def on_headers_complete(self) -> None:
        """Have the request answered, and give its body its time."""
        super().on_headers_complete()
        self._head_by = math.inf
        self._body_began = self.loop.time()
        self._body_bytes = 0
        # uvicorn makes it here, and takes no other class for it.
        self.cycle.__class__ = _Cycle
        if cast("Connections", self.server_state).is_draining:
            self.last_answer()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401 -- uvicorn's own type is its own
        scope = cast("dict[str, Any]", cycle.scope)
        rush = cast("Connections", self.server_state).rush
        if rush.admits(scope["path"]):
            scope[ADMITTED] = True
        elif not self._must_be_asked(scope):
            self._refuse(cycle, *rush.refusal(scope))
            return
        super()._start_asgi_task(cycle, app)

    def _must_be_asked(self, scope: dict[str, Any]) -> bool:
        """Whether the application itself has to refuse.

        A page of another origin is to read why. A client that does not read its answers is to be
        waited for; what it has asked meanwhile is refused one after the other, not one in another.
        """
        if self.flow.write_paused or self.pipeline:
            return True
        return any(name == b"origin" for name, _ in scope["headers"])

    def _refuse(self, cycle: RequestResponseCycle, head: bytes, body: bytes) -> None:
        """Answer at once, for less than a task and the application's layers cost."""
        usual = field_lines(self.server_state.default_headers)
        last = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        shown = b"" if cycle.scope["method"] == "HEAD" else body
        self.transport.write(b"%s%s%s%s%s" % (_UNAVAILABLE, usual, head, last, shown))
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def on_body(self, body: bytes) -> None:
        """Count what has come."""
        super().on_body(body)
        self._body_bytes += len(body)

    def on_message_complete(self) -> None:
        """Begin to wait for nothing."""
        super().on_message_complete()
        self._body_began = math.inf

    def last_answer(self) -> None:
        """Let nothing follow the answer that is being made."""
        if self._has_begun:
            self.cycle.keep_alive = False

    @property
    def _has_begun(self) -> bool:
        # uvicorn's types do not say that there may be none.
        return cast("RequestResponseCycle | None", self.cycle) is not None

    def cut_if_slow(self, now: float) -> None:
        """Say that the time is up, if an answer has not begun, and close."""
        if now < self._head_by and not self._is_body_slow(now):
            return
        is_answering = self._has_begun and not self.cycle.response_complete
        if not (is_answering and self.cycle.response_started):
            self.transport.write(_TOO_SLOW_ANSWER)
        self.transport.close()

    def _is_body_slow(self, now: float) -> bool:
        seconds = now - self._body_began
        if seconds < _BODY_GRACE_SECONDS or self.flow.read_paused:
            return False
        return self._body_bytes < seconds * _LEAST_BODY_BYTES_PER_SECOND

    def shutdown(self) -> None:
        """Close once no request is under way, nor on its way here."""
        is_young = not self._has_begun and self.loop.time() < self._opened_at + _YOUTH_SECONDS
        if not is_young:
            super().shutdown()
            return
        self.timeout_keep_alive_task = self.loop.call_later(
            _YOUTH_SECONDS, self.timeout_keep_alive_handler
        )
