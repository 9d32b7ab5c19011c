"""Backfills: row after row, in short transactions, each row once; they give way and go on."""

import asyncio
import re

import pytest
from sqlalchemy import func, select, text, update
from tests.conftest import until

from pricebook import backfills
from pricebook.core.clock import now
from pricebook.core.database import open_database
from pricebook.core.files import Files
from pricebook.core.principal import Role
from pricebook.items.models import Item
from pricebook.jobs import backfilling
from pricebook.jobs.backfilling import Backfill, start, tasks_of
from pricebook.jobs.models import BackfillRecord, Job
from pricebook.jobs.run import Task, Tools
from pricebook.jobs.runner import Runner

ITEMS = 1_200
COUNTS = Backfill(
    title="How often each item was visited",
    table="items",
    statement="UPDATE items SET cost = coalesce(cost, 0) + 1 FROM batch WHERE items.id = batch.id",
)
NEVER = Backfill(
    title="One that cannot be done", table="items", statement="DELETE FROM nowhere USING batch"
)
BACKFILLS = {"visits": COUNTS, "never": NEVER}


@pytest.fixture
async def items(session):
    rows = text(
        "INSERT INTO items (sku, name, price, currency) "
        "SELECT 'SKU-' || n, 'Hammer', 1, 'EUR' FROM generate_series(1, :count) n"
    )
    await session.execute(rows, {"count": ITEMS})
    await session.commit()


@pytest.fixture
async def upkeep(database, settings):
    """Run a worker's runner that knows the backfills, and one other kind of job."""
    holding = asyncio.Event()

    async def hold(_run):
        await holding.wait()

    async with open_database(settings, "tests-jobs", is_patient=True) as patient:
        tasks = tasks_of(BACKFILLS) | {"hold": Task(Role.VIEWER, hold)}
        runner = Runner(database, Tools(settings, patient, Files(settings)), tasks)
        running = asyncio.create_task(runner.run())
        yield runner
        holding.set()
        runner.stop()
        await running


@pytest.fixture
def slowly(monkeypatch):
    """Do few rows at a time, with rests between."""
    monkeypatch.setattr(backfilling, "_FIRST_ROWS", 50)
    monkeypatch.setattr(backfilling, "_MOST_ROWS", 50)
    monkeypatch.setattr(backfilling, "_REST", 4.0)


@pytest.fixture
def begin(session):
    async def ask(name="visits", **options):
        job_id = await start(session, name, **options)
        await session.commit()
        return job_id

    return ask


@pytest.fixture
def job_of(database):
    async def read(job_id):
        async with database.sessions() as fresh:
            return (await fresh.scalars(select(Job).where(Job.id == job_id))).one()

    return read


@pytest.fixture
def over(job_of):
    async def wait(job_id):
        async def is_over():
            return (await job_of(job_id)).finished_at is not None

        await until(is_over)
        return await job_of(job_id)

    return wait


@pytest.fixture
def visits(database):
    """How many items were visited how often."""

    async def count():
        counted = select(func.coalesce(Item.cost, 0), func.count()).group_by(text("1"))
        async with database.sessions() as fresh:
            return {int(times): items for times, items in await fresh.execute(counted)}

    return count


@pytest.fixture
def record(database):
    async def read(name="visits"):
        async with database.sessions() as fresh:
            return await fresh.get(BackfillRecord, name)

    return read


async def some_are_visited(visits):
    async def are():
        return 0 < (await visits()).get(1, 0) < ITEMS

    await until(are)


async def test_each_row_is_visited_once_and_the_record_says_so(
    items, upkeep, begin, over, visits, record
):
    job = await over(await begin())
    assert (job.status, job.result) == ("succeeded", {"seen": ITEMS, "written": ITEMS})
    assert (job.owner_id, job.role, job.done, job.total) == (None, "admin", ITEMS, ITEMS)
    assert await visits() == {1: ITEMS}
    done = await record()
    assert (done.seen, done.written) == (ITEMS, ITEMS)
    assert done.finished_at is not None


async def test_one_that_has_finished_is_not_begun_again_unless_that_is_wanted(
    items, upkeep, begin, over, visits
):
    await over(await begin())
    assert await begin() is None
    await over(await begin(again=True))
    assert await visits() == {2: ITEMS}


async def test_an_empty_table_is_done_at_once(upkeep, begin, over, record):
    assert (await over(await begin())).status == "succeeded"
    assert (await record()).finished_at is not None


async def test_one_that_is_under_way_is_not_started_twice(
    items, slowly, upkeep, begin, over, visits
):
    first = await begin()
    await some_are_visited(visits)
    assert await begin() == first
    await over(first)
    assert await visits() == {1: ITEMS}


async def test_one_that_was_cancelled_goes_on_where_it_was(
    items, slowly, upkeep, begin, over, visits, record, session
):
    first = await begin()
    await some_are_visited(visits)
    await session.execute(update(Job).where(Job.id == first).values(cancel_requested_at=now()))
    await session.commit()
    assert (await over(first)).status == "cancelled"
    seen = (await record()).seen
    assert 0 < seen < ITEMS
    assert await visits() == {0: ITEMS - seen, 1: seen}
    second = await begin()
    assert second != first
    await over(second)
    assert await visits() == {1: ITEMS}


async def test_an_admin_cancels_it_over_the_api_and_nobody_else_sees_it(
    items, slowly, upkeep, begin, over, visits, api, admin, editor
):
    job_id = await begin()
    await some_are_visited(visits)
    assert (await api.as_(editor).get(f"/v1/jobs/{job_id}")).status_code == 404
    assert (await api.as_(admin).post(f"/v1/jobs/{job_id}/cancel")).status_code == 202
    assert (await over(job_id)).status == "cancelled"


async def test_a_stop_of_the_worker_puts_it_back_and_the_next_goes_on(
    items, slowly, database, settings, begin, over, visits, job_of
):
    job_id = await begin()
    async with open_database(settings, "tests-jobs", is_patient=True) as patient:
        tools = Tools(settings, patient, Files(settings))
        for is_first in (True, False):
            runner = Runner(database, tools, tasks_of(BACKFILLS))
            running = asyncio.create_task(runner.run())
            await (some_are_visited(visits) if is_first else over(job_id))
            runner.stop()
            await running
            if is_first:
                job = await job_of(job_id)
                assert (job.status, job.attempts) == ("queued", 0)
    assert await visits() == {1: ITEMS}


async def test_it_gives_way_to_whoever_holds_its_rows(items, upkeep, begin, over, visits, database):
    async with database.sessions.begin() as holder:
        last = select(Item).order_by(Item.id.desc()).limit(1).with_for_update()
        held = (await holder.scalars(last)).one()
        job_id = await begin()
        await asyncio.sleep(1.2)
        held.price = 2
        # It has let go of every row that it had taken before: nobody waits for it while it waits.
        async with database.sessions.begin() as other:
            await other.execute(text("SET LOCAL lock_timeout = '700ms'"))
            await other.execute(text("SELECT FROM items WHERE sku = 'SKU-1190' FOR UPDATE"))
    assert (await over(job_id)).status == "succeeded"
    assert await visits() == {1: ITEMS}


async def test_it_takes_no_place_from_what_people_wait_for(
    items, upkeep, begin, over, ask, settings
):
    held = [await ask("hold") for _ in range(settings.jobs.concurrency)]
    assert held
    assert (await over(await begin())).status == "succeeded"


async def test_one_that_cannot_be_done_fails_and_is_not_finished(
    items, upkeep, begin, over, record
):
    assert (await over(await begin("never"))).status == "failed"
    assert (await record("never")).finished_at is None


async def test_while_a_replica_is_late_it_goes_on_slowly_and_says_so(
    items, slowly, monkeypatch, upkeep, begin, over, database
):
    monkeypatch.setattr(backfilling, "_LATE_BY", text("SELECT 5.1"))
    monkeypatch.setattr(backfilling, "_LONG_REST", 1.0)
    job_id = await begin()
    await over(job_id)
    said = text("SELECT count(*) FROM job_log_lines WHERE job_id = :id AND text LIKE 'A replica%'")
    async with database.sessions() as fresh:
        assert await fresh.scalar(said, {"id": job_id}) == 1


async def test_the_command_starts_one_and_sees_it_through(
    items, upkeep, settings, monkeypatch, visits
):
    monkeypatch.setattr(backfills, "BACKFILLS", BACKFILLS)
    said = []

    async def command(name, *, again=False):
        said.clear()
        return await backfills.run(settings, name, said.append, again=again, wait=True)

    assert await command("visits")
    assert said[-1] == f"succeeded: {ITEMS:,} rows."
    assert await command("visits")
    assert said == ["visits has finished; --again goes through all rows once more."]
    assert not await command("never")
    assert said[-1].startswith("failed: 0 rows. ")
    with pytest.raises(backfills.BackfillUnknownError, match="there are: visits, never"):
        await command("nothing")
    said.clear()
    await backfills.tell_of_all(settings, said.append)
    assert [line.split("  ")[0] for line in said] == ["visits", "never"]
    assert f"{ITEMS:,} rows written" in said[0]
    assert await visits() == {1: ITEMS}


def test_every_backfill_has_a_name_that_lists_of_jobs_take():
    for name in backfills.BACKFILLS:
        assert re.fullmatch("[a-z_]{1,40}", name)
