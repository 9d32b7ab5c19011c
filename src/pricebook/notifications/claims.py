"""Which mails are to be sent now, and what they are about."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    and_,
    cast,
    exists,
    func,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import aliased
from sqlalchemy.sql.dml import ReturningUpdate

from pricebook.core.deliveries import is_due
from pricebook.core.leases import leased, one_of
from pricebook.core.outbox import EventRecord, what_led_to
from pricebook.items.events import ItemPriceChanged
from pricebook.notifications.kinds import MailKind
from pricebook.notifications.models import Mail, Notification
from pricebook.users.models import User

MOST_CHANGES = 100
"""Items that one mail names; of more it gives the number."""

FLOOD_PAUSE = timedelta(minutes=10)
"""How long changes are gathered for somebody who has had too many mails of them."""

# An import of many prices is to make one mail: so it waits, but no longer than this, until all
# changes that are in the log are in it.
_MOST_PATIENCE = timedelta(seconds=5)
_AN_HOUR = timedelta(hours=1)


def taken(
    lease_seconds: float, room: int, at_once_per_hour: int
) -> ReturningUpdate[*tuple[Any, ...]]:
    """Take the lease of `room` mails; what changes from now on goes into another mail."""
    due = (
        select(Mail.id)
        .where(*is_due(Mail), _is_ripe(at_once_per_hour))
        .order_by(Mail.due_at, Mail.id)
        .limit(room)
        .with_for_update(skip_locked=True)
    )
    return (
        leased(Mail, lease_seconds)
        .values(is_gathering=False)
        .where(Mail.id.in_(due), User.id == Mail.user_id)
        .execution_options(synchronize_session=False)
        .returning(
            Mail.id,
            Mail.lease,
            Mail.attempts,
            Mail.kind,
            Mail.user_id,
            Mail.data,
            User.email,
            User.name.label("user_name"),
            User.credentials_epoch,
            User.disabled_at.is_not(None).label("is_disabled"),
            User.email_verified_at.is_not(None).label("is_verified"),
            Mail.event_id,
            *what_led_to(Mail.event_id),
        )
    )


def _is_ripe(at_once_per_hour: int) -> ColumnElement[bool]:
    """Whether a mail need not wait for more changes to be gathered in it."""
    other = aliased(Mail)
    recent = (
        select(func.count())
        .where(
            other.user_id == Mail.user_id,
            other.id != Mail.id,
            other.kind == MailKind.PRICE_CHANGES,
            other.created_at > func.now() - _AN_HOUR,
        )
        .scalar_subquery()
    )
    has_more_to_come = exists().where(
        EventRecord.expanded_at.is_(None), EventRecord.type == ItemPriceChanged.type
    )
    return or_(
        ~Mail.is_gathering,
        Mail.due_at <= func.now() - FLOOD_PAUSE,
        and_(
            or_(Mail.due_at <= func.now() - _MOST_PATIENCE, ~has_more_to_come),
            recent < at_once_per_hour,
        ),
    )


def gathered_changes(mail_ids: Collection[UUID]) -> Select[*tuple[Any, ...]]:
    """Select, of each item in each mail, the first and the last change; and how many items."""
    item_id = Notification.data["item_id"].astext
    # UUIDv7 sorts by time, and PostgreSQL has no max() of a uuid.
    as_text = cast(Notification.event_id, Text)
    by_item = (
        select(
            Notification.mail_id,
            _nth_data(Notification.event_id.asc()).label("first"),
            _nth_data(Notification.event_id.desc()).label("last"),
            func.row_number()
            .over(partition_by=Notification.mail_id, order_by=func.max(as_text))
            .label("place"),
            func.count().over(partition_by=Notification.mail_id).label("change_count"),
        )
        .where(Notification.mail_id == one_of(mail_ids))
        .group_by(Notification.mail_id, item_id)
        .subquery()
    )
    return select(by_item).where(by_item.c.place <= MOST_CHANGES).order_by(by_item.c.place)


def traces_of(mail_ids: Collection[UUID]) -> Select[UUID, list[str]]:
    """Select what led to the notifications in each mail, oldest first, as far as it is traced."""
    told = func.min(cast(Notification.event_id, Text))
    by_trace = (
        select(Notification.mail_id, EventRecord.traceparent, told.label("event_id"))
        .join(EventRecord, EventRecord.id == Notification.event_id)
        .where(Notification.mail_id == one_of(mail_ids), EventRecord.traceparent.is_not(None))
        .group_by(Notification.mail_id, EventRecord.traceparent)
        .subquery()
    )
    traces = func.array_agg(aggregate_order_by(by_trace.c.traceparent, by_trace.c.event_id))[
        1:MOST_CHANGES
    ]
    return select(by_trace.c.mail_id, traces.label("traces")).group_by(by_trace.c.mail_id)


def _nth_data(order: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the data of the first notification in this order."""
    return func.array_agg(aggregate_order_by(Notification.data, order))[1]
