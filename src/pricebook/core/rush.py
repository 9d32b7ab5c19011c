"""Requests past those that a process can have under way are refused, at as little cost as can be.

The dearer it is to say no, the less is left for those who are answered; under twice the load that a
process can carry it says so more often than it answers. So the answer is written once, and is no
line of its own in the log: each second's refusals are counted in one.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

import structlog
from starlette.types import Receive, Scope, Send

from pricebook.core.browser_headers import SECURITY_HEADERS, TRANSPORT_SECURITY
from pricebook.core.context import request_id_of
from pricebook.core.errors import Unavailable
from pricebook.core.metrics import note_request
from pricebook.core.problems import problem
from pricebook.core.traffic import Traffic

# An orchestrator that gets no answer here ends the process, which helps nobody in a rush.
_ANSWERED_ALL_THE_SAME: Final = ("/health/live", "/ping", "/metrics")
_TELL_SECONDS: Final = 1.0
_NO_REQUEST_ID: Final = b'"request_id":""'
_STATUS: Final = Unavailable.status

ADMITTED: Final = "pricebook.admitted"
"""What the scope of a request says that has been counted where it came in."""

log = structlog.get_logger(__name__)


def field_lines(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Write header or trailer fields as HTTP/1.1 does (RFC 9112, section 5)."""
    return b"".join(b"%s: %s\r\n" % field for field in fields)


class Rush:
    """Knows when there is one, and refuses while it lasts."""

    def __init__(self, most: int, traffic: Traffic) -> None:
        """Let `most` requests be under way at once."""
        self._most = most
        self._traffic = traffic
        self._untold = 0
        answer = problem(Unavailable("Too many requests at once; try again."))
        self._headers = [
            *(header for header in answer.raw_headers if header[0] != b"content-length"),
            (b"server-timing", b"app;dur=0.0"),
            *SECURITY_HEADERS,
        ]
        self._head = field_lines(self._headers)
        before, _, after = bytes(answer.body).partition(_NO_REQUEST_ID)
        self._before, self._after = before + _NO_REQUEST_ID[:-1], b'"' + after

    def admits(self, path: str) -> bool:
        """Count a request to `path` as under way, unless it is one too many.

        It is counted here, and not where it begins to be answered: by then as many more may have
        been let in as had come at the same moment.
        """
        if self._traffic.under_way >= self._most and not path.endswith(_ANSWERED_ALL_THE_SAME):
            return False
        self._traffic.under_way += 1
        return True

    async def refuse(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer 503 with `Retry-After`."""
        headers, body = self._own(scope)
        await send(
            {
                "type": "http.response.start",
                "status": _STATUS,
                "headers": [*self._headers, *headers],
            }
        )
        await send({"type": "http.response.body", "body": body})
        self._note(scope)

    def refusal(self, scope: Scope) -> tuple[bytes, bytes]:
        """Return the same answer as lines of HTTP/1.1, all but the last of its head, and a body."""
        headers, body = self._own(scope)
        self._note(scope)
        return self._head + field_lines(headers), body

    def _own(self, scope: Scope) -> tuple[list[tuple[bytes, bytes]], bytes]:
        request_id = request_id_of(dict(scope["headers"])).encode()
        body = b"%s%s%s" % (self._before, request_id, self._after)
        headers = [(b"content-length", b"%d" % len(body)), (b"x-request-id", request_id)]
        if scope.get("scheme") == "https":
            headers.append(TRANSPORT_SECURITY)
        return headers, body

    def _note(self, scope: Scope) -> None:
        note_request(scope["method"], "none", _STATUS, 0.0)
        if not self._untold:
            asyncio.get_running_loop().call_later(_TELL_SECONDS, self._tell)
        self._untold += 1

    def _tell(self) -> None:
        log.warning("too many requests at once", refused=self._untold, within_seconds=_TELL_SECONDS)
        self._untold = 0
