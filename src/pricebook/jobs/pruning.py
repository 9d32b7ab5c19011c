"""What becomes of jobs that ended long ago, and of files that belong to none."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ARRAY, Select, Text, delete, func, literal, select
from sqlalchemy.sql.dml import ReturningDelete

from pricebook.core.database import Database
from pricebook.core.files import Files
from pricebook.core.leases import one_of
from pricebook.jobs.models import Job

FOLDERS = ("exports", "imports")
"""Where in `core.files` the files of jobs lie."""

ORPHANED_AFTER = timedelta(days=1)
"""By then every upload has its job, and every job that wrote a file has told of it."""

_BATCH = 200


async def prune_jobs(database: Database, files: Files, days: int) -> int:
    """Delete jobs that ended so many days ago, with their files; return how many.

    The files go first: should that fail, the row still knows of them, and it is tried again.
    """
    age = timedelta(days=days)
    count = 0
    while True:
        async with database.sessions.begin() as session:
            old = (await session.execute(_ended_before(age))).all()
        if not old:
            return count
        for _job_id, names in old:
            await files.delete(names)
        async with database.sessions.begin() as session:
            gone = _without([job_id for job_id, _names in old], age)
            count += len((await session.scalars(gone)).all())


async def prune_orphans(database: Database, files: Files) -> int:
    """Delete old files that no job has, and what was never written to its end; return how many."""
    count = await files.clear_unfinished(ORPHANED_AFTER)
    for folder in FOLDERS:
        old = [name async for name in files.list_old(folder, ORPHANED_AFTER)]
        for first in range(0, len(old), _BATCH):
            names = old[first : first + _BATCH]
            async with database.sessions.begin() as session:
                owned = {name for one in await session.scalars(_owners_of(names)) for name in one}
            orphans = [name for name in names if name not in owned]
            await files.delete(orphans)
            count += len(orphans)
    return count


def _ended_before(age: timedelta) -> Select[UUID, list[str]]:
    old = select(Job.id, Job.files).where(Job.finished_at < func.now() - age)
    return old.order_by(Job.finished_at).limit(_BATCH)


def _without(job_ids: Sequence[UUID], age: timedelta) -> ReturningDelete[UUID]:
    """Delete them, but for one that has been queued again meanwhile."""
    ended = Job.finished_at < func.now() - age
    return delete(Job).where(Job.id == one_of(job_ids), ended).returning(Job.id)


def _owners_of(names: Sequence[str]) -> Select[list[str]]:
    return select(Job.files).where(Job.files.bool_op("&&")(literal(list(names), ARRAY(Text))))
