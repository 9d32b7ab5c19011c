"""What can be done with the log: read it in pages, from any place on, and prune it."""

from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.core.pagination import CursorInvalid, decode_cursor, encode_cursor
from pricebook.core.reading import ReadPool, Row
from pricebook.events import queries
from pricebook.events.interest import Interest
from pricebook.events.position import BEGINNING, Place, Position, Span
from pricebook.events.schemas import EventQuery

_PAGE = 500
_MARGIN_MILLISECONDS = 1_000


async def snapshot(reads: ReadPool) -> Position:
    """Return where a reader stands who has seen everything that there is now."""
    return Position.of_snapshot(await reads.value(queries.snapshot()))


async def list_events(
    reads: ReadPool, interest: Interest, query: EventQuery
) -> tuple[list[Row], str | None]:
    """Return a page, and the cursor of the next one if there is one; each row has its `json`.

    Raises:
        CursorInvalid: The cursor is not of a list in this order.

    """
    filters = interest.values()
    if query.since is not None:
        milliseconds = int(query.since.timestamp() * 1000) - _MARGIN_MILLISECONDS
        filters |= {"since": query.since, "since_id": queries.first_id_of(milliseconds)}
    if query.sort == "occurred_at":
        return await _list_forwards(reads, interest, query, filters)
    return await _list_backwards(reads, interest, query, filters)


async def _list_forwards(
    reads: ReadPool, interest: Interest, query: EventQuery, filters: dict[str, Any]
) -> tuple[list[Row], str | None]:
    """Read on from a place: what commits while someone pages is on a later page."""
    start = _read_place(query.cursor) if query.cursor else BEGINNING
    now = await snapshot(reads)
    if query.cursor and not start.position.precedes(now):
        raise CursorInvalid(pointer="query/cursor")
    span = Span(start, now)
    rows = await _rows_within(span, reads, interest, filters, query.limit + 1)
    if len(rows) <= query.limit:
        return rows, None
    rows = rows[: query.limit]
    *_, place = span.places(keys(rows))
    return rows, encode_cursor(query.sort, [place])


def _read_place(cursor: str) -> Place:
    (text,) = decode_cursor(cursor, "occurred_at", 1)
    try:
        return Place.parse(text)
    except (TypeError, ValueError) as error:
        raise CursorInvalid(pointer="query/cursor") from error


async def _list_backwards(
    reads: ReadPool, interest: Interest, query: EventQuery, filters: dict[str, Any]
) -> tuple[list[Row], str | None]:
    statement = queries.newest_events(
        frozenset(filters), for_admin=interest.is_admin, is_first=query.cursor is None
    )
    end = {} if query.cursor is None else _read_end(query.cursor)
    rows = await reads.rows(statement, limit=query.limit + 1, **filters, **end)
    if len(rows) <= query.limit:
        return rows, None
    rows = rows[: query.limit]
    return rows, encode_cursor(query.sort, keys(rows)[-1])


def _read_end(cursor: str) -> dict[str, Any]:
    transaction_id, event_id = decode_cursor(cursor, "-occurred_at", 2)
    try:
        place = Place.parse(f"{transaction_id + 1}..{transaction_id}.{UUID(event_id).hex}")
    except (AttributeError, TypeError, ValueError) as error:
        raise CursorInvalid(pointer="query/cursor") from error
    return {"before": place.transaction_id, "before_id": place.event_id}


async def backlog(reads: ReadPool, interest: Interest, span: Span) -> AsyncIterator[bytes]:
    """Yield the events of a span as a stream sends them, a page at a time."""
    is_whole = False
    while not is_whole:
        rows = await _rows_within(span, reads, interest, interest.values(), _PAGE)
        is_whole = len(rows) < _PAGE
        if rows:
            places = list(span.places(keys(rows)))
            told = zip(places, rows, strict=True)
            yield b"".join(frame(place, row["type"], row["json"]) for place, row in told)
            span = Span(Place.parse(places[-1]), span.now)


async def _rows_within(
    span: Span, reads: ReadPool, interest: Interest, filters: dict[str, Any], limit: int
) -> list[Row]:
    statement = queries.events_between(frozenset(filters), for_admin=interest.is_admin)
    return await reads.rows(statement, limit=limit, **filters, **span.bounds())


def keys(rows: Sequence[Row]) -> list[tuple[int, UUID]]:
    """Return what the order of the log goes by."""
    return [(row["transaction_id"], row["id"]) for row in rows]


def frame(place: str, event_type: str, json: str) -> bytes:
    """Write one server-sent event; PostgreSQL writes JSON on one line."""
    return f"id: {place}\nevent: {event_type}\ndata: {json}\n\n".encode()


async def is_cut_off(reads: ReadPool, place: Place, now: Position) -> bool:
    """Whether events after `place` may be gone: pruned, or never in this database.

    Pruning leaves the last event that is due, so that the log tells how far it has gone.
    """
    if not place.position.precedes(now):
        return True
    oldest = await reads.row(queries.oldest_event())
    return oldest is not None and not place.has_read(oldest["transaction_id"], oldest["id"])


async def prune(session: AsyncSession, days: int) -> int:
    """Delete up to 1,000 events that are older and carried to their receivers, the oldest first.

    The first one that has to stay stops it; see `queries.pruned`.
    """
    return len((await session.scalars(queries.pruned(days))).all())
