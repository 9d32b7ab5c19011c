"""Jobs over HTTP: what becomes of long work. Each is for who asked for it, and for admins."""

from typing import Annotated, cast
from uuid import UUID

from fastapi import Query, Request, Response, status

from pricebook.core.current import Viewer, bearer_token
from pricebook.core.pagination import Page, link_next
from pricebook.core.principal import Principal
from pricebook.core.reading import Row
from pricebook.core.routing import resource
from pricebook.core.session import DbSession, Reads
from pricebook.core.stream_responses import EventStream, TextStream, documented, documented_text
from pricebook.core.streaming import Caller, Streams
from pricebook.jobs import service
from pricebook.jobs.follower import Follower
from pricebook.jobs.following import log_of, log_so_far, progress_of
from pricebook.jobs.models import Job
from pricebook.jobs.schemas import JobListing, JobOut, LogQuery
from pricebook.jobs.status import Status

router = resource("/jobs", "jobs")

_JOB = (
    '{"id":"019a9e6f-1c2b-7d3e-8f40-515263748596","kind":"import_items","status":"running",'
    '"phase":"reading","done":4194304,"total":16777216,"rate":8388608.0,"attempts":1,'
    '"result":null,"error":null,"owner_id":"019a9e5d-77aa-7c10-9b1e-2f3a4b5c6d7e",'
    '"cancel_requested_at":null,"created_at":"2026-11-22T09:30:00.120331Z",'
    '"started_at":"2026-11-22T09:30:00.31442Z","finished_at":null}'
)
_EVENTS = documented(f"retry: 1500\n\nevent: progress\ndata: {_JOB}\n\n", JobOut.__name__)
_TEXT = documented_text("2026-11-22T09:30:00Z Started.\n2026-11-22T09:30:02Z Done.\n")


@router.get("", response_model=Page[JobOut])
async def list_jobs(
    reader: Viewer,
    listing: Annotated[JobListing, Query()],
    reads: Reads,
    request: Request,
    response: Response,
) -> Page[Row]:
    """List your jobs, newest first; admins see all."""
    page = await service.list_jobs(reads, reader, listing)
    link_next(request, response, page.next_cursor)
    return page


@router.get("/{job_id:uuid}", response_model=JobOut)
async def read_job(reader: Viewer, job_id: UUID, reads: Reads) -> Row:
    """Return how far a job is, or what has become of it."""
    return await service.get_job(reads, reader, job_id)


@router.post(
    "/{job_id:uuid}/cancel",
    response_model=JobOut,
    responses={202: {"model": JobOut, "description": "It runs, and is asked to stop."}},
)
async def cancel_job(caller: Viewer, job_id: UUID, session: DbSession, response: Response) -> Job:
    """Cancel a job. One that waits ends at once; one that runs stops soon, with 202."""
    job = await service.cancel_job(session, caller, job_id)
    if not Status(job.status).is_final:
        response.status_code = status.HTTP_202_ACCEPTED
    return job


@router.post("/{job_id:uuid}/retry", response_model=JobOut, status_code=status.HTTP_202_ACCEPTED)
async def retry_job(
    caller: Viewer, job_id: UUID, session: DbSession, reads: Reads, request: Request
) -> Job:
    """Do a job again that failed or was cancelled, from its beginning; its log goes on."""
    return await service.retry_job(session, reads, request.app.state.files, caller, job_id)


@router.get(
    "/{job_id:uuid}/stream",
    status_code=status.HTTP_200_OK,
    response_class=EventStream,
    responses=_EVENTS,
)
async def stream_job(reader: Viewer, job_id: UUID, reads: Reads, request: Request) -> Response:
    """Tell how a job is whenever that changes, by server-sent events.

    Each `progress` is the job as it then is. With `end` the job is over, and so is the stream; one
    that ends without it has grown old: open it again.
    """
    await service.get_job(reads, reader, job_id)
    source = progress_of(_follower(request), job_id)
    return EventStream(_streams(request), _caller(request, reader), source)


@router.get(
    "/{job_id:uuid}/log",
    status_code=status.HTTP_200_OK,
    response_class=TextStream,
    responses=_TEXT,
)
async def read_job_log(
    reader: Viewer,
    job_id: UUID,
    query: Annotated[LogQuery, Query()],
    reads: Reads,
    request: Request,
) -> Response:
    """Return what a job said, line by line, as it says it, until it is over."""
    await service.get_job(reads, reader, job_id)
    source = (
        log_of(reads, _follower(request), job_id) if query.follow else log_so_far(reads, job_id)
    )
    return TextStream(_streams(request), _caller(request, reader), source)


def _follower(request: Request) -> Follower:
    return cast("Follower", request.app.state.job_follower)


def _streams(request: Request) -> Streams:
    return cast("Streams", request.app.state.streams)


def _caller(request: Request, reader: Principal) -> Caller:
    return Caller(reader, bearer_token(request) or "")
