"""The dispatcher: each event expanded once, each delivery sent until it is done or dead."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import ClassVar
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, insert, select, text, update
from tests.conftest import until

from pricebook.core.database import open_database
from pricebook.core.deliveries import Claim, Outcome, Status, is_due, judge
from pricebook.core.dispatch import Dispatcher
from pricebook.core.expansion import Expander
from pricebook.core.lanes import Lane
from pricebook.core.leases import leased
from pricebook.core.outbox import EventRecord, record
from pricebook.core.settings import DatabaseSettings, DeliverySettings
from pricebook.notifications.models import Mail
from pricebook.users.events import UserDisabled

DELAYS = (5.0, 300.0)
SETTINGS = DeliverySettings(lease_seconds=1)


class TestLane(Lane[Claim, Outcome]):
    """Sends what lies in the table of mails, to nowhere."""

    __test__ = False
    name: ClassVar[str] = "test"
    table: ClassVar[type[Mail]] = Mail

    def __init__(self, *outcomes: Outcome | Exception | None, capacity: int = 10) -> None:
        """Without an outcome, an attempt hangs; the last one repeats itself."""
        self.capacity = capacity
        self.delays_seconds = DELAYS
        self.lease_seconds = SETTINGS.lease_seconds
        self.outcomes = list(outcomes)
        self.sent: list[UUID] = []
        self.settlements: list[Status] = []

    async def claim(self, session, held, room) -> Sequence[Claim]:
        due = select(Mail.id).where(*is_due(Mail)).limit(room).with_for_update(skip_locked=True)
        taken = leased(Mail, self.lease_seconds).where(Mail.id.in_(due))
        rows = await session.execute(taken.returning(Mail.id, Mail.lease, Mail.attempts))
        return [Claim(id=row.id, lease=row.lease, attempts=row.attempts) for row in rows]

    async def send(self, claim) -> Outcome:
        self.sent.append(claim.id)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if outcome is None:
            await asyncio.sleep(3600)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def broken(self, error) -> Outcome:
        return Outcome(error=type(error).__name__)

    async def settled(self, session, results) -> None:
        if any(outcome.error == "unwritable" for _claim, outcome, _verdict in results):
            raise ZeroDivisionError
        self.settlements += [verdict.status for _claim, _outcome, verdict in results]


DELIVERED = Outcome(is_delivered=True)
FAILED = Outcome(error="no")


@pytest.fixture
async def running(database):
    """Run dispatchers over lanes until the test ends."""
    started = []

    def run(lane, subscriptions=None, finish_seconds=0.1):
        dispatcher = Dispatcher(database, subscriptions or {}, [lane], SETTINGS)
        task = asyncio.create_task(dispatcher.run(finish_seconds))
        started.append((dispatcher, task))
        return dispatcher, task

    yield run
    for dispatcher, task in started:
        dispatcher.stop()
        await task


@pytest.fixture
async def make_mail(session, viewer):
    async def make() -> UUID:
        mail = Mail(user_id=viewer.id, kind="test")
        session.add(mail)
        await session.commit()
        return mail.id

    return make


async def state_of(database, mail_id):
    async with database.sessions() as fresh:
        return await fresh.get(Mail, mail_id)


async def test_what_is_due_is_delivered_once(database, make_mail, running):
    mail_id = await make_mail()
    lane = TestLane(DELIVERED)
    running(lane)

    async def is_delivered():
        return (await state_of(database, mail_id)).status == Status.DELIVERED

    await until(is_delivered)
    mail = await state_of(database, mail_id)
    assert (mail.attempts, mail.lease, mail.leased_until) == (1, 1, None)
    assert mail.settled_at is not None
    assert lane.sent == [mail_id]
    assert lane.settlements == [Status.DELIVERED]


async def test_a_wake_up_is_quicker_than_the_beat(database, make_mail, running):
    lane = TestLane(DELIVERED)
    dispatcher, _task = running(lane)
    await asyncio.sleep(0.1)
    mail_id = await make_mail()
    dispatcher.wake()

    async def is_sent():
        return lane.sent == [mail_id]

    await until(is_sent, 0.5)


async def test_failures_are_tried_again_as_planned_and_end_in_death(
    database, make_mail, running, session
):
    mail_id = await make_mail()
    lane = TestLane(FAILED)
    running(lane)
    for attempt, delay in enumerate((*DELAYS, None), 1):

        async def is_settled(attempt=attempt):
            return (await state_of(database, mail_id)).attempts == attempt

        await until(is_settled)
        mail = await state_of(database, mail_id)
        if delay is None:
            assert mail.status == Status.DEAD
            break
        assert mail.status == Status.PENDING
        now = await session.scalar(select(func.clock_timestamp()))
        left = (mail.due_at - now).total_seconds()
        assert 0.8 * delay - 2 <= left <= 1.2 * delay
        await session.execute(update(Mail).values(due_at=func.now()))
        await session.commit()
    assert len(lane.sent) == len(DELAYS) + 1


def test_retry_after_puts_the_next_attempt_off_but_not_for_ever():
    def wait(asked):
        outcome = Outcome(retry_after_seconds=asked)
        return judge(DELAYS, 0, outcome).wait_seconds

    assert wait(7) == 7
    assert wait(3_600) == 10
    assert 4 <= wait(1) <= 6
    assert 4 <= wait(None) <= 6


def test_waits_are_spread():
    waits = {judge(DELAYS, 1, FAILED).wait_seconds for _ in range(200)}
    assert len(waits) > 100
    assert 240 <= min(waits) < 270
    assert 330 < max(waits) <= 360


def test_a_final_failure_is_dead_at_once():
    assert judge(DELAYS, 0, Outcome(is_final=True)).status == Status.DEAD


async def test_a_send_that_raises_is_a_failure(database, make_mail, running):
    mail_id = await make_mail()
    running(TestLane(ZeroDivisionError()))

    async def is_settled():
        return (await state_of(database, mail_id)).attempts == 1

    await until(is_settled)
    assert (await state_of(database, mail_id)).status == Status.PENDING


async def test_an_outcome_that_cannot_be_written_down_holds_up_no_other(
    database, make_mail, running
):
    mail_ids = [await make_mail() for _ in range(3)]
    lane = TestLane(DELIVERED, Outcome(error="unwritable"), DELIVERED)
    running(lane)

    async def are_settled():
        states = [await state_of(database, mail_id) for mail_id in mail_ids]
        return [mail.attempts for mail in states] == [1, 1, 1]

    await until(are_settled)
    states = [(await state_of(database, mail_id)).status for mail_id in mail_ids]
    assert sorted(states) == [Status.DELIVERED, Status.DELIVERED, Status.PENDING]
    assert lane.settlements == [Status.DELIVERED, Status.DELIVERED]


async def test_a_lease_is_renewed_while_sending_goes_on(database, make_mail, running):
    mail_id = await make_mail()
    first, second = TestLane(None), TestLane(DELIVERED)
    running(first)

    async def is_sent():
        return bool(first.sent)

    await until(is_sent)
    running(second)
    await asyncio.sleep(2 * SETTINGS.lease_seconds)
    assert second.sent == []
    assert (await state_of(database, mail_id)).lease == 1


async def test_a_lease_that_ran_out_is_taken_over_and_the_late_outcome_counts_for_nothing(
    database, make_mail, running, session
):
    mail_id = await make_mail()
    late = TestLane(None)
    running(late)

    async def is_sent():
        return bool(late.sent)

    await until(is_sent)
    # As if the worker had been gone for longer than its lease.
    past = func.now() - timedelta(seconds=1)
    await session.execute(update(Mail).values(leased_until=past, lease=Mail.lease + 1))
    await session.commit()
    running(TestLane(DELIVERED))

    async def is_delivered():
        return (await state_of(database, mail_id)).status == Status.DELIVERED

    await until(is_delivered)
    mail = await state_of(database, mail_id)
    assert (mail.lease, mail.attempts) == (3, 1)
    assert late.settlements == []


async def test_a_stop_hands_back_what_is_not_sent_yet(database, make_mail, running):
    mail_id = await make_mail()
    lane = TestLane(None)
    dispatcher, task = running(lane)

    async def is_sent():
        return bool(lane.sent)

    await until(is_sent)
    dispatcher.stop()
    async with asyncio.timeout(5):
        await task
    mail = await state_of(database, mail_id)
    assert (mail.status, mail.leased_until, mail.attempts) == (Status.PENDING, None, 0)


async def test_a_lane_holds_no_more_than_its_capacity(database, make_mail, running):
    for _ in range(5):
        await make_mail()
    lane = TestLane(None, capacity=2)
    running(lane)
    await asyncio.sleep(0.5)
    assert len(lane.sent) == 2


async def react_with_mails(session, event_ids):
    events = select(EventRecord.subject_id, text("'told'"), EventRecord.id)
    chosen = events.where(EventRecord.id.in_(event_ids))
    await session.execute(insert(Mail).from_select(["user_id", "kind", "event_id"], chosen))


async def mails(database):
    async with database.sessions() as fresh:
        return list(await fresh.scalars(select(Mail)))


async def test_each_event_is_expanded_once_however_many_look(database, session, viewer, recorded):
    for _ in range(50):
        record(session, UserDisabled(user_id=viewer.id))
    await session.commit()
    expanders = [Expander(database, {UserDisabled: [react_with_mails]}, 7) for _ in range(4)]

    async def expand_all(expander):
        while await expander.expand():
            pass

    await asyncio.gather(*map(expand_all, expanders))
    assert all(event.expanded_at for event in await recorded())
    event_ids = [mail.event_id for mail in await mails(database)]
    assert len(event_ids) == len(set(event_ids)) == 50


async def test_an_event_that_cannot_be_expanded_holds_up_no_other(
    database, session, viewer, recorded
):
    good = viewer.id
    for user_id in (good, uuid4(), good):
        record(session, UserDisabled(user_id=user_id))
    await session.commit()
    expander = Expander(database, {UserDisabled: [react_with_mails]}, 10)
    assert await expander.expand() is False
    assert await expander.expand() is False
    expanded = [event.subject_id for event in await recorded() if event.expanded_at]
    assert expanded == [good, good]
    assert len(await mails(database)) == 2


async def test_events_too_many_for_one_statement_are_expanded_in_smaller_steps(
    settings, session, viewer, recorded
):
    async def react_slowly(session, event_ids):
        await session.execute(select(func.pg_sleep(0.04 * len(event_ids))))

    for _ in range(20):
        record(session, UserDisabled(user_id=viewer.id))
    await session.commit()
    hurried = settings.model_copy(
        update={"database": DatabaseSettings(statement_timeout_seconds=0.5)}
    )
    async with open_database(hurried, "tests") as database:
        at_once = DeliverySettings(expansion_batch=20)
        dispatcher = Dispatcher(database, {UserDisabled: [react_slowly]}, [], at_once)
        task = asyncio.create_task(dispatcher.run(0))

        async def are_expanded():
            return all(event.expanded_at for event in await recorded())

        await until(are_expanded)
        dispatcher.stop()
        await task


async def test_what_is_due_is_delivered_while_nothing_can_be_expanded(
    database, session, viewer, make_mail, running
):
    async def fail(session, event_ids):
        raise ConnectionResetError

    record(session, UserDisabled(user_id=viewer.id))
    await session.commit()
    lane = TestLane(DELIVERED)
    running(lane, {UserDisabled: [fail]})
    mail_id = await make_mail()

    async def is_delivered():
        return (await state_of(database, mail_id)).status == Status.DELIVERED

    await until(is_delivered)
