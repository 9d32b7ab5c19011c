"""Who asks, under which request id: what logs, problems and events say of the request.

What a worker does on a request's behalf has such a context, too.
"""

import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from secrets import token_hex
from uuid import UUID

_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{8,128}")


@dataclass(slots=True)
class RequestContext:
    """Filled in as the request is understood."""

    request_id: str
    """Empty where nobody knows which request it was."""
    user_id: UUID | None = None
    # What else log lines name: the delivery, say, or the job.
    about: Mapping[str, str] = field(default_factory=dict)
    trace_id: str | None = None
    span_id: str | None = None
    # What the answer carries besides its own headers, whoever writes it.
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


_current: ContextVar[RequestContext | None] = ContextVar("pricebook_request", default=None)


def current_context() -> RequestContext | None:
    """Return the request under way, if any."""
    return _current.get()


def enter_context(context: RequestContext) -> None:
    """Make `context` the current one for this task and those it starts."""
    _current.set(context)


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """Take the client's, if it is sane; else make one."""
    given = headers.get(b"x-request-id")
    if given is not None and _SANE_ID.fullmatch(given):
        return given.decode()
    return token_hex(16)
