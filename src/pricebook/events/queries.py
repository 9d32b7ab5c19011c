"""What is read of the log: pure functions that return a `Select`."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Select,
    Text,
    Uuid,
    all_,
    any_,
    bindparam,
    delete,
    func,
    literal_column,
    select,
    tuple_,
    union_all,
)
from sqlalchemy import cast as cast_sql
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.dml import ReturningDelete

from pricebook.core.outbox import EventRecord, TransactionId
from pricebook.core.reading import as_json, compiled_once

_PUBLIC: tuple[InstrumentedAttribute[Any], ...] = (
    EventRecord.id,
    EventRecord.type,
    EventRecord.occurred_at,
    EventRecord.payload,
)
_NAMES: Mapping[str, str] = {"payload": "data"}
_XIDS = ARRAY(TransactionId)
_TAGS = EventRecord.payload["tags"]

PUBLIC_JSON = as_json(_PUBLIC, _NAMES).label("json")
ADMIN_JSON = as_json((*_PUBLIC, EventRecord.actor_id), _NAMES).label("admin_json")

_FILTERS: dict[str, ColumnElement[bool]] = {
    "types": EventRecord.type == any_(bindparam("types", type_=ARRAY(Text()))),
    "tags": _TAGS.has_any(bindparam("tags", type_=ARRAY(Text()))),
    "items": EventRecord.subject_id == any_(bindparam("items", type_=ARRAY(Uuid()))),
    "since": EventRecord.occurred_at >= bindparam("since", type_=EventRecord.occurred_at.type),
    # Ids begin with the time, too: by them PostgreSQL finds the first one without searching.
    "since_id": EventRecord.id >= bindparam("since_id", type_=Uuid()),
}

PRUNED_AT_ONCE = 1_000

# Another cluster numbers its transactions anew, and another table has gone back in time. A standby
# that takes over is the same log.
_LOG = "left(md5((pg_control_system()).system_identifier || '.' || 'events'::regclass::oid), 8)"
_SNAPSHOT: ColumnElement[str] = literal_column(f"{_LOG} || '-' || pg_current_snapshot()::text")

_ORDER = (EventRecord.transaction_id, EventRecord.id)


def _xid(name: str) -> ColumnElement[int]:
    return bindparam(name, type_=TransactionId())


def _columns(*, for_admin: bool, for_all: bool) -> list[ColumnElement[Any]]:
    """Return the place of an event, what it is, and its JSON for whom it is read."""
    columns: list[Any] = [*_ORDER, EventRecord.type]
    if for_all:
        tags = cast_sql(_TAGS, Text).label("tags")
        return [*columns, EventRecord.subject_id, tags, PUBLIC_JSON, ADMIN_JSON]
    return [*columns, ADMIN_JSON.element.label("json") if for_admin else PUBLIC_JSON]


@compiled_once
def snapshot() -> Select[*tuple[Any, ...]]:
    """Select which log this is, and what it looks like now: which transactions have ended."""
    return select(_SNAPSHOT)


@compiled_once
def events_between(
    given: AbstractSet[str], *, for_admin: bool = False, for_all: bool = False
) -> Select[*tuple[Any, ...]]:
    """Select what lies between a place and a later snapshot, in order.

    Takes `limit`, the values of `given`, and

    - of the place: `xmax`, `partial` (the transaction that it lies in) and `partial_id`;
    - of the snapshot: `now_xmax` and `now_running`;
    - `ended`: what was running at the place, and is no longer.

    Each branch reads nothing but its own part of the index: what a long transaction, still
    running, has written already is never looked at.
    """
    columns = _columns(for_admin=for_admin, for_all=for_all)
    branches = (
        (EventRecord.transaction_id >= _xid("xmax"))
        & (EventRecord.transaction_id < _xid("now_xmax"))
        & (EventRecord.transaction_id != all_(bindparam("now_running", type_=_XIDS))),
        EventRecord.transaction_id == any_(bindparam("ended", type_=_XIDS)),
        (EventRecord.transaction_id == _xid("partial"))
        & (EventRecord.id > bindparam("partial_id", type_=Uuid())),
    )
    limit = bindparam("limit", type_=BigInteger())
    filters = [_FILTERS[name] for name in sorted(given)]
    found = union_all(
        *(select(*columns).where(one, *filters).order_by(*_ORDER).limit(limit) for one in branches)
    ).subquery()
    return select(found).order_by(found.c.transaction_id, found.c.id).limit(limit)


@compiled_once
def newest_events(
    given: AbstractSet[str], *, for_admin: bool, is_first: bool
) -> Select[*tuple[Any, ...]]:
    """Take `limit` and the values of `given`; unless `is_first`, `before` and `before_id` too."""
    columns = _columns(for_admin=for_admin, for_all=False)
    statement = select(*columns).where(*(_FILTERS[name] for name in sorted(given)))
    if not is_first:
        end = tuple_(_xid("before"), bindparam("before_id", type_=Uuid()))
        statement = statement.where(tuple_(*_ORDER) < end)
    falling = (column.desc() for column in _ORDER)
    return statement.order_by(*falling).limit(bindparam("limit", type_=BigInteger()))


@compiled_once
def oldest_event() -> Select[*tuple[Any, ...]]:
    """Select the place of the first event that is still there."""
    return select(*_ORDER).order_by(*_ORDER).limit(1)


def first_id_of(milliseconds: int) -> UUID:
    """Return the least UUIDv7 of a moment, in milliseconds since 1970 (RFC 9562, section 5.7)."""
    return UUID(int=max(milliseconds, 0) << 80)


def pruned(days: int) -> ReturningDelete[UUID]:
    """Delete the oldest events that have been carried to their receivers, up to a limit.

    What is deleted is a beginning of the log, but for its last event: whoever has not read that
    far may have missed something, and whoever has, has not.
    """
    is_done = (EventRecord.expanded_at.is_not(None)) & (
        EventRecord.occurred_at < func.now() - timedelta(days=days)
    )
    oldest = (
        select(*_ORDER, is_done.label("is_done"))
        .order_by(*_ORDER)
        .limit(PRUNED_AT_ONCE + 1)
        .subquery()
    )
    place = (oldest.c.transaction_id, oldest.c.id)
    judged = select(
        oldest.c.id,
        func.bool_and(oldest.c.is_done).over(order_by=place, rows=(None, 1)).label("is_past"),
        func.lead(oldest.c.id).over(order_by=place).label("following"),
    ).subquery()
    past = select(judged.c.id).where(judged.c.is_past, judged.c.following.is_not(None))
    return delete(EventRecord).where(EventRecord.id.in_(past)).returning(EventRecord.id)
