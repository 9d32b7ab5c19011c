"""Selects and statements over the inbox, preferences and watches."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Delete,
    Select,
    Update,
    and_,
    bindparam,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import Insert, insert

from pricebook.core.deliveries import Status
from pricebook.core.leases import is_free
from pricebook.core.reading import columns_of, compiled_once
from pricebook.items.models import Item
from pricebook.notifications.kinds import GATHERING_TIMES, Digest, MailKind
from pricebook.notifications.models import (
    ItemWatch,
    Mail,
    Notification,
    NotificationSettings,
    TagWatch,
)
from pricebook.notifications.schemas import ItemWatchOut, NotificationOut, TagWatchOut
from pricebook.users.models import User

Watch = ItemWatch | TagWatch

_BATCH = 1_000


def inbox_page(
    user_id: UUID, before: UUID | None, limit: int, *, unread: bool
) -> Select[*tuple[Any, ...]]:
    """Select one page of someone's inbox, and one more to tell whether another follows."""
    page = select(*columns_of(NotificationOut, Notification)).where(_in_inbox(user_id))
    if unread:
        page = page.where(Notification.read_at.is_(None))
    if before is not None:
        page = page.where(Notification.id < before)
    return page.order_by(Notification.id.desc()).limit(limit + 1)


@compiled_once
def unread_count() -> Select[int]:
    """Take `user_id`."""
    mine = select(func.count()).where(_in_inbox(bindparam("user_id")))
    return mine.where(Notification.read_at.is_(None))


def notification_to_change(user_id: UUID, notification_id: UUID) -> Select[Notification]:
    """Select one entry of someone's inbox, locked."""
    mine = select(Notification).where(_in_inbox(user_id))
    return mine.where(Notification.id == notification_id).with_for_update()


def all_read(user_id: UUID) -> Update:
    """Mark all of someone's inbox as read."""
    unread = and_(_in_inbox(user_id), Notification.read_at.is_(None))
    return update(Notification).where(unread).values(read_at=func.now())


def _in_inbox(user_id: Any) -> ColumnElement[bool]:  # noqa: ANN401 -- an id, or a parameter
    return and_(Notification.user_id == user_id, Notification.is_in_inbox)


@compiled_once
def preferences() -> Select[*tuple[Any, ...]]:
    """Take `user_id`."""
    chosen = select(NotificationSettings.digest, NotificationSettings.muted)
    return chosen.where(NotificationSettings.user_id == bindparam("user_id"))


def person_to_keep(user_id: UUID) -> Select[UUID]:
    """Select a user who cannot be deleted before the transaction ends."""
    return select(User.id).where(User.id == user_id).with_for_update(read=True, key_share=True)


def item_to_keep(item_id: UUID) -> Select[UUID]:
    """Select an item that cannot be deleted before the transaction ends."""
    return select(Item.id).where(Item.id == item_id).with_for_update(read=True, key_share=True)


def preferences_begun(user_id: UUID) -> Insert:
    """Make sure that there is a row to lock."""
    return insert(NotificationSettings).values(user_id=user_id).on_conflict_do_nothing()


def preferences_to_change(user_id: UUID) -> Select[NotificationSettings]:
    """Select someone's preferences, locked."""
    mine = NotificationSettings.user_id == user_id
    return select(NotificationSettings).where(mine).with_for_update()


def without_unsent(user_id: UUID, kinds: Collection[MailKind]) -> Delete:
    """Delete mails that somebody no longer wants, but for what is being sent this moment."""
    mine = (Mail.user_id == user_id, Mail.status == Status.PENDING, Mail.kind.in_(kinds))
    return delete(Mail).where(*mine, is_free(Mail))


def gathered_by(user_id: UUID, digest: Digest) -> Update:
    """Let the mail that is being gathered go out when this digest has it."""
    wait = GATHERING_TIMES.get(digest, timedelta(0))
    mine = update(Mail).where(Mail.user_id == user_id, Mail.is_gathering)
    return mine.values(due_at=Mail.created_at + wait)


def item_watches(user_id: UUID) -> Select[*tuple[Any, ...]]:
    """Select the items that somebody watches, newest first."""
    own = [name for name in ItemWatchOut.model_fields if name not in {"sku", "name"}]
    return (
        select(*columns_of(ItemWatchOut, ItemWatch, own), Item.sku, Item.name)
        .join(Item, Item.id == ItemWatch.item_id)
        .where(ItemWatch.user_id == user_id)
        .order_by(ItemWatch.created_at.desc(), ItemWatch.item_id)
    )


def tag_watches(user_id: UUID) -> Select[*tuple[Any, ...]]:
    """Select the tags that somebody watches, newest first."""
    mine = select(*columns_of(TagWatchOut, TagWatch)).where(TagWatch.user_id == user_id)
    return mine.order_by(TagWatch.created_at.desc(), TagWatch.tag)


def watch_count(table: type[Watch], user_id: UUID) -> Select[int]:
    """Count what somebody watches."""
    return select(func.count()).select_from(table).where(table.user_id == user_id)


def watched(table: type[Watch], user_id: UUID, **target: object) -> Insert:
    """Watch something, unless it is watched already."""
    return insert(table).values(user_id=user_id, **target).on_conflict_do_nothing()


def unwatched(table: type[Watch], user_id: UUID, **target: object) -> Delete:
    """Watch something no more."""
    return delete(table).filter_by(user_id=user_id, **target)


def without_old_notifications(age: timedelta) -> Delete:
    """Delete up to a batch of notifications past `age`; what a mail has yet to tell stays."""
    is_told = ~(
        select(Mail.id)
        .where(Mail.id == Notification.mail_id, Mail.status == Status.PENDING)
        .exists()
    )
    old = select(Notification.id).where(Notification.created_at < func.now() - age, is_told)
    chosen = old.order_by(Notification.created_at).limit(_BATCH)
    return delete(Notification).where(Notification.id.in_(chosen))


def without_old_mails(age: timedelta) -> Delete:
    """Delete up to a batch of mails that were settled before `age`."""
    old = select(Mail.id).where(Mail.settled_at < func.now() - age)
    return delete(Mail).where(Mail.id.in_(old.order_by(Mail.settled_at).limit(_BATCH)))
