"""From an event to signed POSTs: who is told, and of what."""

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import orjson
from aiohttp import web
from sqlalchemy import func, select, text, update
from standardwebhooks import Webhook
from tests.conftest import until
from tests.webhooks.conftest import DELIVERED, PENDING, price_changed

from pricebook.items.events import ItemDeleted
from pricebook.subscriptions import SUBSCRIPTIONS
from pricebook.users.events import UserDisabled
from pricebook.webhooks.events import NEVER_TOLD, WebhookDisabled
from pricebook.webhooks.models import WebhookDelivery, WebhookEndpoint
from pricebook.webhooks.service import deliver


async def test_an_event_becomes_a_signed_post(
    listener, make_endpoint, happen, run_worker, statuses, attempts, recorded
):
    endpoint = await make_endpoint()
    await happen()
    run_worker()

    async def is_delivered():
        return await statuses() == [DELIVERED]

    await until(is_delivered)
    (told,) = listener.told
    (event,) = await recorded()
    assert Webhook(endpoint.secret).verify(told.body, told.headers) == {
        "type": "item.price_changed",
        "timestamp": event.occurred_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "data": event.payload,
    }
    assert told.headers["webhook-id"] == str(event.id)
    assert told.headers["Content-Type"] == "application/json"
    assert told.headers["User-Agent"].startswith("Pricebook/")
    (attempt,) = await attempts()
    assert (attempt.status_code, attempt.error, attempt.response_head) == (204, None, None)


def test_every_event_is_told_but_those_that_only_ask_for_a_mail():
    told = {event.type for event, reactions in SUBSCRIPTIONS.items() if deliver in reactions}
    assert told == {event.type for event in SUBSCRIPTIONS} - NEVER_TOLD


async def test_an_endpoint_hears_of_what_it_asked_for(
    make_endpoint, happen, expand, session, deliveries
):
    everything = await make_endpoint()
    deletions = await make_endpoint(events=["item.deleted", "user.disabled"])
    tools = await make_endpoint(tags=["tools", "paint"])
    deleted_paint = await make_endpoint(events=["item.deleted"], tags=["paint"])
    await happen(
        price_changed(tags=["tools", "sale"]),
        price_changed(tags=[]),
        ItemDeleted(item_id=uuid4(), sku="B", tags=["brushes", "paint"]),
        UserDisabled(user_id=uuid4()),
    )
    await expand()
    bodies = dict(
        (await session.execute(text("SELECT id, body::json FROM webhook_messages"))).all()
    )

    async def heard(endpoint):
        told = [bodies[one.message_id] for one in await deliveries(endpoint)]
        return [(one["type"], one["data"].get("tags")) for one in told]

    changed, untagged = ("item.price_changed", ["tools", "sale"]), ("item.price_changed", [])
    deleted, disabled = ("item.deleted", ["brushes", "paint"]), ("user.disabled", None)
    assert await heard(everything) == [changed, untagged, deleted, disabled]
    assert await heard(deletions) == [deleted, disabled]
    assert await heard(tools) == [changed, deleted]
    assert await heard(deleted_paint) == [deleted]


async def test_an_endpoint_hears_of_others_trouble_but_not_of_its_own(
    make_endpoint, happen, expand, statuses
):
    one, other = await make_endpoint(), await make_endpoint()
    await happen(WebhookDisabled(webhook_id=one.id, reason="gone", owner_id=None))
    await expand()
    assert await statuses(one) == []
    assert await statuses(other) == [PENDING]


async def test_no_message_is_written_that_nobody_wants(make_endpoint, happen, expand, session):
    await make_endpoint(events=["item.deleted"])
    await happen()
    await expand()
    assert await session.scalar(text("SELECT count(*) FROM webhook_messages")) == 0


async def test_a_paused_endpoint_is_told_later_and_a_disabled_one_never(
    listener, make_endpoint, happen, run_worker, session, statuses
):
    paused = await make_endpoint("/paused", paused_at=func.now())
    disabled = await make_endpoint("/off", disabled_at=func.now(), disabled_reason="failing")
    active = await make_endpoint("/active")
    await happen()
    worker = run_worker()
    await until(lambda: listener.on("/active"))
    assert await statuses(paused) == [PENDING]
    await session.execute(update(WebhookEndpoint).values(paused_at=None))
    await session.commit()
    worker.wake()
    await until(lambda: listener.on("/paused"))
    assert await statuses(disabled) == []
    assert listener.on("/off") == []
    assert await statuses(active) == [DELIVERED]


async def test_what_is_sent_again_is_the_same_to_the_byte(
    listener, make_endpoint, happen, run_worker, session
):
    endpoint = await make_endpoint()
    listener.answer("/hook", 500)
    await happen(price_changed(name='Häm"mer\\ \u2028 "', sku="Ünï"))
    worker = run_worker()
    await until(lambda: listener.told)
    listener.answer("/hook", 200)

    async def is_due_again():
        await session.execute(update(WebhookDelivery).values(due_at=func.now()))
        await session.commit()
        worker.wake()
        return len(listener.told) > 1

    await until(is_due_again)
    first, second = listener.told
    assert first.body == second.body
    assert orjson.loads(first.body)["data"]["name"] == 'Häm"mer\\ \u2028 "'
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    Webhook(endpoint.secret).verify(second.body, second.headers)


async def test_promise_11_an_endpoint_that_hangs_delays_no_other(
    listener, make_endpoint, happen, run_worker, statuses, session
):
    endpoints = [await make_endpoint(f"/{number}") for number in range(20)]
    # So little is held at once that the one that hangs could fill it up.
    worker = run_worker(capacity=60, concurrency=3, timeout_seconds=60)

    async def waits_of(listening):
        """The 99th percentile of the seconds until they were told, of 30 events."""
        began = datetime.now(UTC)
        for _ in range(6):
            await happen(*(price_changed() for _ in range(5)))
            worker.wake()
            await asyncio.sleep(0.2)
        ours = (
            WebhookDelivery.created_at > began,
            WebhookDelivery.endpoint_id.in_([endpoint.id for endpoint in listening]),
            WebhookDelivery.status == DELIVERED,
        )
        told = select(func.count()).where(*ours)

        async def are_all_told():
            return await session.scalar(told) == 30 * len(listening)

        await until(are_all_told, 20)
        seconds = func.extract("epoch", WebhookDelivery.settled_at - WebhookDelivery.created_at)
        return await session.scalar(
            select(func.percentile_cont(0.99).within_group(seconds)).where(*ours)
        )

    alone = await waits_of(endpoints)
    release = listener.hang("/0")
    # A machine that is busy with something else is slow with the one and with the other.
    assert await waits_of(endpoints[1:]) < max(2, 2 * alone)
    assert await statuses(endpoints[0]) == [*(30 * [DELIVERED]), *(30 * [PENDING])]
    assert len(listener.on("/0")) == 30 + 3
    release.set()


async def test_an_endpoint_gets_so_many_requests_at_once(
    listener, make_endpoint, happen, run_worker, statuses
):
    await make_endpoint()
    under_way, most = 0, 0

    async def answer(_request):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return web.Response()

    listener.answers["/hook"] = answer
    await happen(*(price_changed() for _ in range(50)))
    run_worker(concurrency=4)

    async def is_done():
        return await statuses() == 50 * [DELIVERED]

    await until(is_done)
    assert most == 4
