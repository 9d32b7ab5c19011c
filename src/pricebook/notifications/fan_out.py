"""From those whom an event concerns to what they are told: the parts of a reaction's statement.

A notification and the mail that tells it are made in one statement.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    Select,
    Text,
    all_,
    and_,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import Insert, insert

from pricebook.core.leases import one_of
from pricebook.core.outbox import EventRecord
from pricebook.notifications.kinds import Channel, Digest, Kind, switch
from pricebook.notifications.models import Notification, NotificationSettings

Told = Select[*tuple[Any, ...]]
"""Rows of `event_id`, `user_id` and `data`."""


def as_preferred(told: Told, kind: Kind) -> CTE:
    """Add to each row which way its user wants to be told; drop it if no way."""
    rows = told.subquery("told")
    muted = func.coalesce(NotificationSettings.muted, literal([], ARRAY(Text)))
    digest = func.coalesce(NotificationSettings.digest, Digest.AT_ONCE.value)
    is_by_email = literal(switch(kind, Channel.EMAIL)) != all_(muted)
    if kind is Kind.PRICE_CHANGED:
        is_by_email &= digest != Digest.NEVER.value
    chosen = (
        select(
            rows,
            digest.label("digest"),
            (literal(switch(kind, Channel.INBOX)) != all_(muted)).label("is_in_inbox"),
            is_by_email.label("is_by_email"),
        )
        .select_from(rows)
        .join(NotificationSettings, NotificationSettings.user_id == rows.c.user_id, isouter=True)
        .subquery("chosen")
    )
    is_wanted = or_(chosen.c.is_in_inbox, chosen.c.is_by_email)
    return select(chosen).where(is_wanted).cte("wanted")


def notifications_of(kind: Kind, wanted: CTE, mails: CTE, is_same: ColumnElement[bool]) -> Insert:
    """Insert a notification for each row, with the mail that tells it."""
    rows = (
        select(
            wanted.c.user_id,
            literal(kind.value),
            wanted.c.event_id,
            wanted.c.data,
            wanted.c.is_in_inbox,
            mails.c.id,
        )
        .select_from(wanted)
        .join(mails, and_(wanted.c.is_by_email, is_same), isouter=True)
        .order_by(wanted.c.user_id, wanted.c.event_id)
    )
    columns = ["user_id", "kind", "event_id", "data", "is_in_inbox", "mail_id"]
    return insert(Notification).from_select(columns, rows).on_conflict_do_nothing()


def among(event_ids: Sequence[UUID]) -> ColumnElement[bool]:
    """Whether an event is one of these."""
    return EventRecord.id == one_of(event_ids)


def picked(*names: str) -> ColumnElement[Any]:
    """Return just these fields of the payload; one that it lacks is null."""
    pairs = [part for name in names for part in (name, EventRecord.payload[name])]
    return func.jsonb_build_object(*pairs)
