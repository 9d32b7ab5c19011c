"""Tests, replays and redeliveries: what is sent because somebody asks for it."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import orjson
import pytest
from arq.constants import default_queue_name
from sqlalchemy import delete, func, select, update
from standardwebhooks import Webhook
from tests.conftest import until
from tests.webhooks.conftest import DEAD, DELIVERED, PENDING, price_changed

from pricebook.core.outbox import EventRecord
from pricebook.core.queue import DRAIN
from pricebook.items.events import ItemDeleted
from pricebook.users.events import PasswordResetRequested
from pricebook.webhooks.models import WebhookDelivery, WebhookMessage

EVER = "2020-01-01T00:00:00Z"


@pytest.fixture
def ask(api, admin):
    """Ask something of an endpoint, and return the answer."""

    async def ask(endpoint, wish, body=None):
        reply = await api.as_(admin).post(f"/v1/webhooks/{endpoint.id}/{wish}", json=body)
        assert reply.status_code == 202, reply.text
        return reply.json()

    return ask


@pytest.fixture
def settle(session):
    """Pretend that deliveries were made, or died."""

    async def settle(status, *ids):
        changed = update(WebhookDelivery).values(
            status=status, attempts=4, due_at=func.now() + timedelta(days=1), settled_at=func.now()
        )
        if ids:
            changed = changed.where(WebhookDelivery.id.in_(ids))
        await session.execute(changed)
        await session.commit()

    return settle


async def test_a_test_message_reaches_its_endpoint_and_no_other(
    ask, make_endpoint, run_worker, listener, recorded
):
    endpoint = await make_endpoint(events=["item.deleted"], tags=["tools"])
    await make_endpoint("/other")
    delivery = await ask(endpoint, "test")
    assert (delivery["type"], delivery["status"]) == ("webhook.test", "pending")
    run_worker()
    await until(lambda: listener.told)
    (told,) = listener.told
    body = Webhook(endpoint.secret).verify(told.body, told.headers)
    assert body["type"] == "webhook.test"
    assert body["data"] == {"webhook_id": str(endpoint.id)}
    assert datetime.now(UTC) - datetime.fromisoformat(body["timestamp"]) < timedelta(minutes=1)
    assert told.headers["webhook-id"] == delivery["message_id"]
    assert told.path == "/hook"
    assert await recorded() == []


@pytest.mark.parametrize(
    "state",
    [{"paused_at": func.now()}, {"disabled_at": func.now(), "disabled_reason": "gone"}],
)
async def test_what_is_not_active_cannot_be_tested(api, admin, make_endpoint, state, deliveries):
    endpoint = await make_endpoint(**state)
    reply = await api.as_(admin).post(f"/v1/webhooks/{endpoint.id}/test")
    assert reply.status_code == 409
    assert reply.json()["type"] == "/problems/webhook-inactive"
    assert await deliveries() == []


async def test_a_replay_makes_due_again_what_the_filters_let_pass(
    ask, make_endpoint, happen, expand, settle, deliveries, session
):
    endpoint = await make_endpoint(events=["item.price_changed"], tags=["tools"])
    other = await make_endpoint()
    await happen(
        price_changed(sku="old"),
        price_changed(sku="delivered"),
        price_changed(sku="dead"),
        price_changed(sku="missing"),
        price_changed(sku="untagged", tags=[]),
        ItemDeleted(item_id=uuid4(), sku="deleted", tags=["tools"]),
        PasswordResetRequested(user_id=uuid4()),
    )
    await expand()
    oldest = select(EventRecord.id).order_by(EventRecord.id).limit(1).scalar_subquery()
    await session.execute(
        update(EventRecord)
        .where(EventRecord.id == oldest)
        .values(occurred_at=func.now() - timedelta(minutes=5))
    )
    _old, delivered, dead, missing = await deliveries(endpoint)
    await session.execute(delete(WebhookDelivery).where(WebhookDelivery.id == missing.id))
    await settle(DELIVERED, delivered.id)
    await settle(DEAD, dead.id)
    before = {one.id: one.due_at for one in await deliveries(other)}
    since = (datetime.now(UTC) - timedelta(minutes=2)).isoformat()
    assert await ask(endpoint, "replay", {"since": since}) == {"deliveries": 3}
    due = [one for one in await deliveries(endpoint) if one.message_id != _old.message_id]
    assert [(one.status, one.attempts, one.settled_at) for one in due] == 3 * [(PENDING, 0, None)]
    assert {one.message_id for one in due} == {one.message_id for one in (delivered, dead, missing)}
    assert {one.id: one.due_at for one in await deliveries(other)} == before


async def test_a_replay_may_leave_out_what_was_delivered(
    ask, make_endpoint, happen, expand, settle, deliveries
):
    endpoint = await make_endpoint()
    await happen(*(price_changed() for _ in range(3)))
    await expand()
    ids = [one.id for one in await deliveries()]
    await settle(DELIVERED, *ids[:2])
    await settle(DEAD, ids[2])
    wish = {"since": EVER, "only_undelivered": True}
    assert await ask(endpoint, "replay", wish) == {"deliveries": 1}
    assert [one.status for one in await deliveries()] == [DELIVERED, DELIVERED, PENDING]


async def test_an_endpoint_that_is_new_can_be_told_the_past(
    ask, make_endpoint, happen, expand, run_worker, listener, recorded, deliveries
):
    await happen(price_changed(sku="one"), price_changed(sku="two"))
    await expand()
    endpoint = await make_endpoint()
    assert await deliveries() == []
    assert await ask(endpoint, "replay", {"since": EVER}) == {"deliveries": 2}
    run_worker()
    await until(lambda: len(listener.told) == 2)
    told = {one.headers["webhook-id"]: orjson.loads(one.body) for one in listener.told}
    for event in await recorded():
        body = told[str(event.id)]
        assert body["data"] == event.payload
        assert body["timestamp"] == event.occurred_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def test_a_replay_keeps_the_bytes_that_were_sent_before(
    ask, make_endpoint, happen, expand, session, recorded
):
    endpoint = await make_endpoint()
    await happen()
    await expand()
    await session.execute(update(WebhookMessage).values(body='{"as": "it was"}'))
    await session.commit()
    assert await ask(endpoint, "replay", {"since": EVER}) == {"deliveries": 1}
    assert list(await session.scalars(select(WebhookMessage.body))) == ['{"as": "it was"}']


async def test_the_past_that_is_replayed_before_it_is_expanded_is_told_once(
    ask, make_endpoint, happen, expand, deliveries
):
    endpoint = await make_endpoint()
    await happen()
    assert await ask(endpoint, "replay", {"since": EVER}) == {"deliveries": 1}
    await expand()
    assert len(await deliveries()) == 1


@pytest.mark.parametrize(
    "body",
    [{}, {"since": "yesterday"}, {"since": 5}, {"since": EVER, "only_undelivered": "yes"}],
)
async def test_a_replay_needs_a_moment(api, admin, make_endpoint, body):
    endpoint = await make_endpoint()
    reply = await api.as_(admin).post(f"/v1/webhooks/{endpoint.id}/replay", json=body)
    assert reply.status_code == 422


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
async def test_a_replay_takes_any_moment(ask, make_endpoint, since):
    assert await ask(await make_endpoint(), "replay", {"since": since}) == {"deliveries": 0}


@pytest.mark.parametrize("wish", ["test", "replay", "redeliver"])
async def test_workers_are_told_at_once_of_what_somebody_asks_for(
    wish, ask, make_endpoint, happen, expand, deliveries, app
):
    endpoint = await make_endpoint()
    await happen()
    await expand()
    (delivery,) = await deliveries()
    await app.state.valkey.flushdb()
    if wish == "redeliver":
        wish = f"deliveries/{delivery.id}/redeliver"
    await ask(endpoint, wish, {"since": EVER} if wish == "replay" else None)
    await until(lambda: app.state.valkey.zscore(default_queue_name, DRAIN))


@pytest.mark.parametrize("status", [DELIVERED, DEAD])
async def test_a_redelivery_is_a_new_round(
    ask, make_endpoint, happen, expand, settle, deliveries, run_worker, listener, status
):
    endpoint = await make_endpoint()
    await happen(price_changed(), price_changed())
    await expand()
    await settle(status)
    chosen, _other = await deliveries()
    shown = await ask(endpoint, f"deliveries/{chosen.id}/redeliver")
    assert (shown["id"], shown["status"], shown["attempt_count"]) == (str(chosen.id), "pending", 0)
    run_worker()

    async def is_delivered():
        return [(one.status, one.attempts) for one in await deliveries()] == [
            (DELIVERED, 1),
            (status, 4),
        ]

    await until(is_delivered)
    assert [one.headers["webhook-id"] for one in listener.told] == [str(chosen.message_id)]
