"""Traces, by OpenTelemetry: what a request sets off, in whichever process and however much later.

Off unless the settings name a collector. Then no span is made, the SDK is not even imported, and
hot paths ask one question. A trace goes on over the outbox as a `traceparent` (W3C Trace Context)
in the row; whoever works on the row begins its spans under it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from threading import Thread

import structlog
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_span_id,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from pricebook.core.context import RequestContext, current_context
from pricebook.core.operating_groups import TracingSettings

__all__ = ["INVALID_SPAN", "Span", "SpanKind"]

Attributes = Mapping[str, str | int]

_HEADER = "traceparent"
_FORMAT = TraceContextTextMapPropagator()
# What machines ask each second would hide what people ask.
_UNTRACED = ("/health/live", "/health/ready", "/ping", "/metrics")
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_SERVER_ERROR = 500
# A mail may tell of thousands of changes.
_MOST_LINKS = 100

log = structlog.get_logger(__name__)


class _Switch:
    tracer: Tracer | None = None


_switch = _Switch()


def is_on() -> bool:
    """Whether there is a collector."""
    return _switch.tracer is not None


@asynccontextmanager
async def tracing(
    settings: TracingSettings, service: str, flush_seconds: float
) -> AsyncIterator[None]:
    """Trace what this process does as `service`, if the settings name a collector.

    At the end, what is not sent yet is sent for `flush_seconds` at the most.
    """
    if settings.url is None:
        yield
        return
    from pricebook.core.span_export import make_provider  # noqa: PLC0415 -- the SDK is for those who trace

    provider = make_provider(settings, service)
    before, _switch.tracer = _switch.tracer, provider.get_tracer("pricebook")
    try:
        yield
    finally:
        _switch.tracer = before
        await _within(flush_seconds, provider.shutdown)


async def _within(seconds: float, work: Callable[[], None]) -> None:
    """Wait so long for work in a thread; one that holds up nobody's end, if it takes longer."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def run() -> None:
        work()
        with suppress(RuntimeError):  # the loop is gone
            loop.call_soon_threadsafe(done.set)

    Thread(target=run, daemon=True).start()
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await done.wait()


class RequestTrace:
    """The span of a request, and of all that happens on its behalf until it ends."""

    __slots__ = ("_context", "_method", "_span", "_token")

    def __init__(
        self, tracer: Tracer, method: str, traceparent: bytes | None, context: RequestContext
    ) -> None:
        """Begin it; under the client's, if the client has one."""
        self._method, self._context = method, context
        parent = _context_of(traceparent.decode("latin-1") if traceparent else None)
        self._span = tracer.start_span(
            method,
            parent,
            SpanKind.SERVER,
            {"http.request.method": method, "pricebook.request_id": context.request_id},
        )
        self._token = attach(set_span_in_context(self._span))
        _note(context, self._span)

    def end(self, route: str | None, status: int) -> None:
        """End it, with what has been learnt meanwhile.

        The route is named and not the path, which may hold what is nobody's business.
        """
        detach(self._token)
        span = self._span
        if span.is_recording():
            if route is not None:
                span.update_name(f"{self._method} {route}")
                span.set_attribute("http.route", route)
            if status:
                span.set_attribute("http.response.status_code", status)
            if self._context.user_id is not None:
                span.set_attribute("user.id", str(self._context.user_id))
            if status >= _SERVER_ERROR:
                fail(span, str(status))
        span.end()


def begin_request(
    method: str, path: str, headers: Mapping[bytes, bytes], context: RequestContext
) -> RequestTrace | None:
    """Begin the span of a request, if it is to have one."""
    if _switch.tracer is None or path.endswith(_UNTRACED):
        return None
    known = method if method in _METHODS else "_OTHER"
    return RequestTrace(_switch.tracer, known, headers.get(b"traceparent"), context)


@contextmanager
def span(
    name: str,
    kind: SpanKind,
    causes: Sequence[str | None] = (),
    attributes: Attributes | None = None,
) -> Iterator[Span]:
    """Make a span, and have it be the current one; `causes` are what led to it, by `traceparent`.

    It belongs to the trace of the first cause that is sampled, and has links to the others. Without
    a cause it begins a trace.
    """
    if _switch.tracer is None:
        yield INVALID_SPAN
        return
    known = _distinct(causes)
    links = [Link(other) for other in known[1 : 1 + _MOST_LINKS]]
    parent = _under(known[0]) if known else Context()
    made = _switch.tracer.start_span(name, parent, kind, attributes, links)
    token = attach(set_span_in_context(made, Context()))
    if context := current_context():
        _note(context, made)
    try:
        yield made
    except BaseException as error:
        # Its name alone: what it says may hold anything.
        fail(made, type(error).__name__)
        raise
    finally:
        detach(token)
        made.end()


@contextmanager
def batch(name: str, causes: Sequence[str | None], attributes: Attributes) -> Iterator[None]:
    """Make a span in each of the traces that led to this work, which is done for all at once.

    What is done in it belongs to the first that is sampled; the others have a link to there.
    """
    known = _distinct(causes)
    if _switch.tracer is None or not known:
        yield
        return
    first, *others = known
    with (
        span(name, SpanKind.CONSUMER, [_written(first)], attributes) as leading,
        ExitStack() as ending,
    ):
        link = [Link(leading.get_span_context())]
        for other in others:
            if other.trace_flags.sampled:
                made = _switch.tracer.start_span(
                    name, _under(other), SpanKind.CONSUMER, attributes, link
                )
                ending.callback(made.end)
        yield


def fail(span: Span, error_type: str) -> None:
    """Mark a span as failed, by the kind of error alone."""
    span.set_attribute("error.type", error_type)
    span.set_status(Status(StatusCode.ERROR))


def current_traceparent() -> str | None:
    """Return what a row or a request carries on of the present trace; null if there is none."""
    if _switch.tracer is None:
        return None
    context = get_current_span().get_span_context()
    return _written(context) if context.is_valid else None


def outgoing_headers() -> dict[str, str]:
    """Return the headers that carry the present trace on."""
    traceparent = current_traceparent()
    return {} if traceparent is None else {_HEADER: traceparent}


def start_statement(name: str, attributes: Attributes) -> Span | None:
    """Begin the span of an SQL statement, if it is run on behalf of something that is recorded."""
    if _switch.tracer is None or not get_current_span().is_recording():
        return None
    return _switch.tracer.start_span(name, None, SpanKind.CLIENT, attributes)


def _note(context: RequestContext, span: Span) -> None:
    """Have log lines name the span."""
    found = span.get_span_context()
    if found.is_valid:
        context.trace_id = format_trace_id(found.trace_id)
        context.span_id = format_span_id(found.span_id)


def _distinct(causes: Iterable[str | None]) -> list[SpanContext]:
    """Return what is known of causes, each once, the sampled ones first."""
    found = [
        get_current_span(_context_of(cause)).get_span_context()
        for cause in dict.fromkeys(causes)
        if cause is not None
    ]
    valid = [one for one in found if one.is_valid]
    return sorted(valid, key=lambda one: not one.trace_flags.sampled)


def _context_of(traceparent: str | None) -> Context:
    return _FORMAT.extract({_HEADER: traceparent} if traceparent else {}, Context())


def _under(parent: SpanContext) -> Context:
    return _context_of(_written(parent))


def _written(context: SpanContext) -> str:
    flags = f"{context.trace_flags:02x}"
    return f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-{flags}"
