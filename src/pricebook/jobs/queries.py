"""Selects over jobs and their logs: every read by a person begins at what that person may see."""

from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Select,
    Text,
    Uuid,
    bindparam,
    func,
    literal,
    select,
    true,
    tuple_,
)

from pricebook.core.leases import is_free
from pricebook.core.principal import Principal, Role
from pricebook.core.reading import Compiled, columns_of, compiled_once
from pricebook.jobs.models import Job, JobLogLine
from pricebook.jobs.schemas import JobListing, JobOut


def _seen_by(reader: Principal) -> tuple[ColumnElement[bool], ...]:
    """Their own jobs, and all for admins; none that their role could not ask for."""
    roles = [role.value for role in Role if reader.role.includes(role)]
    within_role = Job.role == func.any(literal(roles, ARRAY(Text())))
    return (within_role,) if reader.is_admin else (within_role, Job.owner_id == reader.user_id)


def visible_to(reader: Principal) -> Select[*tuple[Any, ...]]:
    """Select what `JobOut` shows of the jobs that someone may see."""
    return select(*columns_of(JobOut, Job)).where(*_seen_by(reader))


def page_for(
    reader: Principal, listing: JobListing, before: UUID | None
) -> Select[*tuple[Any, ...]]:
    """Select one page, newest first, and one more to tell whether another follows."""
    page = visible_to(reader).order_by(Job.id.desc()).limit(listing.limit + 1)
    if before is not None:
        page = page.where(Job.id < before)
    if listing.status is not None:
        page = page.where(Job.status == listing.status)
    if listing.kind is not None:
        page = page.where(Job.kind == listing.kind)
    return page


def for_change(caller: Principal, job_id: UUID) -> Select[Job, bool]:
    """Select a job, locked, and whether no worker holds it."""
    chosen = select(Job, is_free(Job)).where(*_seen_by(caller), Job.id == job_id)
    return chosen.with_for_update()


def inputs_of(caller: Principal, job_id: UUID) -> Select[list[str]]:
    """Select the names of the files that a job cannot start without."""
    return select(Job.inputs).where(*_seen_by(caller), Job.id == job_id)


@compiled_once
def watched() -> Select[*tuple[Any, ...]]:
    """Select what `JobOut` shows of the jobs `ids`, and the place of each one's last log line."""
    last = (
        select(JobLogLine.lease, JobLogLine.number)
        .where(JobLogLine.job_id == Job.id)
        .order_by(JobLogLine.lease.desc(), JobLogLine.number.desc())
        .limit(1)
        .lateral("last")
    )
    place = (last.c.lease.label("log_lease"), last.c.number.label("log_number"))
    ids = bindparam("ids", type_=ARRAY(Uuid()))
    jobs = select(*columns_of(JobOut, Job), *place).outerjoin(last, true())
    return jobs.where(Job.id == func.any(ids))


def log_after(job_id: UUID, place: tuple[int, int], limit: int) -> Compiled:
    """Select the next lines of a log after the one at `place`."""
    position = tuple_(JobLogLine.lease, JobLogLine.number)
    lines = (
        select(JobLogLine.lease, JobLogLine.number, JobLogLine.text, JobLogLine.written_at)
        .where(JobLogLine.job_id == job_id, position > tuple_(*map(literal, place)))
        .order_by(JobLogLine.lease, JobLogLine.number)
        .limit(limit)
    )
    return Compiled(lines)
