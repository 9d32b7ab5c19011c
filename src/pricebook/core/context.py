"""Who asks, under which request id: what logs, problems and events say of the request.

What a worker does on a request's behalf has such a context, too.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from uuid import UUID


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
