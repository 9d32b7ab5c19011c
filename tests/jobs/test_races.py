"""Cancelling races with the end of the work: one of them is first, and nothing is half done."""

import asyncio
import random

import pytest
from sqlalchemy import select
from tests.conftest import until

from pricebook.core.settings import JobSettings
from pricebook.items.models import Item

JOBS = 32


@pytest.fixture
def job_settings():
    return JobSettings(concurrency=8)


async def test_a_job_either_succeeded_with_its_work_or_was_cancelled_without_it(
    api, editor, ask, working, ended, recorded, session
):
    chance = random.Random(7)
    delays = {number: chance.uniform(0, 0.3) for number in range(JOBS)}

    async def add(run):
        await asyncio.sleep(delays[run.params["number"]])
        async with run.tools.database.sessions.begin() as own:
            sku = f"RACE-{run.params['number']}"
            own.add(Item(sku=sku, name="Hammer", price=1, currency="EUR"))
            await run.complete(own, {"sku": sku})

    asked = [await ask("add", number=number) for number in range(JOBS)]
    jobs = {str(job.id): number for number, job in enumerate(asked)}
    client = api.as_(editor)
    answers = {}

    async def cancel(job_id):
        async def has_begun():
            return (await client.get(f"/v1/jobs/{job_id}")).json()["status"] != "queued"

        await until(has_begun, 60)
        await asyncio.sleep(chance.uniform(0, 0.3))
        answers[job_id] = (await client.post(f"/v1/jobs/{job_id}/cancel")).status_code

    async with working(add=add):
        await asyncio.gather(*(cancel(job_id) for job_id in jobs))

        statuses = {str(job.id): (await ended(job)).status for job in asked}
    # Who was told that it is asked to stop sees it stopped.
    assert {statuses[one] for one, status in answers.items() if status == 202} == {"cancelled"}
    assert {statuses[one] for one, status in answers.items() if status == 409} == {"succeeded"}
    skus = set(await session.scalars(select(Item.sku)))
    succeeded = {number for job_id, number in jobs.items() if statuses[job_id] == "succeeded"}
    assert skus == {f"RACE-{number}" for number in succeeded}
    told = [(event.payload["job_id"], event.payload["status"]) for event in await recorded()]
    ends = [one for one in told if one[0] in jobs]
    assert sorted(ends) == sorted(statuses.items())
