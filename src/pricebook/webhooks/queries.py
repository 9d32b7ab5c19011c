"""Selects and statements over endpoints, messages, deliveries and attempts."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    Delete,
    Select,
    Update,
    and_,
    case,
    delete,
    func,
    not_,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql

from pricebook.core.deliveries import Status
from pricebook.core.leases import one_of
from pricebook.core.outbox import EventRecord
from pricebook.core.reading import columns_of
from pricebook.webhooks.events import NEVER_TOLD
from pricebook.webhooks.models import (
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookMessage,
)
from pricebook.webhooks.schemas import AttemptOut, WebhookOut

_MOST_ATTEMPTS = 100
_PRUNED_AT_ONCE = 1_000
# By how much the clock may have been set back between making an id and telling the time.
_CLOCK_STEP_SECONDS = 60

# Written once, and sent and signed to the byte; all times are UTC, as the connection's zone is.
_BODY = func.format(
    '{"type":%s,"timestamp":"%s","data":%s}',
    func.to_json(EventRecord.type),
    func.to_char(EventRecord.occurred_at, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    EventRecord.payload,
)


def new_deliveries(
    events: ColumnElement[bool], endpoints: ColumnElement[bool]
) -> postgresql.Insert:
    """Tell endpoints of events: each what it wants, and each message written once.

    The endpoints are locked against deletion, since their deliveries would be left without them.
    """
    wanting = (
        select(WebhookEndpoint.id, WebhookEndpoint.events, WebhookEndpoint.tags)
        .where(endpoints)
        .with_for_update(read=True, key_share=True)
        .cte("wanting")
    )
    told = (
        select(wanting.c.id.label("endpoint_id"), EventRecord.id.label("message_id"))
        .join_from(EventRecord, wanting, _wants(wanting))
        .where(events)
        .order_by(EventRecord.transaction_id, EventRecord.id)
        .cte("told")
    )
    messages = _new_messages(told).cte("messages")
    rows = select(told.c.endpoint_id, told.c.message_id)
    return (
        postgresql.insert(WebhookDelivery)
        .from_select(["endpoint_id", "message_id"], rows)
        .add_cte(messages)
    )


def _wants(endpoint: CTE) -> ColumnElement[bool]:
    """Whether an endpoint's filters let an event pass; none hears of itself."""
    is_about_itself = and_(
        EventRecord.type.startswith("webhook."), EventRecord.subject_id == endpoint.c.id
    )
    return and_(
        or_(endpoint.c.events.is_(None), EventRecord.type == func.any(endpoint.c.events)),
        or_(endpoint.c.tags.is_(None), EventRecord.payload["tags"].has_any(endpoint.c.tags)),
        not_(is_about_itself),
    )


def _new_messages(told: CTE) -> postgresql.Insert:
    """Write what is told. One that is there already stays to the byte, but is not pruned now."""
    bodies = (
        select(EventRecord.id, EventRecord.type, _BODY)
        .where(EventRecord.id.in_(select(told.c.message_id)))
        .order_by(EventRecord.id)
    )
    return (
        postgresql.insert(WebhookMessage)
        .from_select(["id", "type", "body"], bodies)
        .on_conflict_do_update(index_elements=[WebhookMessage.id], set_={"created_at": func.now()})
    )


def expanded(event_ids: Sequence[UUID]) -> postgresql.Insert:
    """Make the deliveries of events; a paused endpoint's wait until it is resumed."""
    is_open = WebhookEndpoint.disabled_at.is_(None)
    new = new_deliveries(EventRecord.id == one_of(event_ids), is_open)
    return new.on_conflict_do_nothing()


def endpoints() -> Select[*tuple[Any, ...]]:
    """Select what `WebhookOut` shows of endpoints."""
    return select(*columns_of(WebhookOut, WebhookEndpoint))


def page_of(
    rows: Select[*tuple[Any, ...]],
    table: type[WebhookEndpoint | WebhookDelivery],
    limit: int,
    before: UUID | None,
) -> Select[*tuple[Any, ...]]:
    """Select one page of `rows`, newest first, and one more to tell whether another follows."""
    page = rows if before is None else rows.where(table.id < before)
    return page.order_by(table.id.desc()).limit(limit + 1)


def endpoint_count() -> Select[int]:
    """Count all endpoints."""
    return select(func.count()).select_from(WebhookEndpoint)


def for_change(endpoint_id: UUID) -> Select[WebhookEndpoint]:
    """Select one endpoint, locked against other changes; deliveries may still be made for it."""
    chosen = select(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id)
    return chosen.with_for_update(key_share=True)


def for_sealing() -> Select[WebhookEndpoint]:
    """Select all endpoints, locked likewise."""
    return select(WebhookEndpoint).order_by(WebhookEndpoint.id).with_for_update(key_share=True)


def without(endpoint_id: UUID) -> tuple[Delete, Delete]:
    """Delete an endpoint's deliveries, and then the endpoint itself.

    In the order in which workers lock them, so that neither waits for the other in a circle.
    """
    return (
        delete(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint_id),
        delete(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id),
    )


def deliveries_to(endpoint_id: UUID) -> Select[*tuple[Any, ...]]:
    """Select what `DeliveryOut` shows of an endpoint's deliveries."""
    last = (
        select(WebhookAttempt.status_code, WebhookAttempt.error)
        .where(WebhookAttempt.delivery_id == WebhookDelivery.id)
        .order_by(WebhookAttempt.id.desc())
        .limit(1)
        .lateral("last")
    )
    is_pending = WebhookDelivery.status == Status.PENDING
    return (
        select(
            WebhookDelivery.id,
            WebhookDelivery.message_id,
            WebhookMessage.type,
            WebhookDelivery.status,
            WebhookDelivery.attempts.label("attempt_count"),
            case((is_pending, WebhookDelivery.due_at)).label("next_attempt_at"),
            WebhookDelivery.settled_at,
            WebhookDelivery.created_at,
            last.c.status_code.label("last_status_code"),
            last.c.error.label("last_error"),
        )
        .join(WebhookMessage, WebhookMessage.id == WebhookDelivery.message_id)
        .outerjoin(last, true())
        .where(WebhookDelivery.endpoint_id == endpoint_id)
    )


def attempts_at(delivery_id: UUID) -> Select[*tuple[Any, ...]]:
    """Select what `AttemptOut` shows of the latest attempts at a delivery, newest first."""
    shown = select(*columns_of(AttemptOut, WebhookAttempt))
    newest_first = shown.order_by(WebhookAttempt.id.desc()).limit(_MOST_ATTEMPTS)
    return newest_first.where(WebhookAttempt.delivery_id == delivery_id)


# A new round. What is being sent just now is sent to its end; how that goes is what counts.
_AFRESH = {"status": Status.PENDING, "attempts": 0, "due_at": func.now(), "settled_at": None}


def redelivered(endpoint_id: UUID, delivery_id: UUID) -> Update:
    """Begin a new round of one delivery."""
    chosen = update(WebhookDelivery).where(
        WebhookDelivery.endpoint_id == endpoint_id, WebhookDelivery.id == delivery_id
    )
    return chosen.values(_AFRESH)


def replayed(endpoint_id: UUID, since: datetime, *, only_undelivered: bool) -> postgresql.Insert:
    """Begin a new round of all that an endpoint wants to know since then, or of what it missed."""
    is_since = and_(
        # Ids grow with time: this one, made for the moment before, finds the place in the log.
        EventRecord.id >= _first_id_at(since.timestamp() - _CLOCK_STEP_SECONDS),
        EventRecord.occurred_at >= since,
        EventRecord.type.not_in(NEVER_TOLD),
    )
    return new_deliveries(is_since, WebhookEndpoint.id == endpoint_id).on_conflict_do_update(
        index_elements=[WebhookDelivery.endpoint_id, WebhookDelivery.message_id],
        set_=_AFRESH,
        where=WebhookDelivery.status != Status.DELIVERED if only_undelivered else None,
    )


def _first_id_at(moment: float) -> UUID:
    """Return the least UUIDv7 of a moment, in seconds since 1970 (RFC 9562, section 5.7)."""
    return UUID(int=max(0, int(moment * 1000)) << 80)


def outdated_deliveries(days: float) -> Delete:
    """Delete some of what was delivered so long ago; what is undelivered stays, however old."""
    old = (
        select(WebhookDelivery.id)
        .where(
            WebhookDelivery.status == Status.DELIVERED,
            WebhookDelivery.settled_at < func.now() - timedelta(days=days),
        )
        .limit(_PRUNED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    return delete(WebhookDelivery).where(WebhookDelivery.id.in_(old))


def untold_messages(days: float) -> Select[UUID]:
    """Lock some messages of so long ago that no delivery needs, so that none can begin to."""
    return (
        select(WebhookMessage.id)
        .where(WebhookMessage.created_at < func.now() - timedelta(days=days), ~_IS_NEEDED)
        .limit(_PRUNED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )


def without_messages(ids: Collection[UUID]) -> Delete:
    """Delete messages, but for those that a delivery has begun to need before they were locked."""
    return delete(WebhookMessage).where(WebhookMessage.id == one_of(ids), ~_IS_NEEDED)


_IS_NEEDED = (
    select(WebhookDelivery.id).where(WebhookDelivery.message_id == WebhookMessage.id).exists()
)


def without_old_secrets() -> Update:
    """Forget the secrets that sign no more."""
    over = update(WebhookEndpoint).where(WebhookEndpoint.old_secret_until <= func.now())
    return over.values(
        old_sealed_secret=None, old_secret_until=None, updated_at=WebhookEndpoint.updated_at
    ).returning(WebhookEndpoint.id)
