"""A runner of jobs on this process's own loop, jobs for it, and what became of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from tests.conftest import until
from tests.events.conftest import make_server_with, server

from pricebook.core.database import Database, open_database
from pricebook.core.files import Files
from pricebook.core.principal import Principal, Role
from pricebook.core.settings import JobSettings, Settings
from pricebook.jobs.models import Job, JobLogLine
from pricebook.jobs.run import Run, Task, Tools
from pricebook.jobs.runner import Runner
from pricebook.jobs.service import NewJob, enqueue
from pricebook.users.models import User

Work = Callable[[Run], Awaitable[dict[str, Any] | None]]
Working = Callable[..., Any]
ReadJob = Callable[[Job], Awaitable[Job]]


@pytest.fixture
def job_settings() -> JobSettings:
    """What a test may override."""
    return JobSettings()


@pytest.fixture
async def working(database: Database, settings: Settings, job_settings: JobSettings) -> Working:
    """Run jobs as a worker does, within `async with working(kind=function)`."""
    own = settings.model_copy(update={"jobs": job_settings})

    @asynccontextmanager
    async def start(role: Role = Role.VIEWER, **kinds: Work) -> AsyncIterator[Runner]:
        async with open_database(own, "tests-jobs", is_patient=True) as patient:
            tasks: Mapping[str, Task] = {name: Task(role, work) for name, work in kinds.items()}
            runner = Runner(database, Tools(own, patient, Files(own)), tasks)
            running = asyncio.create_task(runner.run())
            try:
                yield runner
            finally:
                runner.stop()
                await running

    return start


@pytest.fixture
def ask(session: AsyncSession, editor: User) -> Callable[..., Awaitable[Job]]:
    """Ask for a job: `ask("count", expected_seconds=1, up_to=3)`; the rest are its params."""

    async def add(
        kind: str,
        *,
        owner: User = editor,
        expected_seconds: float = 1,
        new: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> Job:
        asking = Principal(owner.id, Role(owner.role), owner.id)
        asked = NewJob(kind=kind, params=params, expected_seconds=expected_seconds, **(new or {}))
        job = await enqueue(session, asking, asked)
        await session.commit()
        return job

    return add


@pytest.fixture
def read_job(database: Database) -> ReadJob:
    """Read a job as it is now."""

    async def read(job: Job) -> Job:
        async with database.sessions() as fresh:
            return (await fresh.scalars(select(Job).where(Job.id == job.id))).one()

    return read


@pytest.fixture
def ended(read_job: ReadJob) -> ReadJob:
    """Wait until a job is over, and return it."""

    async def wait(job: Job) -> Job:
        async def is_over() -> bool:
            return (await read_job(job)).finished_at is not None

        await until(is_over)
        return await read_job(job)

    return wait


@pytest.fixture
def read_log(database: Database) -> Callable[[Job], Awaitable[list[str]]]:
    """Read the lines of a job's log."""

    async def read(job: Job) -> list[str]:
        lines = select(JobLogLine.text).where(JobLogLine.job_id == job.id)
        async with database.sessions() as fresh:
            return list(await fresh.scalars(lines.order_by(JobLogLine.lease, JobLogLine.number)))

    return read


async def wait_for_ever(_run: Run) -> None:
    await asyncio.Event().wait()


__all__ = ["make_server_with", "server"]
