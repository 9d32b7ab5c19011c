"""Whoever watches a price is told of its change: each of these statements is all of that work.

Rows come in the order of users, so that of two workers at this each waits for the other once.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    CompoundSelect,
    Select,
    and_,
    case,
    func,
    literal,
    select,
    text,
    true,
    union,
)
from sqlalchemy.dialects.postgresql import Insert, insert

from pricebook.core.outbox import EventRecord
from pricebook.notifications.fan_out import among, as_preferred, notifications_of, picked
from pricebook.notifications.kinds import GATHERING_TIMES, Kind, MailKind
from pricebook.notifications.models import ItemWatch, Mail, TagWatch
from pricebook.users.models import User

_SHOWN_OF_PRICES = (
    "item_id", "sku", "name", "old_price", "new_price", "old_currency", "currency",
)  # fmt: skip


def watcher_counts(event_ids: Sequence[UUID]) -> Select[UUID, int]:
    """Select how many each of the events concerns; those that concern nobody are left out."""
    watchers = _watchers(event_ids).subquery()
    counts = select(watchers.c.event_id, func.count()).group_by(watchers.c.event_id)
    return counts.order_by(watchers.c.event_id)


def price_changes(event_ids: Sequence[UUID]) -> Insert:
    """Tell who watches the items, or one of their tags; each has one mail that takes in all."""
    wanted = _wanted_prices(event_ids)
    mails = _gathering(wanted).returning(Mail.id, Mail.user_id).cte("gathering")
    return notifications_of(Kind.PRICE_CHANGED, wanted, mails, mails.c.user_id == wanted.c.user_id)


def price_mails(event_ids: Sequence[UUID]) -> Insert:
    """Have the mails ready, and locked, that `price_changes` of these events fills."""
    return _gathering(_wanted_prices(event_ids))


def _wanted_prices(event_ids: Sequence[UUID]) -> CTE:
    watchers = _watchers(event_ids).subquery()
    told = (
        select(watchers.c.event_id, watchers.c.user_id, picked(*_SHOWN_OF_PRICES).label("data"))
        .select_from(watchers)
        .join(EventRecord, EventRecord.id == watchers.c.event_id)
        .join(User, and_(User.id == watchers.c.user_id, User.disabled_at.is_(None)))
    )
    return as_preferred(told, Kind.PRICE_CHANGED)


def _gathering(wanted: CTE) -> Insert:
    """Make the mail that gathers changes for each user, or lock the one that there is.

    The update changes nothing, but until it is committed nobody can claim the mail.
    """
    people = (
        select(
            wanted.c.user_id, literal(MailKind.PRICE_CHANGES.value), true(), _due(wanted.c.digest)
        )
        .where(wanted.c.is_by_email)
        .distinct()
        .order_by(wanted.c.user_id)
    )
    mails = insert(Mail).from_select(["user_id", "kind", "is_gathering", "due_at"], people)
    return mails.on_conflict_do_update(
        index_elements=[Mail.user_id],
        index_where=text("is_gathering"),
        set_={"user_id": mails.excluded.user_id},
    )


def _watchers(event_ids: Sequence[UUID]) -> CompoundSelect[UUID, UUID]:
    """Select whom each event concerns, once each."""
    tags = func.jsonb_array_elements_text(EventRecord.payload["tags"])
    tag = tags.table_valued("name").render_derived("tag")
    by_item = (
        select(EventRecord.id.label("event_id"), ItemWatch.user_id)
        .select_from(EventRecord)
        .join(ItemWatch, ItemWatch.item_id == EventRecord.subject_id)
        .where(among(event_ids))
    )
    by_tag = (
        select(EventRecord.id.label("event_id"), TagWatch.user_id)
        .select_from(EventRecord)
        .join(tag, true())
        .join(TagWatch, TagWatch.tag == tag.c.name)
        .where(among(event_ids))
    )
    return union(by_item, by_tag)


def _due(digest: ColumnElement[str]) -> ColumnElement[Any]:
    waits = {name.value: func.now() + wait for name, wait in GATHERING_TIMES.items()}
    return case(waits, value=digest, else_=func.now())
