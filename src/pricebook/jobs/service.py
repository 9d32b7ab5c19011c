"""What can be done with jobs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.core.files import FileMissingError, Files
from pricebook.core.outbox import record
from pricebook.core.pagination import Page, id_before, newest_first
from pricebook.core.principal import Principal, Role, Scope
from pricebook.core.queue import expect_jobs
from pricebook.core.reading import Compiled, ReadPool, Row
from pricebook.jobs import queries
from pricebook.jobs.errors import JobBeyondScopes, JobFilesGone, JobNotFound
from pricebook.jobs.events import JobFinished
from pricebook.jobs.models import Job, JobLogLine
from pricebook.jobs.schemas import JobListing
from pricebook.jobs.status import Status

# How much longer work waits for each second that it may take.
_PATIENCE = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """What is to be done."""

    kind: str
    params: Mapping[str, Any]
    expected_seconds: float
    """A guess by its size: short work goes first."""
    role: Role = Role.VIEWER
    """The least role that may have this done; whoever has less does not see it either."""
    scope: Scope = Scope.ITEMS_READ
    """What an API key needs to have it done, cancelled or tried again."""
    files: Sequence[str] = ()
    """Names in `core.files` of what belongs to it, and goes when it is pruned."""
    inputs: Sequence[str] = ()
    """Those of them that must be there when it starts, and starts again."""
    is_told: bool = True
    """Whether its owner is told of the end, by inbox and mail."""


async def enqueue(session: AsyncSession, owner: Principal | None, new: NewJob) -> Job:
    """Add a job: it is there if and only if the session commits, and a worker looks at once.

    Without an owner it is the operators' own.
    """
    job = Job(
        kind=new.kind,
        owner_id=owner.user_id if owner else None,
        role=new.role,
        scope=new.scope,
        params=dict(new.params),
        files=list(new.files),
        inputs=list(new.inputs),
        expected_seconds=new.expected_seconds,
        rank_at=func.now() + _patience(new.expected_seconds),
        is_told=new.is_told,
    )
    job.note_request()
    session.add(job)
    await session.flush()
    expect_jobs(session)
    return job


def _patience(expected_seconds: float) -> timedelta:
    return timedelta(seconds=expected_seconds * _PATIENCE)


async def list_jobs(reads: ReadPool, reader: Principal, listing: JobListing) -> Page[Row]:
    """Return one page of the jobs that someone may see, newest first."""
    page = queries.page_for(reader, listing, id_before(listing.cursor))
    return newest_first(await reads.rows(Compiled(page)), listing.limit)


async def get_job(reads: ReadPool, reader: Principal, job_id: UUID) -> Row:
    """Return what `JobOut` shows of a job.

    Raises:
        JobNotFound: There is none, or it is not for this reader.

    """
    job = await reads.row(Compiled(queries.visible_to(reader).where(Job.id == job_id)))
    if job is None:
        raise JobNotFound(job_id=job_id)
    return job


async def cancel_job(session: AsyncSession, caller: Principal, job_id: UUID) -> Job:
    """Cancel a job that no worker holds; ask the worker of one that runs to stop it.

    Raises:
        JobBeyondScopes: The caller's key could not have started it.
        JobIsOver: It has ended.
        JobNotFound: There is none, or it is not for this caller.

    """
    job, is_held = await _to_change(session, caller, job_id)
    job.cancel(is_held=is_held)
    await _write(session, job)
    if job.status == Status.CANCELLED:
        session.add(JobLogLine(job_id=job.id, lease=job.lease, number=0, text="Cancelled."))
        fact = JobFinished(job_id=job.id, kind=job.kind, status="cancelled", owner_id=job.owner_id)
        record(session, fact)
    return job


async def retry_job(
    session: AsyncSession, reads: ReadPool, files: Files, caller: Principal, job_id: UUID
) -> Job:
    """Queue a job again that failed or was cancelled, to be done from its beginning.

    Raises:
        JobBeyondScopes: The caller's key could not have started it.
        JobFilesGone: What it works on is no longer there.
        JobIsUnfinished: It has neither failed nor been cancelled.
        JobNotFound: There is none, or it is not for this caller.

    """
    inputs = await reads.value(Compiled(queries.inputs_of(caller, job_id)))
    is_whole = await _has_all(files, inputs or ())
    job, _is_held = await _to_change(session, caller, job_id)
    job.begin_anew(_patience(job.expected_seconds))
    if not is_whole:
        raise JobFilesGone(job_id=job_id)
    await _write(session, job)
    session.add(JobLogLine(job_id=job.id, lease=job.lease, number=0, text="To be tried again."))
    expect_jobs(session)
    return job


async def _to_change(session: AsyncSession, caller: Principal, job_id: UUID) -> tuple[Job, bool]:
    found = (await session.execute(queries.for_change(caller, job_id))).one_or_none()
    if found is None:
        raise JobNotFound(job_id=job_id)
    job, is_free = found
    if not caller.allows(Scope(job.scope)):
        raise JobBeyondScopes(job_id=job_id)
    return job, not is_free


async def _write(session: AsyncSession, job: Job) -> None:
    await session.flush()
    await session.refresh(job)  # the database has told the time


async def _has_all(files: Files, names: Sequence[str]) -> bool:
    try:
        for name in names:
            await files.size(name)
    except FileMissingError:
        return False
    return True
