"""What follows when a receiver fails: more attempts, an end, an alert."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text, update
from tests.conftest import until
from tests.webhooks.conftest import DEAD, DELIVERED, PENDING, price_changed

from pricebook.core.settings import WebhookSettings
from pricebook.webhooks.events import WebhookDeliveryDied, WebhookDisabled
from pricebook.webhooks.models import WebhookAttempt, WebhookDelivery, WebhookEndpoint


async def test_promise_10_an_endpoint_that_always_fails_dies_once_and_is_replayed(
    listener, make_endpoint, happen, run_worker, statuses, recorded, api, admin, session, state_of
):
    endpoint = await make_endpoint(owner_id=admin.id)
    listener.answer("/hook", 500, text="broken")
    await happen(*(price_changed(sku=f"SKU-{number}") for number in range(30)))
    workers = [run_worker(retry_delays_seconds=(0.05, 0.05, 0.05)) for _ in range(2)]

    async def are_all(status):
        for worker in workers:
            worker.wake()
        return set(await statuses(endpoint)) == {status}

    await until(lambda: are_all(DEAD), 20)
    ids = [told.headers["webhook-id"] for told in listener.told]
    assert sorted(ids) == sorted(4 * list(set(ids)))
    assert len(set(ids)) == 30
    died = [one for one in await recorded() if one.type == WebhookDeliveryDied.type]
    (alert,) = died
    assert alert.subject_id == endpoint.id
    assert alert.payload["owner_id"] == str(admin.id)
    assert (await state_of(endpoint)).failing_since is not None

    first = {told.headers["webhook-id"]: told.body for told in listener.told}
    listener.told.clear()
    listener.answer("/hook", 200)
    wish = {"since": "2020-01-01T00:00:00Z", "only_undelivered": True}
    reply = await api.as_(admin).post(f"/v1/webhooks/{endpoint.id}/replay", json=wish)
    assert (reply.status_code, reply.json()) == (202, {"deliveries": 30})
    await until(lambda: are_all(DELIVERED))
    assert {told.headers["webhook-id"]: told.body for told in listener.told} == first
    healthy = await state_of(endpoint)
    assert (healthy.failing_since, healthy.alerted_at) == (None, None)


async def settled_waits(session):
    """Return for each attempt how long it was put off, to the millisecond."""
    settled_at = func.uuid_extract_timestamp(WebhookAttempt.id)
    waits = select(func.extract("epoch", WebhookDelivery.due_at - settled_at), WebhookAttempt)
    rows = await session.execute(
        waits.join(WebhookDelivery, WebhookDelivery.id == WebhookAttempt.delivery_id).order_by(
            WebhookAttempt.id
        )
    )
    return [(float(wait), attempt) for wait, attempt in rows]


async def test_promise_12_every_attempt_comes_as_planned(
    listener, make_endpoint, happen, run_worker, session, statuses
):
    plan = WebhookSettings().retry_delays_seconds
    await make_endpoint()
    listener.answer("/hook", 503)
    await happen(*(price_changed() for _ in range(5)))
    worker = run_worker(retry_delays_seconds=plan)
    for made, delay in enumerate(plan, 1):

        async def are_made(made=made):
            count = await session.scalar(text("SELECT count(*) FROM webhook_attempts"))
            await session.commit()
            return count == 5 * made

        await until(are_made)
        waits = [wait for wait, _attempt in (await settled_waits(session))[-5:]]
        assert all(0.8 * delay - 0.5 <= wait <= 1.2 * delay for wait in waits)
        assert len(set(waits)) > 1
        await session.execute(update(WebhookDelivery).values(due_at=func.now()))
        await session.commit()
        worker.wake()

    async def are_dead():
        return await statuses() == 5 * [DEAD]

    await until(are_dead)


@pytest.mark.parametrize(
    ("retry_after", "least", "most"),
    [
        ("150", 150, 150),
        ("86400", 200, 200),
        ("1", 80, 120),
        ("soon", 80, 120),
        ("9" * 99, 200, 200),
    ],
)
async def test_promise_12_a_receiver_may_say_when_to_come_back(
    listener, make_endpoint, happen, run_worker, session, attempts, retry_after, least, most
):
    await make_endpoint()
    listener.answer("/hook", 429, headers={"Retry-After": retry_after})
    await happen()
    run_worker(retry_delays_seconds=(100,))
    await until(attempts)
    ((wait, _attempt),) = await settled_waits(session)
    assert least - 0.5 <= wait <= most


async def test_promise_12_a_receiver_may_name_a_date(
    listener, make_endpoint, happen, run_worker, session, attempts
):
    await make_endpoint()
    moment = await session.scalar(select(func.now() + timedelta(seconds=150)))
    date = moment.strftime("%a, %d %b %Y %H:%M:%S GMT")
    listener.answer("/hook", 503, headers={"Retry-After": date})
    await happen()
    run_worker(retry_delays_seconds=(100,))
    await until(attempts)
    ((wait, _attempt),) = await settled_waits(session)
    assert 140 <= wait <= 150


async def test_promise_13_a_receiver_that_is_gone_is_left_alone_at_once(
    listener,
    make_endpoint,
    happen,
    run_worker,
    statuses,
    recorded,
    state_of,
    admin,
    api,
    deliveries,
):
    endpoint = await make_endpoint(owner_id=admin.id)
    listener.answer("/hook", 410)
    await happen(*(price_changed() for _ in range(30)))
    worker = run_worker(concurrency=1)

    async def is_disabled():
        return (await state_of(endpoint)).disabled_reason == "gone"

    await until(is_disabled)
    await until(lambda: all_free(deliveries))
    assert len(listener.told) == 1
    assert sorted(await statuses()) == [DEAD, *(29 * [PENDING])]
    assert sum(one.attempts for one in await deliveries()) == 1
    told = [
        (one.type, one.payload["reason"])
        for one in await recorded()
        if one.subject_id == endpoint.id
    ]
    assert told == [(WebhookDisabled.type, "gone")]
    await happen()
    worker.wake()
    await asyncio.sleep(0.3)
    assert len(await statuses()) == 30

    listener.answer("/hook", 200)
    patch = {"paused": False}
    reply = await api.as_(admin).patch(f"/v1/webhooks/{endpoint.id}", json=patch)
    assert reply.json()["status"] == "active"
    worker.wake()

    async def are_delivered():
        return sorted(await statuses()) == [DEAD, *(29 * [DELIVERED])]

    await until(are_delivered)


async def all_free(deliveries):
    return all(one.leased_until is None for one in await deliveries())


async def test_promise_13_a_redirect_is_a_failure_and_is_not_followed(
    listener, make_endpoint, happen, run_worker, attempts, statuses
):
    for status in (301, 302, 303, 307, 308):
        await make_endpoint(f"/{status}")
        listener.answer(f"/{status}", status, headers={"Location": listener.url + "/elsewhere"})
    await happen()
    run_worker()

    async def are_tried():
        return len(await attempts()) == 5

    await until(are_tried)
    assert {one.error for one in await attempts()} == {"redirect refused"}
    assert await statuses() == 5 * [PENDING]
    assert listener.on("/elsewhere") == []


async def test_promise_13_an_endpoint_that_fails_for_days_is_disabled(
    listener, make_endpoint, happen, run_worker, recorded, state_of, session, admin, statuses
):
    endpoint = await make_endpoint(owner_id=admin.id)
    young = await make_endpoint("/young")
    listener.answer("/hook", 500)
    listener.answer("/young", 500)
    now = func.now()
    await session.execute(
        update(WebhookEndpoint)
        .where(WebhookEndpoint.id == endpoint.id)
        .values(failing_since=now - timedelta(days=5))
    )
    await session.execute(
        update(WebhookEndpoint)
        .where(WebhookEndpoint.id == young.id)
        .values(failing_since=now - timedelta(days=4.9))
    )
    await session.commit()
    await happen(price_changed(), price_changed())
    for _ in range(2):
        run_worker()

    async def is_disabled():
        return (await state_of(endpoint)).disabled_reason == "failing"

    await until(is_disabled)
    await until(lambda: listener.on("/young"))
    assert (await state_of(young)).disabled_at is None
    told = [one for one in await recorded() if one.type == WebhookDisabled.type]
    assert [one.payload for one in told] == [
        {"webhook_id": str(endpoint.id), "reason": "failing", "owner_id": str(admin.id)}
    ]
    assert await statuses(endpoint) == [PENDING, PENDING]


async def test_a_success_is_the_end_of_failing(
    listener, make_endpoint, happen, run_worker, state_of, session
):
    endpoint = await make_endpoint(failing_since=func.now(), alerted_at=func.now())
    before = await state_of(endpoint)
    await happen()
    run_worker()

    async def is_healthy():
        return (await state_of(endpoint)).failing_since is None

    await until(is_healthy)
    after = await state_of(endpoint)
    assert after.alerted_at is None
    assert (after.version, after.updated_at) == (before.version, before.updated_at)
