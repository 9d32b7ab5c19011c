"""A worker that is killed, stopped or paused amid deliveries: none is lost, none waits for long."""

import asyncio
import signal
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select
from tests.core.test_database import Line
from tests.faults.conftest import LEASE_SECONDS, add_endpoint, add_events, eventually

from pricebook.core.deliveries import Status
from pricebook.webhooks.models import WebhookAttempt, WebhookDelivery

RESTARTS = 20


@pytest.fixture
async def receiver(receive, session, for_delivery):
    made, url = await receive()
    await add_endpoint(session, for_delivery, f"{url}/a")
    return made


async def deliveries(database):
    async with database.sessions() as session:
        return list(await session.scalars(select(WebhookDelivery)))


async def attempts(database):
    async with database.sessions() as session:
        return await session.scalar(select(func.count()).select_from(WebhookAttempt))


async def test_what_a_killed_worker_was_sending_is_taken_up_within_10_seconds(
    run_worker, receiver, session, database, backlog
):
    receiver.may_answer.clear()
    first = run_worker()
    await add_events(session, 5)

    async def is_sending():
        return receiver.asked["/a"] == 5

    await eventually(is_sending)
    run_worker()
    first.kill()
    receiver.may_answer.set()
    assert await eventually(backlog.is_gone) < 10
    assert [(one.status, one.lease) for one in await deliveries(database)] == [
        (Status.DELIVERED, 2)
    ] * 5
    # The first worker's attempts died with it; the receiver knows both by the same id.
    assert await attempts(database) == 5
    assert receiver.taken["/a"].keys() == {
        str(one.message_id) for one in await deliveries(database)
    }


async def test_20_restarts_of_the_worker_drop_nothing_and_leave_nothing_stuck(
    run_worker, receiver, session, backlog, for_delivery
):
    receiver.answer_seconds = 0.05
    # So that a stop comes amid much that is waiting, and not at its end.
    few = for_delivery.webhooks.model_copy(update={"capacity": 20})
    await add_events(session, RESTARTS * 100)
    for _ in range(RESTARTS):
        asked = receiver.asked["/a"]
        worker = run_worker(webhooks=few)

        async def is_delivering(asked=asked):
            return receiver.asked["/a"] >= asked + 15

        await eventually(is_delivering)
        worker.send(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait)
        assert worker.exit_code == 0
        assert await backlog.leased() == 0
    assert await backlog.pending() > 0
    receiver.answer_seconds = 0
    run_worker()
    await eventually(backlog.is_gone)
    assert await backlog.unfinished() == 0
    assert set(receiver.taken["/a"].values()) == {1}
    assert len(receiver.taken["/a"]) == RESTARTS * 100


async def test_a_stop_hands_back_what_a_slow_receiver_has_not_answered(
    run_worker, receiver, session, database, backlog
):
    receiver.may_answer.clear()
    worker = run_worker(stop_seconds=1)
    await add_events(session, 3)

    async def is_sending():
        return receiver.asked["/a"] == 3

    await eventually(is_sending)
    worker.send(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait, 5)
    assert worker.exit_code == 0
    found = await deliveries(database)
    assert [(one.status, one.leased_until, one.attempts) for one in found] == [
        (Status.PENDING, None, 0)
    ] * 3
    receiver.may_answer.set()
    run_worker()
    assert await eventually(backlog.is_gone) < LEASE_SECONDS


async def test_a_worker_that_sleeps_past_its_lease_changes_nothing_when_it_wakes(
    run_worker, receiver, session, database, backlog
):
    receiver.may_answer.clear()
    sleeper = run_worker()
    await add_events(session, 2)

    async def is_sending():
        return receiver.asked["/a"] == 2

    await eventually(is_sending)
    sleeper.send(signal.SIGSTOP)
    receiver.may_answer.set()
    run_worker()
    await eventually(backlog.is_gone)
    before = [
        (one.status, one.lease, one.attempts, one.settled_at) for one in await deliveries(database)
    ]
    assert {lease for _status, lease, *_ in before} == {2}
    sleeper.send(signal.SIGCONT)
    # It reads the answers that have lain there, and has them to record under the old number.
    await asyncio.sleep(2)
    assert sleeper.is_alive()
    assert [
        (one.status, one.lease, one.attempts, one.settled_at) for one in await deliveries(database)
    ] == before
    assert await attempts(database) == 2
    await add_events(session, 1)
    await eventually(backlog.is_gone)


@pytest.fixture
async def line(settings):
    """The way from a worker to PostgreSQL, which may fall silent."""
    url = urlsplit(settings.database_url.get_secret_value())
    made = Line(url.hostname, url.port)
    await made.connect()
    yield made
    made.thaw()
    await made.cut()


async def test_a_stop_waits_for_no_database_that_is_silent(
    run_worker, receiver, session, settings, line
):
    url = urlsplit(settings.database_url.get_secret_value())
    way = url.netloc.replace(f":{url.port}", f":{line.port}")
    worker = run_worker(database_url=SecretStr(url._replace(netloc=way).geturl()), stop_seconds=2)
    await add_events(session, 3)

    async def is_sent():
        return receiver.asked["/a"] == 3

    await eventually(is_sent)
    line.freeze()
    # Long enough for it to have asked.
    await asyncio.sleep(1.5)
    worker.send(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait, 15)
    assert worker.exit_code == 0
