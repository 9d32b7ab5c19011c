"""What can be done with deliveries to webhooks."""

from typing import cast
from uuid import UUID

import orjson
from sqlalchemy import CursorResult, Delete, func
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.core.clock import now
from pricebook.core.outbox import expect_deliveries
from pricebook.core.pagination import Page
from pricebook.core.reading import Compiled, ReadPool, Row
from pricebook.webhooks import queries
from pricebook.webhooks.errors import WebhookDeliveryNotFound, WebhookInactive
from pricebook.webhooks.models import WebhookDelivery, WebhookMessage
from pricebook.webhooks.schemas import DeliveryListing, ReplayIn
from pricebook.webhooks.service import get_webhook, lock, page_of

_TEST = "webhook.test"


async def list_deliveries(reads: ReadPool, webhook_id: UUID, listing: DeliveryListing) -> Page[Row]:
    """Return one page of a webhook's deliveries, newest first."""
    await get_webhook(reads, webhook_id)
    rows = queries.deliveries_to(webhook_id)
    if listing.status is not None:
        rows = rows.where(WebhookDelivery.status == listing.status)
    return await page_of(reads, rows, WebhookDelivery, listing)


async def get_delivery(reads: ReadPool, webhook_id: UUID, delivery_id: UUID) -> Row:
    """Return a delivery with its body and its latest attempts."""
    chosen = queries.deliveries_to(webhook_id).where(WebhookDelivery.id == delivery_id)
    delivery = await reads.row(Compiled(chosen.add_columns(WebhookMessage.body)))
    if delivery is None:
        raise WebhookDeliveryNotFound(webhook_id=webhook_id, delivery_id=delivery_id)
    attempts = await reads.rows(Compiled(queries.attempts_at(delivery_id)))
    return {**delivery, "attempts": attempts}


async def send_test(session: AsyncSession, webhook_id: UUID) -> Row:
    """Tell a webhook, and no other, of nothing but itself.

    Raises:
        WebhookInactive: It would not be told now.

    """
    if (await lock(session, webhook_id)).paused:
        raise WebhookInactive(webhook_id=webhook_id)
    told = {
        "type": _TEST,
        "timestamp": f"{now():%Y-%m-%dT%H:%M:%S.%fZ}",
        "data": {"webhook_id": webhook_id},
    }
    message = WebhookMessage(id=func.uuidv7(), type=_TEST, body=orjson.dumps(told).decode())
    session.add(message)
    await session.flush()
    delivery = WebhookDelivery(endpoint_id=webhook_id, message_id=message.id)
    session.add(delivery)
    await session.flush()
    expect_deliveries(session)
    return await _shown(session, webhook_id, delivery.id)


async def redeliver(session: AsyncSession, webhook_id: UUID, delivery_id: UUID) -> Row:
    """Begin a new round of attempts at a delivery."""
    await session.execute(queries.redelivered(webhook_id, delivery_id))
    expect_deliveries(session)
    return await _shown(session, webhook_id, delivery_id)


async def _shown(session: AsyncSession, webhook_id: UUID, delivery_id: UUID) -> Row:
    chosen = queries.deliveries_to(webhook_id).where(WebhookDelivery.id == delivery_id)
    row = (await session.execute(chosen)).mappings().one_or_none()
    if row is None:
        raise WebhookDeliveryNotFound(webhook_id=webhook_id, delivery_id=delivery_id)
    return dict(row)


async def replay(session: AsyncSession, webhook_id: UUID, wish: ReplayIn) -> int:
    """Tell a webhook again what happened since; return how many deliveries are due for it."""
    await lock(session, webhook_id)
    statement = queries.replayed(webhook_id, wish.since, only_undelivered=wish.only_undelivered)
    due = cast("CursorResult[object]", await session.execute(statement)).rowcount
    expect_deliveries(session)
    return due


async def prune(session: AsyncSession, days: float) -> int:
    """Delete some of what was delivered so long ago, and messages that are needed no more."""
    deleted = await _delete(session, queries.outdated_deliveries(days))
    untold = list(await session.scalars(queries.untold_messages(days)))
    return deleted + await _delete(session, queries.without_messages(untold))


async def _delete(session: AsyncSession, statement: Delete) -> int:
    return cast("CursorResult[object]", await session.execute(statement)).rowcount
