"""An import that is killed or cancelled at whatever moment: all of it, or nothing, and once."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest
from sqlalchemy import func, select, update
from tests.conftest import until
from tests.processes import ForkedWorker

from pricebook.core.outbox import EventRecord
from pricebook.core.settings import JobSettings, Settings
from pricebook.items.models import Item
from pricebook.jobs.models import Job, JobLogLine
from pricebook.jobs.status import Status

ROWS = 2_000
# Seconds after its start: while it is read, while it is written, and near its end.
MOMENTS = (0.0, 0.05, 0.15, 0.3, 0.5, 0.8)
SLOW_ROWS = 20_000


def file_at(price, rows=ROWS):
    lines = (f"K-{number},Nail {number},{price},EUR\n" for number in range(rows))
    return "sku,name,price,currency\n" + "".join(lines)


@pytest.fixture
def worker(settings: Settings) -> Iterator[ForkedWorker]:
    """A worker process whose jobs are soon missed when it dies."""
    jobs = JobSettings(lease_seconds=1, max_attempts=50)
    process = ForkedWorker(settings.model_copy(update={"jobs": jobs}))
    yield process
    process.close()


@pytest.fixture
def prices(database):
    """Count the items of each price."""

    async def read():
        async with database.sessions() as fresh:
            counts = select(Item.price, func.count()).group_by(Item.price)
            return {int(price): count for price, count in await fresh.execute(counts)}

    return read


async def test_an_import_killed_midway_leaves_none_of_its_rows_or_all_and_is_done_once(
    worker, ask, read_job, prices, recorded
):
    for price, seconds in enumerate(MOMENTS, 1):
        before = await prices()
        worker.start()
        job = await ask(file_at(price))
        await until(lambda job=job: _is_begun(read_job, job), 20)
        await asyncio.sleep(seconds)
        worker.kill()
        assert await prices() in (before, {price: ROWS})
        worker.start()
        await until(lambda job=job: _is_over(read_job, job), 30)
        assert (await read_job(job)).status == Status.SUCCEEDED
        assert await prices() == {price: ROWS}
        worker.kill()
    told = Counter(event.type for event in await recorded())
    changes = ROWS * (len(MOMENTS) - 1)
    assert told == {
        "item.created": ROWS,
        "item.updated": changes,
        "item.price_changed": changes,
        "job.finished": len(MOMENTS),
    }


async def test_a_cancelled_import_leaves_nothing(runner, ask, finish, read_job, session, prices):
    job = await ask(file_at(1, SLOW_ROWS))
    runner.wake()
    await until(lambda: _is_writing(read_job, job), 30)
    stopped = update(Job).where(Job.id == job.id).values(cancel_requested_at=func.now())
    await session.execute(stopped)
    await session.commit()
    assert (await finish(job)).status == Status.CANCELLED
    assert await prices() == {}
    events = select(EventRecord.type).where(EventRecord.type != "job.finished")
    assert (await session.scalars(events)).all() == []


async def test_a_worker_that_stops_leaves_an_import_to_the_next(
    worker, ask, read_job, prices, session
):
    worker.start()
    job = await ask(file_at(1, SLOW_ROWS))
    await until(lambda: _is_writing(read_job, job), 30)
    worker.send(15)
    assert await asyncio.to_thread(worker.wait)
    assert worker.exit_code == 0
    assert await prices() == {}
    worker.start()
    await until(lambda: _is_over(read_job, job), 60)
    assert await prices() == {1: SLOW_ROWS}
    lines = select(JobLogLine.text).where(JobLogLine.job_id == job.id).order_by(JobLogLine.number)
    said = (await session.scalars(lines)).all()
    assert said[0] == "Started."
    assert said[-1] == "Done."


async def _is_begun(read_job, job):
    return (await read_job(job)).status != Status.QUEUED


async def _is_writing(read_job, job):
    return (await read_job(job)).phase == "writing"


async def _is_over(read_job, job):
    return Status((await read_job(job)).status).is_final
