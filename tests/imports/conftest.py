"""Files of items, and a runner of jobs that imports them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from tests.conftest import Api, until
from tests.notifications.conftest import expand, mail_settings, mails, sink, watch, work

from pricebook.core.database import Database, open_database
from pricebook.core.files import Files
from pricebook.core.principal import Principal, Role
from pricebook.core.settings import Settings
from pricebook.items.models import Item
from pricebook.jobs.models import Job
from pricebook.jobs.run import Tools
from pricebook.jobs.runner import Runner
from pricebook.jobs.service import NewJob, enqueue
from pricebook.jobs.status import Status
from pricebook.users.models import User
from pricebook.worker import TASKS

# Fixtures for the tests here, too.
__all__ = ["expand", "mail_settings", "mails", "sink", "watch", "work"]

Ask = Callable[..., Awaitable[Job]]


@pytest.fixture(scope="session")
def files(settings: Settings) -> Files:
    return Files(settings)


@pytest.fixture
def ask(session: AsyncSession, editor: User, files: Files) -> Ask:
    """Ask for an import of a file: `ask("sku,name\\n…", mode="dry-run")`."""

    async def add(sent: str | bytes, *, owner: User = editor, **params: Any) -> Job:
        content = sent.encode() if isinstance(sent, str) else sent
        name = f"tests/{uuid4()}"
        await files.write(f"{name}.csv", _in_one(content))
        known = {"file": f"{name}.csv", "errors_file": f"{name}.errors.csv", "name": None}
        wanted = {
            "mode": "apply",
            "skip_refused": False,
            "encoding": "auto",
            "delimiter": "auto",
            "decimal": "point",
            "guarded": True,
            "columns": {},
            "size": len(content),
            **known,
            **params,
        }
        new = NewJob(kind="import_items", params=wanted, expected_seconds=1)
        job = await enqueue(session, Principal(owner.id, Role(owner.role), owner.id), new)
        await session.commit()
        return job

    return add


async def _in_one(content: bytes) -> AsyncIterator[bytes]:
    yield content


@pytest.fixture
async def runner(database: Database, settings: Settings, files: Files) -> AsyncIterator[Runner]:
    """A worker's runner of jobs."""
    async with open_database(settings, "tests-jobs", is_patient=True) as patient:
        started = Runner(database, Tools(settings, patient, files), TASKS)
        running = asyncio.create_task(started.run())
        yield started
        started.stop()
        await running


@pytest.fixture
def read_job(database: Database) -> Callable[[Job], Awaitable[Job]]:
    """Read a job as it is now."""

    async def read(job: Job) -> Job:
        async with database.sessions() as fresh:
            return (await fresh.scalars(select(Job).where(Job.id == job.id))).one()

    return read


@pytest.fixture
def finish(runner: Runner, read_job: Callable[[Job], Awaitable[Job]]) -> Callable[..., Any]:
    """Wait for the end of a job, and return it as it is then."""

    async def wait(job: Job, seconds: float = 30) -> Job:
        async def is_over() -> bool:
            return Status((await read_job(job)).status).is_final

        runner.wake()
        await until(is_over, seconds)
        return await read_job(job)

    return wait


@pytest.fixture
def do_import(ask: Ask, finish: Callable[..., Any]) -> Ask:
    """Import a file, and return the job once it is over."""

    async def run(sent: str | bytes, **params: Any) -> Job:
        return await finish(await ask(sent, **params))

    return run


@pytest.fixture
def items(database: Database) -> Callable[[], Awaitable[dict[str, Item]]]:
    """Return every item by its SKU, in the order of their ids."""

    async def read() -> dict[str, Item]:
        async with database.sessions() as fresh:
            found = await fresh.scalars(select(Item).order_by(Item.id))
            return {item.sku: item for item in found}

    return read


@pytest.fixture
def errors_of(files: Files) -> Callable[[Job], Awaitable[str]]:
    """Return the file of the rows that an import refused."""

    async def read(job: Job) -> str:
        pieces = [piece async for piece in files.read(job.params["errors_file"])]
        return b"".join(pieces).decode()

    return read


@pytest.fixture
def folder(settings: Settings) -> Path:
    """Where the store of files is."""
    return Path(unquote(urlsplit(settings.files.url or "").path))


@pytest.fixture
def stored(folder: Path) -> Callable[[], list[str]]:
    """The names of all files that lie in the store; none at the beginning."""

    def names() -> list[str]:
        found = [path for path in folder.rglob("*") if path.is_file()]
        return sorted(str(path.relative_to(folder)) for path in found)

    for name in names():
        (folder / name).unlink()
    return names


@pytest.fixture
def jobs(database: Database) -> Callable[[], Awaitable[list[Job]]]:
    """Every job, oldest first."""

    async def read() -> list[Job]:
        async with database.sessions() as fresh:
            return list(await fresh.scalars(select(Job).order_by(Job.id)))

    return read


@pytest.fixture
def client(api: Api, editor: User) -> Api:
    """An editor's."""
    return api.as_(editor)
