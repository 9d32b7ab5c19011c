"""Selects over what is still to be done, whoever's it is."""

from datetime import timedelta

from sqlalchemy import Float, Select, func, inspect, literal, select, union_all

from pricebook.core.deliveries import Delivery, Status
from pricebook.core.outbox import EventRecord

EVENTS = "events"
MAILS = "mails"


def waiting() -> Select[str, float]:
    """Select, by kind, for how many seconds that has been due which waits longest, if any does.

    Each kind costs a look or two into an index, however much waits.
    """
    oldest_event = (
        select(EventRecord.occurred_at)
        .where(EventRecord.expanded_at.is_(None))
        .order_by(EventRecord.transaction_id, EventRecord.id)
        .limit(1)
    )
    kinds = {EVENTS: oldest_event, **{name: table.waiting_since() for name, table in _tables()}}
    rows = [
        select(literal(kind).label("kind"), since.scalar_subquery().label("since"))
        for kind, since in kinds.items()
    ]
    found = union_all(*rows).subquery()
    age = func.extract("epoch", func.now() - found.c.since).cast(Float)
    return select(found.c.kind, age.label("seconds")).where(found.c.since.is_not(None))


def died_within(period: timedelta) -> Select[str, int]:
    """Count, by kind, the deliveries that were given up in the time that has just passed."""
    rows = [
        select(literal(kind).label("kind"), func.count().label("count")).where(
            table.status == Status.DEAD, table.settled_at > func.now() - period
        )
        for kind, table in _tables()
    ]
    found = union_all(*rows).subquery()
    return select(found.c.kind, found.c.count).where(found.c.count > 0)


def _tables() -> list[tuple[str, type[Delivery]]]:
    """Return the kinds of deliveries; none is known here, each slice brings its own."""
    tables = {inspect(table).local_table.description: table for table in Delivery.__subclasses__()}
    return sorted(tables.items())
