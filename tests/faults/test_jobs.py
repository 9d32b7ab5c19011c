"""Workers that die, stop or sleep amid a job, and outages of what they lean on."""

import asyncio
import os
import signal
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy import func, select, text
from tests.core.test_database import Line
from tests.faults.conftest import come_back, eventually
from tests.faults.works import WorkerOfTests

from pricebook.core.principal import Principal, Role
from pricebook.core.settings import JobSettings
from pricebook.items.models import Item
from pricebook.jobs.backfilling import start as start_backfill
from pricebook.jobs.models import BackfillRecord, Job, JobLogLine
from pricebook.jobs.service import NewJob, enqueue
from pricebook.users.models import User


@pytest.fixture
def run_worker(start, for_delivery):
    """Start a worker process that knows the kinds of jobs of `works`."""

    def run(**changes):
        return start(WorkerOfTests, for_delivery.model_copy(update=changes))

    return run


class Asked:
    """A job, as its database has it."""

    def __init__(self, database, job, until):
        self._database = database
        self.id = job.id
        self.until = until

    def let_end(self):
        self.until.touch()

    async def row(self):
        async with self._database.sessions() as session:
            return (await session.scalars(select(Job).where(Job.id == self.id))).one()

    async def is_waiting(self, lease=1):
        row = await self.row()
        return (row.phase, row.lease) == ("waiting", lease)

    async def is_over(self):
        return (await self.row()).finished_at is not None

    async def log(self):
        lines = select(JobLogLine.text).where(JobLogLine.job_id == self.id)
        async with self._database.sessions() as session:
            return list(await session.scalars(lines.order_by(JobLogLine.lease, JobLogLine.number)))

    async def skus(self):
        async with self._database.sessions() as session:
            return list(await session.scalars(select(Item.sku)))


async def asked_of(database, owner, until, kind="add_item"):
    new = NewJob(kind=kind, params={"until": str(until)}, expected_seconds=1)
    async with database.sessions.begin() as session:
        job = await enqueue(session, Principal(owner.id, Role.EDITOR, owner.id), new)
    return Asked(database, job, until)


@pytest.fixture
async def job(database, editor, tmp_path):
    return await asked_of(database, editor, tmp_path / "until")


async def test_the_job_of_a_killed_worker_starts_again_within_10_seconds_from_a_clean_state(
    run_worker, job
):
    first = run_worker()
    await eventually(job.is_waiting)
    run_worker()
    first.kill()
    assert await eventually(lambda: job.is_waiting(lease=2)) < 10
    job.let_end()
    await eventually(job.is_over)
    row = await job.row()
    assert (row.status, row.attempts, row.result) == ("succeeded", 2, {"sku": "LEASE-2"})
    assert await job.skus() == ["LEASE-2"]
    assert await job.log() == ["Started.", "Started, for the 2nd time.", "Done."]


async def test_a_worker_that_is_told_to_stop_puts_its_job_back_at_once(run_worker, job):
    first = run_worker()
    await eventually(job.is_waiting)
    first.send(signal.SIGTERM)
    assert await asyncio.to_thread(first.wait, 8)
    assert first.exit_code == 0
    row = await job.row()
    assert (row.status, row.attempts, row.leased_until) == ("queued", 0, None)
    assert await job.skus() == []
    run_worker()
    # It does not wait for a lease to run out.
    assert await eventually(lambda: job.is_waiting(lease=2)) < JobSettings().lease_seconds
    job.let_end()
    await eventually(job.is_over)
    assert await job.skus() == ["LEASE-2"]


async def test_a_worker_that_sleeps_past_its_lease_changes_nothing_when_it_wakes(run_worker, job):
    sleeper = run_worker()
    await eventually(job.is_waiting)
    sleeper.send(signal.SIGSTOP)
    run_worker()
    await eventually(lambda: job.is_waiting(lease=2))
    job.let_end()
    await eventually(job.is_over)
    before = vars(await job.row()).copy()
    sleeper.send(signal.SIGCONT)
    # It sees that it may end, and tries to.
    await asyncio.sleep(2)
    assert sleeper.is_alive()
    after = vars(await job.row()).copy()
    for row in (before, after):
        row.pop("_sa_instance_state")
    assert after == before
    assert await job.skus() == ["LEASE-2"]
    assert (await job.log()).count("Done.") == 1


async def test_jobs_are_shared_by_workers_and_each_is_done_once(
    run_worker, database, editor, tmp_path
):
    jobs = [await asked_of(database, editor, tmp_path / "x", "do_nothing") for _ in range(40)]
    for _ in range(2):
        run_worker()
    for one in jobs:
        await eventually(one.is_over)
    rows = [await one.row() for one in jobs]
    assert {(row.status, row.attempts, row.lease) for row in rows} == {("succeeded", 1, 1)}


async def test_the_backfill_of_a_killed_worker_goes_on_where_it_was_and_does_no_row_twice(
    run_worker, database
):
    rows = "SELECT 'SKU-' || n, 'Hammer', 1, 'EUR' FROM generate_series(1, 1500) n"
    async with database.sessions.begin() as session:
        await session.execute(text(f"INSERT INTO items (sku, name, price, currency) {rows}"))
        await start_backfill(session, "visits")
    kinds = {"jobs": JobSettings(lease_seconds=3)}

    async def seen():
        async with database.sessions() as session:
            return (await session.get(BackfillRecord, "visits")).seen

    worker = run_worker(**kinds)
    await eventually(seen)
    worker.kill()
    assert 0 < await seen() < 1500
    run_worker(**kinds)

    async def is_finished():
        async with database.sessions() as session:
            return (await session.get(BackfillRecord, "visits")).finished_at

    await eventually(is_finished)
    async with database.sessions() as session:
        assert list(await session.execute(select(Item.cost, func.count()).group_by(Item.cost))) == [
            (1, 1500)
        ]
        job = (await session.scalars(select(Job))).one()
    assert (job.status, job.attempts, job.done) == ("succeeded", 2, 1500)


async def test_without_valkey_jobs_are_done_all_the_same(
    run_worker, valkey, database, editor, tmp_path, job
):
    worker = run_worker()
    await eventually(job.is_waiting)
    os.kill(valkey.pid, signal.SIGKILL)
    job.let_end()
    await eventually(job.is_over)
    second = await asked_of(database, editor, tmp_path / "x", "do_nothing")
    assert await eventually(second.is_over) < 5
    assert worker.is_alive()
    valkey.start()


async def test_a_job_is_started_again_after_postgresql_was(
    start, mortal, mortal_database, postgres, tmp_path
):
    async with mortal_database.sessions.begin() as session:
        user = User(email="e@example.com", name="E", role="editor", hashed_password="")
        session.add(user)
    job = await asked_of(mortal_database, user, tmp_path / "until")
    worker = start(WorkerOfTests, mortal)
    await eventually(job.is_waiting)
    os.kill(postgres.pid, signal.SIGQUIT)
    await asyncio.to_thread(postgres.has_stopped, 10)
    await come_back(postgres)
    # Only now does it learn that its transaction is gone.
    job.let_end()
    assert await eventually(job.is_over) < 10
    assert (await job.row()).status == "succeeded"
    assert await job.skus() == ["LEASE-2"]
    assert await job.log() == [
        "Started.",
        "Broken off by an outage; it is started again.",
        "Started, for the 2nd time.",
        "Done.",
    ]
    assert worker.is_alive()


async def test_a_stop_amid_a_job_waits_for_no_database_that_is_silent(run_worker, settings, job):
    url = urlsplit(settings.database_url.get_secret_value())
    line = Line(url.hostname, url.port)
    await line.connect()
    way = url.netloc.replace(f":{url.port}", f":{line.port}")
    worker = run_worker(database_url=SecretStr(url._replace(netloc=way).geturl()), stop_seconds=2)
    await eventually(job.is_waiting)
    line.freeze()
    await asyncio.sleep(1.5)
    worker.send(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait, 10)
    assert worker.exit_code == 0
    line.thaw()
    await line.cut()
    run_worker()
    await eventually(lambda: job.is_waiting(lease=2), 20)


async def test_a_worker_without_places_gives_no_sign_that_it_takes_jobs(run_worker, valkey):
    worker = run_worker(jobs=JobSettings(concurrency=0))
    async with Redis.from_url(valkey.url) as client:
        await eventually(lambda: client.exists("arq:queue:health-check"))
        await asyncio.sleep(0.5)
        assert not await client.exists("pricebook:jobs:health-check")
        run_worker()
        await eventually(lambda: client.exists("pricebook:jobs:health-check"))
    worker.send(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait, 15)
    assert worker.exit_code == 0
