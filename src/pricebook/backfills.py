"""Every backfill, on one screen; and how an operator starts one and sees it through."""

import asyncio
from collections.abc import Callable
from uuid import UUID

from sqlalchemy import select

from pricebook.core.database import Database, open_database
from pricebook.core.mendable import MendableError
from pricebook.core.settings import Settings
from pricebook.jobs.backfilling import Backfills, start
from pricebook.jobs.models import BackfillRecord, Job
from pricebook.jobs.status import Status

BACKFILLS: Backfills = {}
"""By name. One leaves this table a version after the migration that needed it."""

_LOOK_SECONDS = 0.5
_TELL_EVERY = 10

Say = Callable[[str], object]


class BackfillUnknownError(MendableError):
    """This version has no backfill of that name."""


async def tell_of_all(settings: Settings, say: Say) -> None:
    """Say which backfills there are, and how far each is."""
    if not BACKFILLS:
        say("This version has nothing to fill in.")
    async with open_database(settings, "pricebook-backfill") as database:
        for name, backfill in BACKFILLS.items():
            say(f"{name}  {await _state(database, name)}  {backfill.title}")


async def run(settings: Settings, name: str, say: Say, *, again: bool, wait: bool) -> bool:
    """Have the worker do a backfill, or go on with it; return whether all went well so far.

    Raises:
        BackfillUnknownError: There is none of that name.

    """
    if name not in BACKFILLS:
        message = f"there is no backfill {name}; there are: {', '.join(BACKFILLS) or 'none'}"
        raise BackfillUnknownError(message)
    async with open_database(settings, "pricebook-backfill") as database:
        async with database.sessions.begin() as session:
            job_id = await start(session, name, again=again)
        if job_id is None:
            say(f"{name} has finished; --again goes through all rows once more.")
            return True
        say(f"{name} is job {job_id}; an admin sees it by `pricebook jobs watch {job_id}`.")
        return not wait or await _ends_well(database, job_id, say)


async def _ends_well(database: Database, job_id: UUID, say: Say) -> bool:
    looks = 0
    while True:
        async with database.sessions() as session:
            job = (await session.scalars(select(Job).where(Job.id == job_id))).one()
        status = Status(job.status)
        if status.is_final or looks % _TELL_EVERY == 0:
            of = f" of about {job.total:,}" if job.total and not status.is_final else ""
            say(f"{status}: {job.done:,}{of} rows. {job.error or ''}".rstrip())
        if status.is_final:
            return status is Status.SUCCEEDED
        looks += 1
        await asyncio.sleep(_LOOK_SECONDS)


async def _state(database: Database, name: str) -> str:
    async with database.sessions() as session:
        record = await session.get(BackfillRecord, name)
    if record is None:
        return "not begun"
    if record.finished_at is None:
        return f"{record.seen:,} rows so far"
    return f"finished {record.finished_at:%Y-%m-%d %H:%M} UTC, {record.written:,} rows written"
