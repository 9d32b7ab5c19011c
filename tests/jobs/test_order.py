"""Which job goes first: short work overtakes long work, and none waits for ever."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import update
from tests.conftest import until
from tests.jobs.conftest import wait_for_ever

from pricebook.core.settings import JobSettings
from pricebook.jobs.claims import SHORT_SECONDS
from pricebook.jobs.models import Job

LONG = SHORT_SECONDS + 1


class Works:
    """Work that says that it has begun, and goes on until it may end."""

    def __init__(self):
        self.begun = []
        self.may_end = asyncio.Event()

    async def __call__(self, run):
        self.begun.append(run.params["name"])
        await self.may_end.wait()


@pytest.fixture
def works():
    return Works()


async def until_begun(works, *names):
    await until(lambda: works.begun == list(names))


class TestOnePlace:
    @pytest.fixture
    def job_settings(self):
        return JobSettings(concurrency=1)

    async def test_short_work_overtakes_long_work_that_was_asked_for_just_before(
        self, working, works, ask, ended
    ):
        works.may_end.set()
        await ask("work", name="long", expected_seconds=300)
        await ask("work", name="middle", expected_seconds=30)
        last = await ask("work", name="short", expected_seconds=0)
        async with working(work=works):
            await ended(last)
            await until_begun(works, "short", "middle", "long")

    async def test_long_work_that_has_waited_long_enough_is_next(
        self, working, works, ask, session
    ):
        works.may_end.set()
        long = await ask("work", name="long", expected_seconds=60)
        hour_ago = {"rank_at": Job.rank_at - timedelta(hours=1)}
        await session.execute(update(Job).where(Job.id == long.id).values(hour_ago))
        await session.commit()
        for number in range(3):
            await ask("work", name=f"short {number}", expected_seconds=0)
        async with working(work=works):
            await until_begun(works, "long", "short 0", "short 1", "short 2")

    async def test_a_single_place_takes_long_work_too(self, working, works, ask):
        await ask("work", name="long", expected_seconds=LONG)
        async with working(work=works):
            await until_begun(works, "long")


class TestTwoPlaces:
    @pytest.fixture
    def job_settings(self):
        return JobSettings(concurrency=2)

    async def test_the_last_place_is_kept_for_short_work(
        self, working, works, ask, read_job, session
    ):
        await ask("work", name="long 1", expected_seconds=LONG)
        second = await ask("work", name="long 2", expected_seconds=LONG)
        async with working(work=works) as runner:
            await until_begun(works, "long 1")
            await ask("work", name="short", expected_seconds=1)
            runner.wake()
            await until_begun(works, "long 1", "short")
            assert (await read_job(second)).status == "queued"

    async def test_short_work_does_not_keep_long_work_out(self, working, works, ask):
        """There is always some short work, and yet a place without long work is open to it."""
        await ask("work", name="short", expected_seconds=1)
        async with working(work=works) as runner:
            await until_begun(works, "short")
            await ask("work", name="long", expected_seconds=LONG)
            runner.wake()
            await until_begun(works, "short", "long")

    async def test_the_place_of_a_job_that_has_ended_is_filled_at_once(
        self, working, works, ask, ended
    ):
        works.may_end.set()
        jobs = [await ask("work", name=f"{number}") for number in range(20)]
        async with working(work=works):
            for job in jobs:
                await ended(job)
        assert works.begun == [f"{number}" for number in range(20)]


class TestNoPlace:
    @pytest.fixture
    def job_settings(self):
        return JobSettings(concurrency=0)

    async def test_a_worker_without_places_leaves_jobs_to_others(
        self, working, works, ask, read_job
    ):
        job = await ask("work", name="any")
        async with working(work=works):
            await asyncio.sleep(0.2)
        assert (await read_job(job)).status == "queued"


async def test_jobs_of_kinds_that_a_worker_does_not_know_are_left_to_others(working, ask, read_job):
    job = await ask("unheard_of")
    async with working(wait=wait_for_ever):
        await asyncio.sleep(0.2)
    assert (await read_job(job)).status == "queued"
