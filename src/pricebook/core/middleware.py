"""What surrounds every request: its id, log line, headers, limits, and the last net for errors.

Pure ASGI and one layer, since each request pays for it.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pricebook.core.browser_headers import SECURITY_HEADERS, TRANSPORT_SECURITY
from pricebook.core.context import RequestContext, enter_context, request_id_of
from pricebook.core.cors import Cors
from pricebook.core.database import outage_in
from pricebook.core.errors import PricebookError, TooLarge, Unavailable, UnsupportedMediaType
from pricebook.core.metrics import note_request
from pricebook.core.problems import InternalError, problem
from pricebook.core.rush import ADMITTED, Rush
from pricebook.core.settings import HttpSettings
from pricebook.core.tracing import begin_request
from pricebook.core.traffic import Traffic

_SECURED = frozenset(name for name, _ in SECURITY_HEADERS)

Header = tuple[bytes, bytes]

log = structlog.get_logger("pricebook.access")


class RequestMiddleware:
    """Gives a request its context, and its answer what every answer carries."""

    def __init__(  # noqa: PLR0913 -- each is something else that `main` knows
        self,
        app: ASGIApp,
        settings: HttpSettings,
        *,
        access_log: bool,
        traffic: Traffic,
        rush: Rush,
        uploads: Mapping[str, int] | None = None,
        templates: Mapping[object, str] | None = None,
    ) -> None:
        """Surround `app`, and tell `traffic` of each request that has not stepped aside.

        What is too much for `rush` is not even begun.

        A POST to a path of `uploads` may be packed, and as large as it says. Requests are counted
        by the path that `templates` has for what answers them.
        """
        self._app = app
        self._settings = settings
        self._usual = _Limits(settings.max_body_bytes)
        self._uploads = {
            path: _Limits(most, may_be_packed=True) for path, most in (uploads or {}).items()
        }
        self._access_log = access_log
        self._traffic = traffic
        self._templates = templates or {}
        self._rush = rush
        # Around the net for errors too, so that a page may read why it was refused.
        self._serve: ASGIApp = self._catch
        self._refuse: ASGIApp = rush.refuse
        if settings.cors_origins:
            self._serve = Cors(self._catch, settings.cors_origins)
            self._refuse = Cors(rush.refuse, settings.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if not (scope.pop(ADMITTED, False) or self._rush.admits(scope["path"])):
            await self._refuse(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._limits_of(scope), self._step)
        enter_context(exchange.context)
        trace = begin_request(scope["method"], exchange.path, exchange.headers, exchange.context)
        inner = exchange.scope_of(scope, self._settings.root_path)
        try:
            await self._serve(inner, exchange.receive, exchange.send)
        finally:
            route = self._templates.get(inner.get("endpoint"))
            if exchange.is_counted:
                self._traffic.note()
                exchange.count(route or "none")
            exchange.step_aside()
            if self._access_log:
                exchange.log()
            if trace is not None:
                trace.end(route, exchange.status)

    def _step(self, places: int) -> None:
        self._traffic.under_way += places

    def _limits_of(self, scope: Scope) -> "_Limits":
        if scope["method"] != "POST":
            return self._usual
        root = self._settings.root_path
        path = _whole_path(scope["path"], root).removeprefix(root)
        return self._uploads.get(path, self._usual)

    async def _catch(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: _Exchange = scope["pricebook.exchange"]
        if refusal := self._refusal(exchange):
            await problem(refusal)(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            if exchange.status:
                # The head has gone out: only an aborted connection tells the client.
                log.exception("answer broke off", path=scope["path"])
                raise
            await problem(_failure(scope["path"], error))(scope, receive, send)

    def _refusal(self, exchange: "_Exchange") -> PricebookError | None:
        """Say what can be refused before anything is read."""
        limits = exchange.limits
        coding = exchange.headers.get(b"content-encoding", b"identity").lower()
        if coding != b"identity" and not limits.may_be_packed:
            return UnsupportedMediaType("A compressed body is not understood here.")
        length = exchange.headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > limits.body_bytes:
            return TooLarge()
        return None


def _failure(path: str, error: Exception) -> PricebookError:
    if isinstance(error, PricebookError):
        return error
    if (outage := outage_in(error)) is not None:
        # Every request meets the same one: a line each, and no traceback.
        reason = str(outage).partition("\n")[0]
        log.warning("database unavailable", path=path, error=f"{type(outage).__name__}: {reason}")
        return Unavailable()
    log.error("request failed", path=path, exc_info=error)
    return InternalError()


def _whole_path(path: str, root: str) -> str:
    """Return the path as clients know it: ASGI counts the root in, most proxies cut it off."""
    return path if not root or path.startswith(f"{root}/") else root + path


class _Limits(NamedTuple):
    """What the body of a request may be."""

    body_bytes: int
    may_be_packed: bool = False


class _Exchange:
    """One request and its answer, as they pass."""

    __slots__ = (
        "_began",
        "_body_bytes_left",
        "_is_https",
        "_is_waiting",
        "_method",
        "_receive",
        "_send",
        "_step",
        "context",
        "headers",
        "is_counted",
        "limits",
        "path",
        "status",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        limits: _Limits,
        step: Callable[[int], None],
    ) -> None:
        self._began = time.perf_counter()
        self.path: str = scope["path"]
        self._method: str = scope["method"]
        self._is_https: bool = scope.get("scheme") == "https"
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.status = 0
        self._receive = receive
        self._send = send
        self.limits = limits
        self._body_bytes_left = limits.body_bytes
        self._step = step
        self._is_waiting = False
        self.is_counted = True
        self.context = RequestContext(request_id_of(self.headers))

    def scope_of(self, scope: Scope, root_path: str) -> Scope:
        """Return the scope that the application sees.

        Nothing here refers to it: all that hangs on it is freed with the request, and does not
        wait for the garbage collector.
        """
        # HEAD is answered like GET (RFC 9110, section 9.3.2); the server leaves the body out.
        method = "GET" if self._method == "HEAD" else self._method
        return {
            **scope,
            "method": method,
            "path": _whole_path(self.path, root_path),
            "root_path": root_path,
            "pricebook.exchange": self,
        }

    async def receive(self) -> Message:
        """Pass on a piece of the body; refuse the one that goes past the limit."""
        message = await self._wait_for_client()
        self._body_bytes_left -= len(message.get("body", b""))
        if self._body_bytes_left < 0:
            raise TooLarge
        return message

    async def _wait_for_client(self) -> Message:
        """Take no place meanwhile: whoever sends slowly is no load, and shuts nobody out."""
        if not self.is_counted or self._is_waiting:
            return await self._receive()
        self._is_waiting = True
        self._step(-1)
        try:
            return await self._receive()
        finally:
            self._is_waiting = False
            if self.is_counted:
                self._step(1)

    async def send(self, message: Message) -> None:
        """Pass on a piece of the answer; its head carries what every head does."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self._additions(message["headers"])]
        await self._send(message)

    def _additions(self, own: Iterable[Header]) -> Iterable[Header]:
        yield (b"x-request-id", self.context.request_id.encode())
        yield (b"server-timing", b"app;dur=%.1f" % self._milliseconds())
        yield from self.context.headers
        if self._is_https:
            yield TRANSPORT_SECURITY
        names = {name for name, _ in own}
        if names.isdisjoint(_SECURED):
            yield from SECURITY_HEADERS
        else:
            yield from (header for header in SECURITY_HEADERS if header[0] not in names)

    @property
    def is_head(self) -> bool:
        """Whether no body is wanted, so that none need be made."""
        return self._method == "HEAD"

    def step_aside(self) -> None:
        """Count among the requests under way no longer: it has ended, or streams from now on."""
        if self.is_counted:
            self.is_counted = False
            if not self._is_waiting:
                self._step(-1)

    def count(self, route: str) -> None:
        """Count it for those who watch over the service."""
        note_request(self._method, route, self.status, time.perf_counter() - self._began)

    def log(self) -> None:
        """Write the request's line; queries stay out of it, since people put secrets there."""
        log.info(
            "request",
            method=self._method,
            path=self.path,
            status=self.status,
            ms=round(self._milliseconds(), 1),
        )

    def _milliseconds(self) -> float:
        return (time.perf_counter() - self._began) * 1000
