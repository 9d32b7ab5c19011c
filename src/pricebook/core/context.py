"""Who asks, under which request id: what logs, problems and events say of the request."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from uuid import UUID


@dataclass(slots=True)
class RequestContext:
    """Filled in as the request is understood."""

    request_id: str
    user_id: UUID | None = None
    # What the answer carries besides its own headers, whoever writes it.
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


_current: ContextVar[RequestContext | None] = ContextVar("pricebook_request", default=None)


def current_context() -> RequestContext | None:
    """Return the request under way, if any."""
    return _current.get()


def enter_context(context: RequestContext) -> None:
    """Make `context` the current one for this task and those it starts."""
    _current.set(context)
