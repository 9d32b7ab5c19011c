"""A runner of jobs on this process's own loop, and jobs for it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.core.database import Database, open_database
from pricebook.core.files import Files
from pricebook.core.principal import Principal, Role
from pricebook.core.settings import Settings
from pricebook.jobs.models import Job
from pricebook.jobs.run import Run, Task, Tools
from pricebook.jobs.runner import Runner
from pricebook.jobs.service import NewJob, enqueue
from pricebook.users.models import User

Work = Callable[[Run], Awaitable[dict[str, Any] | None]]
Working = Callable[..., Any]


@pytest.fixture
async def working(database: Database, settings: Settings) -> Working:
    """Run jobs as a worker does, within `async with working(kind=function)`."""

    @asynccontextmanager
    async def start(**kinds: Work) -> AsyncIterator[Runner]:
        async with open_database(settings, "tests-jobs", is_patient=True) as patient:
            tasks: Mapping[str, Task] = {
                name: Task(Role.VIEWER, work) for name, work in kinds.items()
            }
            runner = Runner(database, Tools(settings, patient, Files(settings)), tasks)
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

    async def add(kind: str, *, expected_seconds: float = 1, **params: Any) -> Job:
        owner = Principal(editor.id, Role(editor.role), editor.id)
        new = NewJob(kind=kind, params=params, expected_seconds=expected_seconds)
        job = await enqueue(session, owner, new)
        await session.commit()
        return job

    return add


@pytest.fixture
def read_job(database: Database) -> Callable[[Job], Awaitable[Job]]:
    """Read a job as it is now."""

    async def read(job: Job) -> Job:
        async with database.sessions() as fresh:
            return (await fresh.scalars(select(Job).where(Job.id == job.id))).one()

    return read
