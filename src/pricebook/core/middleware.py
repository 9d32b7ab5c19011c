"""What surrounds every request: its id, log line, headers, limits, and the last net for errors.

Pure ASGI and one layer, since each request pays for it.
"""

import re
import time
from typing import Final
from uuid import uuid4

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pricebook.core.context import RequestContext, enter_context
from pricebook.core.database import is_outage
from pricebook.core.errors import PricebookError, TooLarge, Unavailable, UnsupportedMediaType
from pricebook.core.problems import InternalError, problem
from pricebook.core.settings import HttpSettings

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{8,128}")

# OWASP's recommendations for an API; a page that needs more sets its own.
SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"strict-transport-security", b"max-age=63072000; includeSubDomains"),
)

log = structlog.get_logger("pricebook.access")


class RequestMiddleware:
    """Gives a request its context, and its answer what every answer carries."""

    def __init__(self, app: ASGIApp, settings: HttpSettings, *, access_log: bool) -> None:
        """Surround `app`."""
        self._app = app
        self._settings = settings
        self._access_log = access_log
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._settings.max_body_bytes)
        enter_context(exchange.context)
        self._under_way += 1
        try:
            if refusal := self._refusal(exchange):
                await exchange.refuse(refusal)
            else:
                await self._serve(exchange)
        finally:
            self._under_way -= 1
            if self._access_log:
                exchange.log()

    def _refusal(self, exchange: "_Exchange") -> PricebookError | None:
        """Say what can be refused before anything is read."""
        if self._under_way > self._settings.max_concurrent_requests:
            return Unavailable("Too many requests at once; try again.")
        if exchange.headers.get(b"content-encoding", b"identity") != b"identity":
            return UnsupportedMediaType("A compressed body is not understood here.")
        length = exchange.headers.get(b"content-length", b"0")[:20]
        if length.isdigit() and int(length) > self._settings.max_body_bytes:
            return TooLarge()
        return None

    async def _serve(self, exchange: "_Exchange") -> None:
        try:
            await self._app(exchange.scope, exchange.receive, exchange.send)
        except Exception as error:
            if exchange.status:
                # The head has gone out: only an aborted connection tells the client.
                log.exception("answer broke off", path=exchange.scope["path"])
                raise
            await exchange.refuse(_failure(exchange, error))


def _failure(exchange: "_Exchange", error: Exception) -> PricebookError:
    if is_outage(error):
        log.warning("database unavailable", path=exchange.scope["path"], exc_info=error)
        return Unavailable()
    log.error("request failed", path=exchange.scope["path"], exc_info=error)
    return InternalError()


class _Exchange:
    """One request and its answer, as they pass."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_body_bytes: int) -> None:
        self.scope = scope
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.status = 0
        self._receive = receive
        self._send = send
        self._body_bytes_left = max_body_bytes
        self._began = time.perf_counter()
        given = self.headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _SANE_ID.fullmatch(given) else uuid4().hex
        self.context = RequestContext(request_id)

    async def receive(self) -> Message:
        """Pass on a piece of the body; refuse the one that goes past the limit."""
        message = await self._receive()
        self._body_bytes_left -= len(message.get("body", b""))
        if self._body_bytes_left < 0:
            raise TooLarge
        return message

    async def send(self, message: Message) -> None:
        """Pass on a piece of the answer; its head carries what every head does."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = {name for name, _ in message["headers"]}
            took = f"app;dur={self._milliseconds():.1f}".encode()
            message["headers"] = [
                *message["headers"],
                (b"x-request-id", self.context.request_id.encode()),
                (b"server-timing", took),
                *self.context.headers,
                *(header for header in SECURITY_HEADERS if header[0] not in own),
            ]
        await self._send(message)

    async def refuse(self, error: PricebookError) -> None:
        """Answer with a problem."""
        await problem(error)(self.scope, self._receive, self.send)

    def log(self) -> None:
        """Write the request's line; queries stay out of it, since people put secrets there."""
        log.info(
            "request",
            method=self.scope["method"],
            path=self.scope["path"],
            status=self.status,
            ms=round(self._milliseconds(), 1),
        )

    def _milliseconds(self) -> float:
        return (time.perf_counter() - self._began) * 1000
