"""What cannot be expanded or written down now: it waits, is not lost, and holds up nothing else."""

import asyncio

import pytest
from sqlalchemy import select, text
from tests.faults.conftest import LEASE_SECONDS, add_endpoint, add_events, eventually

from pricebook.core.outbox import EventRecord

SPOILT = """
    ALTER TABLE webhook_messages ADD CONSTRAINT spoilt CHECK (body NOT LIKE '%GONE-0%') NOT VALID
"""
MENDED = "ALTER TABLE webhook_messages DROP CONSTRAINT spoilt"


@pytest.fixture
async def receiver(receive, session, for_delivery):
    made, url = await receive()
    await add_endpoint(session, for_delivery, f"{url}/a")
    return made


@pytest.fixture
async def _spoilt(database):
    """Refuse the message of the first event."""
    for statement in (SPOILT, MENDED):
        async with database.sessions.begin() as session:
            await session.execute(text(statement))
        if statement == SPOILT:
            yield


@pytest.mark.usefixtures("_spoilt")
async def test_an_event_that_cannot_be_expanded_holds_up_no_other(
    run_worker, receiver, session, backlog
):
    worker = run_worker()
    for told in (2, 4):
        await add_events(session, 3)

        async def are_told(told=told):
            return len(receiver.taken["/a"]) == told

        await eventually(are_told)

    async def is_recorded():
        return await backlog.pending() == 0

    await eventually(is_recorded)
    left = select(EventRecord.payload["sku"]).where(EventRecord.expanded_at.is_(None))
    assert list(await session.scalars(left)) == ["GONE-0", "GONE-0"]
    assert worker.is_alive()


async def test_outcomes_that_cannot_be_written_down_are_kept_and_nothing_is_sent_again(
    run_worker, receiver, session, backlog
):
    for _ in range(2):
        run_worker()
    await session.execute(text("LOCK TABLE webhook_attempts IN SHARE MODE"))
    async with backlog.database.sessions() as other:
        await add_events(other, 20)

    async def are_sent():
        return receiver.asked["/a"] == 20

    await eventually(are_sent)
    await asyncio.sleep(LEASE_SECONDS + 2)
    assert await backlog.pending() == 20
    await session.commit()
    await eventually(backlog.is_gone, 10)
    assert receiver.asked["/a"] == 20
