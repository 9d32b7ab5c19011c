"""What a worker writes down about jobs: that it took one, how far it is, and how it ended."""

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Select, Text, Update, func, literal, select, update
from sqlalchemy.dialects import postgresql

from pricebook.core.leases import Lease, arrays, is_free, leased
from pricebook.jobs.models import Job, JobLogLine
from pricebook.jobs.status import Status
from pricebook.users.models import User

SHORT_SECONDS = 10.0
"""What may take no longer than this is short work, for which each worker keeps a place."""

_AT_THE_START = {"phase": None, "done": 0, "total": None, "rate": None}


def claimed(kinds: Collection[str], *, is_short: bool, lease_seconds: float) -> Update:
    """Lease the most urgent job that nobody holds, to start it from the beginning."""
    waiting = (
        select(Job.id)
        .where(
            Job.is_unfinished(), is_free(Job), Job.due_at <= func.now(), Job.kind.in_(list(kinds))
        )
        .order_by(Job.rank_at, Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if is_short:
        waiting = waiting.where(Job.expected_seconds <= SHORT_SECONDS)
    chosen = waiting.cte("chosen").prefix_with("MATERIALIZED")
    begun = {
        "status": Status.RUNNING,
        "attempts": Job.attempts + 1,
        "started_at": func.now(),
        **_AT_THE_START,
    }
    return leased(Job, lease_seconds).where(Job.id == chosen.c.id).values(begun).returning(Job)


def role_of(owner_id: UUID | None) -> Select[str]:
    """Select the role of someone who may still act."""
    return select(User.role).where(User.id == owner_id, User.disabled_at.is_(None))


def _held(lease: Lease) -> Update:
    is_mine = (Job.id == lease.id, Job.lease == lease.lease, Job.leased_until.is_not(None))
    return update(Job).where(*is_mine)


def beaten(lease: Lease, lease_seconds: float, **progress: Any) -> Update:  # noqa: ANN401 -- columns of any type
    """Keep the lease and write down how far it is; return when it was asked to stop."""
    until = func.now() + timedelta(seconds=lease_seconds)
    kept = _held(lease).values(leased_until=until, **progress)
    return kept.returning(Job.cancel_requested_at)


def ended(lease: Lease, status: Status, **values: Any) -> Update:  # noqa: ANN401 -- columns of any type
    """Write down how a job ended, if the lease is still held; return its kind and owner.

    And when it was asked to stop: until this is written it may be.
    """
    over = _held(lease).values(
        status=status, leased_until=None, finished_at=func.clock_timestamp(), phase=None, **values
    )
    return over.returning(Job.kind, Job.owner_id, Job.cancel_requested_at)


def put_back(lease: Lease, *, wait_seconds: float, is_counted: bool) -> Update:
    """Let another worker start it again, after a while; return its id if the lease is held."""
    back = _held(lease).values(
        status=Status.QUEUED,
        leased_until=None,
        due_at=func.now() + timedelta(seconds=wait_seconds),
        attempts=Job.attempts - (0 if is_counted else 1),
        **_AT_THE_START,
    )
    return back.returning(Job.id)


def logged(lease: Lease, lines: Mapping[int, str]) -> postgresql.Insert:
    """Write numbered lines to the log, however many; those that are there already stay."""
    given = arrays(("number", BigInteger(), list(lines)), ("text", Text(), list(lines.values())))
    rows = select(literal(lease.id), literal(lease.lease), given.c.number, given.c.text)
    return (
        postgresql.insert(JobLogLine)
        .from_select(["job_id", "lease", "number", "text"], rows)
        .on_conflict_do_nothing()
    )
