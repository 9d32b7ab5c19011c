"""The session of a request, committed before the answer leaves; and the pool that reads."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import BackgroundTasks, Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.core.database import Database
from pricebook.core.outbox import has_events
from pricebook.core.principal import Principal
from pricebook.core.queue import Hints, has_jobs
from pricebook.core.reading import ReadPool
from pricebook.core.replica import Replica


async def request_session(
    request: Request, afterwards: BackgroundTasks
) -> AsyncIterator[AsyncSession]:
    """Yield the request's one session; commit it, or roll it back on any error.

    Once committed events are there, this process's streams tell them at once, and a hint goes to
    the workers after the response; another if there is a job.
    """
    database: Database = request.app.state.database
    async with database.sessions.begin() as session:
        yield session
    if has_events(session):
        request.app.state.follower.wake()
        hints: Hints = request.app.state.hints
        afterwards.add_task(hints.give)
    if has_jobs(session):
        job_hints: Hints = request.app.state.job_hints
        afterwards.add_task(job_hints.give)


def read_pool(request: Request) -> ReadPool:
    """Return the pool for reads that need no transaction."""
    database: Database = request.app.state.database
    return database.reads


def lagging_pool(request: Request, reader: Principal | None) -> ReadPool:
    """Return the pool for a read by someone who may be told what was true some seconds ago.

    That is nobody who may have written: see `core.replica`.
    """
    replica: Replica | None = request.app.state.replica
    if replica is None:
        return read_pool(request)
    headers: dict[bytes, bytes] = request.scope["pricebook.exchange"].headers
    # A public route does not ask whose credentials come with a request, so they may be a writer's.
    if b"authorization" in headers if reader is None else reader.may_write:
        return replica.primary("may_write")
    # RFC 9111, section 5.2.1.4.
    if b"no-cache" in headers.get(b"cache-control", b""):
        return replica.primary("no_cache")
    return replica.reads()


async def _injected_read_pool(request: Request) -> ReadPool:
    """FastAPI would run a plain function in a thread."""
    return read_pool(request)


# "function": commit before the response leaves, so a 2xx never precedes a failed commit.
DbSession = Annotated[AsyncSession, Depends(request_session, scope="function")]
Reads = Annotated[ReadPool, Depends(_injected_read_pool)]
