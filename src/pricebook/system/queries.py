"""Selects over what is still to be done, whoever's it is."""

from datetime import timedelta
from typing import Any

from sqlalchemy import Float, Select, func, inspect, literal, select, union_all

from pricebook.core.deliveries import Delivery, Status, is_pending
from pricebook.core.leases import is_free
from pricebook.core.outbox import EventRecord
from pricebook.jobs.models import Job
from pricebook.jobs.status import Status as JobStatus

EVENTS = "events"
MAILS = "mails"
JOBS = "jobs"

COUNTED_AT_MOST = 10_000
"""Whoever wants to know how much waits learns no more than that it is at least so much."""

# Whatever is under way has been first in line.
_LOOKED_AT = 100


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


def pending() -> Select[*tuple[Any, ...]]:
    """Count, by kind, what is still to be done, due or not."""
    kinds: dict[str, Select[Any]] = {
        EVENTS: select(EventRecord.id).where(EventRecord.expanded_at.is_(None)),
        JOBS: select(Job.id).where(Job.is_unfinished()),
        **{name: select(table.id).where(is_pending(table)) for name, table in _tables()},
    }
    rows = [
        select(
            literal(kind).label("kind"),
            select(func.count())
            .select_from(what.limit(COUNTED_AT_MOST).subquery())
            .scalar_subquery()
            .label("count"),
        )
        for kind, what in kinds.items()
    ]
    found = union_all(*rows).subquery()
    return select(found.c.kind, found.c.count)


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


def waiting_jobs() -> Select[float | None, bool]:
    """Select for how many seconds the job has been due that is next, and whether any is under way.

    It costs a look at the head of the line, however long it is.
    """
    line = (
        select(Job.due_at, Job.leased_until, is_free(Job).label("is_free"))
        .where(Job.is_unfinished())
        .order_by(Job.rank_at, Job.id)
        .limit(_LOOKED_AT)
        .subquery()
    )
    since = func.greatest(line.c.due_at, line.c.leased_until)
    age = func.extract("epoch", func.now() - func.min(since)).cast(Float)
    waits = select(age).where(line.c.is_free, line.c.due_at <= func.now())
    is_busy = select(line.c.due_at).where(~line.c.is_free).exists()
    return select(waits.scalar_subquery().label("seconds"), is_busy.label("is_busy"))


def jobs_failed_within(period: timedelta) -> Select[int]:
    """Count the jobs that failed in the time that has just passed."""
    recent = (Job.finished_at > func.now() - period, Job.status == JobStatus.FAILED)
    return select(func.count().label("count")).select_from(Job).where(*recent)


def _tables() -> list[tuple[str, type[Delivery]]]:
    """Return the kinds of deliveries; none is known here, each slice brings its own."""
    tables = {inspect(table).local_table.description: table for table in Delivery.__subclasses__()}
    return sorted(tables.items())
