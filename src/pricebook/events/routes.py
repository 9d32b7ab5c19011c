"""The log over HTTP: in pages, and as it grows."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, cast

from fastapi import Depends, Header, Query, Request, Response, status

from pricebook.core.current import Viewer, bearer_token
from pricebook.core.pagination import Page, link_next, written_page
from pricebook.core.reading import ReadPool
from pricebook.core.routing import resource
from pricebook.core.session import Reads, lagging_pool
from pricebook.core.stream_responses import EventStream, documented
from pricebook.core.streaming import Caller, Source, Stream, Streams
from pricebook.events import service
from pricebook.events.errors import PlaceMalformed
from pricebook.events.follower import Follower
from pricebook.events.interest import Interest
from pricebook.events.position import Place, Position, Span
from pricebook.events.schemas import MAX_PLACE_LENGTH, EventOut, EventQuery, StreamQuery

router = resource("/events", "events")

_TRUNCATED = b"event: log.truncated\ndata: {}\n\n"
_EXAMPLE = (
    "retry: 1500\n\nid: 84121.\n\nid: 84123..84122.019a9e6f1c2b7d3e8f40515263748596\n"
    'event: item.deleted\ndata: {"id":"019a9e6f-1c2b-7d3e-8f40-515263748596","type":"item.deleted",'
    '"occurred_at":"2026-11-22T09:30:00.120331Z","data":{"sku":"HAM-1","tags":["tools"],'
    '"item_id":"019a9e5d-77aa-7c10-9b1e-2f3a4b5c6d7e"}}\n\n'
)


@router.get("", response_model=Page[EventOut], response_model_exclude_unset=True)
async def list_events(
    reader: Viewer, reads: Reads, query: Annotated[EventQuery, Query()], request: Request
) -> Response:
    """Return a page of what has happened; viewers and editors read of items, admins all."""
    # Forwards the log is read by snapshots, and one of a replica does not tell what still runs.
    backwards = query.sort != "occurred_at"
    pool = lagging_pool(request, reader) if backwards else reads
    rows, cursor = await service.list_events(pool, Interest.of(reader, query), query)
    response = written_page((row["json"] for row in rows), cursor)
    link_next(request, response, cursor)
    return response


async def place_to_resume(
    query: Annotated[StreamQuery, Query()],
    last_event_id: Annotated[str | None, Header(max_length=MAX_PLACE_LENGTH)] = None,
) -> Place | None:
    """Return the place that the client has reached, if it says one.

    Raises:
        PlaceMalformed: It is none of ours.

    """
    given = {"header/last-event-id": last_event_id, "query/last_event_id": query.last_event_id}
    for pointer, text in given.items():
        if text:
            try:
                return Place.parse(text)
            except ValueError as error:
                raise PlaceMalformed(pointer=pointer) from error
    return None


@router.get(
    "/stream",
    status_code=status.HTTP_200_OK,
    response_class=EventStream,
    responses=documented(_EXAMPLE, EventOut.__name__),
)
async def stream_events(
    reader: Viewer,
    reads: Reads,
    query: Annotated[StreamQuery, Query()],
    resumed: Annotated[Place | None, Depends(place_to_resume)],
    request: Request,
) -> Response:
    """Tell of each event as it is committed, by server-sent events.

    A stream ends after some minutes, and a client that comes back with `Last-Event-ID` misses
    nothing. `log.truncated` says that what it missed is no longer kept: read the list anew.
    """
    follower = cast("Follower", request.app.state.follower)
    source = _source(reads, follower, Interest.of(reader, query), resumed)
    caller = Caller(reader, bearer_token(request) or "")
    return EventStream(cast("Streams", request.app.state.streams), caller, source)


def _source(
    reads: ReadPool, follower: Follower, interest: Interest, resumed: Place | None
) -> Source:
    @asynccontextmanager
    async def source(stream: Stream) -> AsyncIterator[AsyncIterator[bytes]]:
        position = await follower.join(stream, interest)
        stream.beat = lambda: _at(follower.place or position)
        try:
            yield _beginning(reads, interest, resumed, position)
        finally:
            follower.leave(stream, interest)

    return source


async def _beginning(
    reads: ReadPool, interest: Interest, resumed: Place | None, position: Position
) -> AsyncIterator[bytes]:
    """Yield what the stream says before it is live at `position`."""
    if resumed is not None:
        if await service.is_cut_off(reads, resumed, position):
            yield _TRUNCATED
        if resumed.position.precedes(position):
            async for chunk in service.backlog(reads, interest, Span(resumed, position)):
                yield chunk
    yield _at(position)


def _at(place: Place | Position) -> bytes:
    """Tell the client its place, so that it may resume there though nothing has happened."""
    return f"id: {place}\n\n".encode()
