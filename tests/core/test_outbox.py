"""Events: written with the change they tell of, or not at all, and read in their order."""

from typing import ClassVar
from uuid import UUID, uuid4

from sqlalchemy import select, text

from pricebook.core.context import RequestContext, enter_context
from pricebook.core.outbox import Event, EventRecord, record


class BoxOpened(Event):
    type: ClassVar[str] = "box.opened"
    subject: ClassVar[str] = "box_id"

    box_id: UUID
    by: str


async def test_an_event_is_kept_if_and_only_if_its_transaction_is(session, recorded):
    kept, lost = uuid4(), uuid4()
    record(session, BoxOpened(box_id=lost, by="Ann"))
    await session.flush()
    await session.rollback()
    record(session, BoxOpened(box_id=kept, by="Bob"))
    await session.commit()
    (event,) = await recorded()
    assert (event.type, event.subject_id) == ("box.opened", kept)
    assert event.payload == {"box_id": str(kept), "by": "Bob"}
    assert event.expanded_at is None
    assert (event.actor_id, event.request_id) == (None, None)


async def test_an_event_says_whose_request_it_was(session, recorded):
    user_id = uuid4()
    enter_context(RequestContext("till-7:0001", user_id=user_id))
    record(session, BoxOpened(box_id=uuid4(), by="Ann"))
    await session.commit()
    (event,) = await recorded()
    assert (event.actor_id, event.request_id) == (user_id, "till-7:0001")


async def test_an_event_may_appear_before_one_that_comes_first_in_the_order(database):
    """Transactions commit out of order: so no number tells how far a reader has read."""
    order = select(EventRecord).order_by(EventRecord.transaction_id, EventRecord.id)

    async def read():
        async with database.sessions() as reader:
            return [event.payload["by"] for event in await reader.scalars(order)]

    async with database.sessions() as early, database.sessions() as late:
        record(early, BoxOpened(box_id=uuid4(), by="early"))
        await early.flush()
        record(late, BoxOpened(box_id=uuid4(), by="late"))
        await late.commit()
        assert await read() == ["late"]
        await early.commit()
    assert await read() == ["early", "late"]


async def test_ids_are_made_by_postgresql_in_order(session):
    for _ in range(3):
        record(session, BoxOpened(box_id=uuid4(), by="Ann"))
        await session.flush()
    by_id = select(EventRecord.id).order_by(EventRecord.id)
    by_time = select(EventRecord.id).order_by(EventRecord.occurred_at)
    assert list(await session.scalars(by_id)) == list(await session.scalars(by_time))
    assert await session.scalar(text("SELECT min(uuid_extract_version(id)) FROM events")) == 7
    await session.rollback()
