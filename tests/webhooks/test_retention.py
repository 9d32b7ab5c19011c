"""What was delivered goes in its time; what was not stays, however old."""

from datetime import timedelta

import pytest
from sqlalchemy import func, literal, select, update
from tests.webhooks.conftest import DEAD, DELIVERED, PENDING, price_changed

from pricebook.webhooks import deliveries as service
from pricebook.webhooks.models import WebhookAttempt, WebhookDelivery, WebhookMessage

OLD = func.now() - timedelta(days=31)
YOUNG = func.now() - timedelta(days=29)


@pytest.fixture
def prune(database):
    """Prune as the worker does, until nothing is found."""

    async def prune():
        total = 0
        while True:
            async with database.sessions.begin() as session:
                found = await service.prune(session, 30)
            if not found:
                return total
            total += found

    return prune


async def test_what_was_delivered_long_ago_is_pruned(
    make_endpoint, happen, expand, session, deliveries, prune
):
    await make_endpoint()
    await happen(*(price_changed() for _ in range(5)))
    await expand()
    states = [(DELIVERED, OLD), (DELIVERED, YOUNG), (DEAD, OLD), (PENDING, None), (DELIVERED, OLD)]
    for delivery, (status, settled_at) in zip(await deliveries(), states, strict=True):
        session.add(WebhookAttempt(delivery_id=delivery.id, started_at=OLD, duration_ms=1))
        await session.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.id == delivery.id)
            .values(status=status, settled_at=settled_at, created_at=OLD)
        )
    await session.execute(update(WebhookMessage).values(created_at=OLD))
    await session.commit()
    # Two deliveries, and the two messages that nobody needs any more.
    assert await prune() == 4
    assert [one.status for one in await deliveries()] == [DELIVERED, DEAD, PENDING]
    for table in (WebhookAttempt, WebhookMessage):
        assert await session.scalar(select(func.count()).select_from(table)) == 3


async def test_a_message_lives_as_long_as_any_delivery_of_it(
    make_endpoint, happen, expand, session, deliveries, prune
):
    first, second = await make_endpoint(), await make_endpoint()
    await happen()
    await expand()
    await session.execute(update(WebhookMessage).values(created_at=OLD))
    await session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.endpoint_id == first.id)
        .values(status=DELIVERED, settled_at=OLD)
    )
    await session.commit()
    assert await prune() == 1
    assert [one.endpoint_id for one in await deliveries()] == [second.id]
    assert await session.scalar(select(func.count()).select_from(WebhookMessage)) == 1


async def test_pruning_goes_in_batches(make_endpoint, session, database, prune):
    endpoint = await make_endpoint()
    await session.execute(
        WebhookMessage.__table__.insert().from_select(
            ["id", "type", "body", "created_at"],
            select(func.uuidv7(), literal("x"), literal("{}"), OLD).select_from(
                func.generate_series(1, 1_500)
            ),
        )
    )
    await session.execute(
        WebhookDelivery.__table__.insert().from_select(
            ["endpoint_id", "message_id", "status", "settled_at"],
            select(literal(endpoint.id), WebhookMessage.id, literal(DELIVERED), OLD),
        )
    )
    await session.commit()
    async with database.sessions.begin() as fresh:
        assert await service.prune(fresh, 30) <= 2_000
    assert await session.scalar(select(func.count()).select_from(WebhookDelivery)) == 500
    await session.commit()
    await prune()
    assert await session.scalar(select(func.count()).select_from(WebhookMessage)) == 0
