"""The statements of the lane: what a worker claims, and what it writes down afterwards."""

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Insert,
    Select,
    Text,
    Update,
    Uuid,
    and_,
    case,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    update,
)

from pricebook.core.deliveries import is_due
from pricebook.core.leases import arrays, leased, one_of
from pricebook.core.outbox import what_led_to
from pricebook.webhooks.models import (
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookMessage,
)

# Claimed ahead for an endpoint that answers, so that it need not wait for the next look.
_AHEAD = 100

_IS_ACTIVE = and_(WebhookEndpoint.paused_at.is_(None), WebhookEndpoint.disabled_at.is_(None))


def claimed(
    held: Mapping[UUID, int], room: int, *, concurrency: int, capacity: int, lease_seconds: float
) -> Update:
    """Lease what is due, up to `room`, the endpoints of which least is `held` coming first.

    Of an endpoint that answers some is claimed ahead; but all that are active have a share of the
    capacity, so that none that hangs takes another's. One that fails gets what it is sent at once.
    """
    chosen = _chosen(held, concurrency, capacity).limit(room).cte("chosen")
    chosen = chosen.prefix_with("MATERIALIZED")
    return (
        leased(WebhookDelivery, lease_seconds)
        .where(
            WebhookDelivery.id == chosen.c.delivery_id,
            WebhookMessage.id == WebhookDelivery.message_id,
        )
        .returning(
            WebhookDelivery.id,
            WebhookDelivery.lease,
            WebhookDelivery.attempts,
            WebhookDelivery.endpoint_id,
            WebhookDelivery.message_id,
            WebhookMessage.body,
            chosen.c.url,
            chosen.c.sealed_secret,
            chosen.c.old_sealed_secret,
            *what_led_to(WebhookDelivery.message_id),
        )
    )


def _chosen(held: Mapping[UUID, int], concurrency: int, capacity: int) -> Select[*tuple[Any, ...]]:
    holding = arrays(
        ("endpoint_id", Uuid(), list(held)), ("count", BigInteger(), list(held.values()))
    )
    count = func.coalesce(holding.c.count, 0)
    share = func.greatest(concurrency, func.least(_AHEAD, literal(capacity) // func.count().over()))
    most = case((WebhookEndpoint.failing_since.is_(None), share), else_=concurrency)
    # Many at a time cost little more than one.
    is_low = count <= func.greatest(most / 2, concurrency)
    still_signs = WebhookEndpoint.old_secret_until > func.now()
    endpoint = (
        select(
            WebhookEndpoint.id,
            WebhookEndpoint.url,
            WebhookEndpoint.sealed_secret,
            case((still_signs, WebhookEndpoint.old_sealed_secret)).label("old_sealed_secret"),
            case((is_low, most - count), else_=0).label("room"),
        )
        .outerjoin(holding, holding.c.endpoint_id == WebhookEndpoint.id)
        .where(_IS_ACTIVE)
        .order_by(count)
        .subquery("endpoint")
    )
    due = (
        select(WebhookDelivery.id)
        .where(WebhookDelivery.endpoint_id == endpoint.c.id, *is_due(WebhookDelivery))
        .order_by(WebhookDelivery.due_at, WebhookDelivery.id)
        .limit(endpoint.c.room)
        .with_for_update(skip_locked=True)
        .lateral("due")
    )
    shown = (endpoint.c.url, endpoint.c.sealed_secret, endpoint.c.old_sealed_secret)
    return select(due.c.id.label("delivery_id"), *shown).select_from(endpoint).join(due, true())


def new_attempts(rows: Sequence[tuple[Any, ...]]) -> Insert:
    """Write attempts down: delivery, start, duration, status, error, head of the answer."""
    deliveries, starts, durations, codes, errors, heads = zip(*rows, strict=True)
    given = arrays(
        ("delivery_id", Uuid(), deliveries),
        ("started_at", DateTime(timezone=True), starts),
        ("duration_ms", BigInteger(), durations),
        ("status_code", BigInteger(), codes),
        ("error", Text(), errors),
        ("response_head", Text(), heads),
    )
    return insert(WebhookAttempt).from_select([column.name for column in given.c], select(given))


def locked(endpoint_ids: Collection[UUID], *conditions: ColumnElement[bool]) -> Select[UUID]:
    """Lock endpoints, always in the same order, so that no two workers wait for each other."""
    chosen = select(WebhookEndpoint.id).where(
        WebhookEndpoint.id == one_of(endpoint_ids), *conditions
    )
    return chosen.order_by(WebhookEndpoint.id).with_for_update(key_share=True)


def _kept(endpoint_ids: Collection[UUID], *conditions: ColumnElement[bool]) -> Update:
    """Change the state of endpoints, which is no edit: version and time of change stay."""
    chosen = update(WebhookEndpoint).where(
        WebhookEndpoint.id.in_(locked(endpoint_ids, *conditions))
    )
    return chosen.values(updated_at=WebhookEndpoint.updated_at)


def recovered(endpoint_ids: Collection[UUID]) -> Update:
    """Forget that endpoints failed; it is written only where there is something to forget."""
    was_failing = or_(
        WebhookEndpoint.failing_since.is_not(None), WebhookEndpoint.alerted_at.is_not(None)
    )
    return _kept(endpoint_ids, was_failing).values(failing_since=None, alerted_at=None)


def failing(endpoint_ids: Collection[UUID]) -> Update:
    """Remember since when endpoints fail."""
    began = _kept(endpoint_ids, WebhookEndpoint.failing_since.is_(None))
    return began.values(failing_since=func.now())


def disabled_as_gone(endpoint_ids: Collection[UUID]) -> Update:
    """Disable endpoints; those that were not come back, with their owners."""
    return _disabled(endpoint_ids, "gone", true())


def disabled_as_failing(endpoint_ids: Collection[UUID], days: float) -> Update:
    """Disable those endpoints that have failed for so long; they come back likewise."""
    is_long = WebhookEndpoint.failing_since <= func.now() - timedelta(days=days)
    return _disabled(endpoint_ids, "failing", is_long)


def _disabled(endpoint_ids: Collection[UUID], reason: str, when: ColumnElement[bool]) -> Update:
    chosen = _kept(endpoint_ids, WebhookEndpoint.disabled_at.is_(None), when)
    disabled = chosen.values(disabled_at=func.now(), disabled_reason=reason)
    return disabled.returning(WebhookEndpoint.id, WebhookEndpoint.owner_id)


def alerted(endpoint_ids: Collection[UUID]) -> Update:
    """Mark endpoints as told of; those that were not yet come back, with their owners."""
    unalerted = _kept(endpoint_ids, WebhookEndpoint.alerted_at.is_(None))
    marked = unalerted.values(alerted_at=func.now())
    return marked.returning(WebhookEndpoint.id, WebhookEndpoint.owner_id)
