"""What becomes of a job, however the work goes."""

import asyncio

from sqlalchemy import update
from tests.conftest import until

from pricebook.core.clock import now
from pricebook.jobs.models import Job, Status
from pricebook.jobs.run import JobRefused

SENTENCE = ("The file has no header.",)
SECRET = ("secret",)


async def test_a_job_is_done_and_its_end_is_an_event(working, ask, read_job, recorded):
    async def count(run):
        run.progress("counting", 3, 3)
        return {"counted": run.params["up_to"]}

    job = await ask("count", up_to=3)
    async with working(count=count):
        await until(lambda: _is_over(read_job, job))
    ended = await read_job(job)
    assert (ended.status, ended.result, ended.done, ended.total) == (
        Status.SUCCEEDED,
        {"counted": 3},
        3,
        3,
    )
    assert ended.finished_at is not None
    (event,) = await recorded()
    assert event.payload == {
        "job_id": str(job.id),
        "kind": "count",
        "status": "succeeded",
        "owner_id": str(job.owner_id),
    }
    assert event.actor_id == job.owner_id


async def test_a_refusal_is_told_in_its_own_words_and_anything_else_is_not(working, ask, read_job):
    async def refuse(_run):
        raise JobRefused(*SENTENCE)

    async def break_(_run):
        raise ZeroDivisionError(*SECRET)

    refused, broken = await ask("refuse"), await ask("break_")
    async with working(refuse=refuse, break_=break_):
        await until(lambda: _is_over(read_job, refused))
        await until(lambda: _is_over(read_job, broken))
    assert (await read_job(refused)).status == Status.FAILED
    assert (await read_job(refused)).error == "The file has no header."
    assert (await read_job(broken)).status == Status.FAILED
    assert "secret" not in (await read_job(broken)).error


async def test_a_job_that_is_asked_to_stop_stops(working, ask, read_job, session):
    begun = asyncio.Event()

    async def wait(_run):
        begun.set()
        await asyncio.sleep(60)

    job = await ask("wait")
    async with working(wait=wait):
        await begun.wait()
        await session.execute(update(Job).where(Job.id == job.id).values(cancel_requested_at=now()))
        await session.commit()
        await until(lambda: _is_over(read_job, job))
    assert (await read_job(job)).status == Status.CANCELLED


async def test_a_stopped_worker_puts_its_jobs_back(working, ask, read_job):
    begun = asyncio.Event()

    async def wait(_run):
        begun.set()
        await asyncio.sleep(60)

    job = await ask("wait")
    async with working(wait=wait):
        await begun.wait()
    put_back = await read_job(job)
    assert (put_back.status, put_back.attempts, put_back.leased_until) == (Status.QUEUED, 0, None)


async def _is_over(read_job, job):
    return Status((await read_job(job)).status).is_final
