"""Jobs that ended long ago go with their files; and so does what belongs to none."""

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import func, insert, select, true, update
from structlog.testing import capture_logs

from pricebook.core.database import Database
from pricebook.core.files import FileMissingError, Files, FilesAwayError
from pricebook.core.principal import Principal, Role
from pricebook.core.settings import FileSettings, RetentionSettings
from pricebook.housekeeping import sweep, sweepers
from pricebook.jobs.models import Job
from pricebook.jobs.pruning import prune_jobs, prune_orphans
from pricebook.jobs.service import NewJob, enqueue

TWO_DAYS = timedelta(days=2).total_seconds()


@pytest.fixture
def files(settings, tmp_path):
    return Files(settings.model_copy(update={"files": FileSettings(url=tmp_path.as_uri())}))


@pytest.fixture
def write(files, tmp_path):
    """Write a file, as of now or two days ago."""

    async def one(name, *, is_old=True):
        async def content():
            yield b"sku\r\n"

        await files.write(name, content())
        if is_old:
            moment = time.time() - TWO_DAYS
            os.utime(tmp_path / name, (moment, moment))
        return name

    return one


@pytest.fixture
def make_job(session, editor):
    """Make a job that ended so many days ago, or has not."""

    async def one(ended_days_ago=None, files=()):
        asked = Principal(editor.id, Role.EDITOR, editor.id)
        new = NewJob(kind="count", params={}, expected_seconds=1, files=files)
        job = await enqueue(session, asked, new)
        if ended_days_ago is not None:
            moment = func.now() - timedelta(days=ended_days_ago)
            ended = {"status": "succeeded", "finished_at": moment}
            await session.execute(update(Job).where(Job.id == job.id).values(ended))
        await session.commit()
        return job.id

    return one


@pytest.fixture
def left(session):
    """Return the ids of all jobs."""

    async def read():
        return set(await session.scalars(select(Job.id)))

    return read


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_what_ended_long_ago_goes_with_its_files(
    database, files, write, make_job, left, tmp_path
):
    old = [await write(f"exports/old-{number}") for number in range(2)]
    young = await write("exports/young")
    gone = await make_job(8, [*old, "exports/lost-already"])
    kept = {await make_job(6, [young]), await make_job()}
    assert await prune_jobs(database, files, 7) == 1
    assert await left() == kept
    assert gone not in kept
    assert names_in(tmp_path) == ["exports/young"]


async def test_all_that_is_old_goes_however_much_it_is(database, files, make_job, left, session):
    first = await make_job(8)
    columns = [one for one in Job.__table__.columns if one.name != "id"]
    many = (
        select(*columns)
        .where(Job.id == first)
        .join(func.generate_series(1, 450).table_valued("n"), true())
    )
    await session.execute(insert(Job).from_select([one.name for one in columns], many))
    await session.commit()
    assert await prune_jobs(database, files, 7) == 451
    assert await left() == set()


async def test_should_a_file_not_go_its_job_stays_to_tell_of_it(
    database, files, make_job, left, tmp_path
):
    (tmp_path / "exports" / "stuck").mkdir(parents=True)
    job_id = await make_job(8, ["exports/stuck"])
    with pytest.raises(FilesAwayError):
        await prune_jobs(database, files, 7)
    assert await left() == {job_id}


async def test_files_that_no_job_has_go_once_they_are_old(
    database, files, write, make_job, tmp_path
):
    await make_job(0, [await write("exports/owned"), await write("imports/owned")])
    await make_job(None, [await write("imports/waiting")])
    for name in ("exports/ghost", "imports/left", "imports/left.errors.csv"):
        await write(name)
    await write("imports/just-uploaded", is_old=False)
    half = tmp_path / "imports" / "half.csv#1"
    half.write_bytes(b"sku")
    os.utime(half, (time.time() - TWO_DAYS,) * 2)
    await write("elsewhere/of-somebody-else")
    assert await prune_orphans(database, files) == 4
    assert names_in(tmp_path) == [
        "elsewhere/of-somebody-else",
        "exports/owned",
        "imports/just-uploaded",
        "imports/owned",
        "imports/waiting",
    ]


async def test_the_worker_sweeps_both_and_lets_an_outage_pass(
    database, settings, files, write, make_job, left
):
    job_id = await make_job(3, [await write("exports/old")])
    short = settings.model_copy(
        update={
            "files": files._settings.files,
            "retention": RetentionSettings(jobs_days=2),
        }
    )
    await sweep({"database": database, "sweepers": sweepers(short)})
    assert job_id not in await left()
    with pytest.raises(FileMissingError):
        await files.find("exports/old")
    away = Database(
        settings.model_copy(
            update={"database_url": SecretStr("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")}
        )
    )
    with capture_logs() as lines:
        await sweep({"database": away, "sweepers": sweepers(short)[:1]})
    await away.close()
    assert [line["log_level"] for line in lines] == ["warning"]
