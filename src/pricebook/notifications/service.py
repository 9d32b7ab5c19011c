"""What people do with their inbox, their preferences and what they watch."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Delete
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.core.pagination import id_before, newest_first
from pricebook.core.principal import Principal
from pricebook.core.reading import Compiled, ReadPool, Row
from pricebook.items.errors import ItemNotFound
from pricebook.notifications import queries
from pricebook.notifications.errors import NotificationNotFound, TooManyWatches
from pricebook.notifications.kinds import MAILED_AS, Channel, Digest, Kind, MailKind, switch
from pricebook.notifications.models import (
    ItemWatch,
    Notification,
    NotificationSettings,
    TagWatch,
)
from pricebook.notifications.schemas import (
    InboxQuery,
    NotificationPatch,
    PreferencesPatch,
)
from pricebook.notifications.unsubscribing import Unsubscriber

MAX_WATCHES = 1_000
"""Of one person, and of each kind."""


async def read_inbox(reads: ReadPool, person: Principal, query: InboxQuery) -> Row:
    """Return what `Inbox` shows: one page of someone's notifications, newest first."""
    before = id_before(query.cursor)
    page = queries.inbox_page(person.user_id, before, query.limit, unread=query.unread)
    found = newest_first(await reads.rows(Compiled(page)), query.limit)
    unread_count = await reads.value(queries.unread_count(), user_id=person.user_id)
    return {**dict(found), "unread_count": unread_count}


async def mark_notification(
    session: AsyncSession, person: Principal, notification_id: UUID, patch: NotificationPatch
) -> Notification:
    """Take an entry of someone's inbox for read or unread.

    Raises:
        NotificationNotFound: It is not in this person's inbox.

    """
    mine = queries.notification_to_change(person.user_id, notification_id)
    notification = await session.scalar(mine)
    if notification is None:
        raise NotificationNotFound(notification_id=notification_id)
    for is_read in patch.changes().values():
        notification.mark(is_read=is_read)
    return notification


async def mark_all_read(session: AsyncSession, person: Principal) -> None:
    """Take all of someone's inbox for read."""
    await session.execute(queries.all_read(person.user_id))


async def get_preferences(reads: ReadPool, person: Principal) -> Row:
    """Return what `PreferencesOut` shows of someone."""
    found = await reads.row(queries.preferences(), user_id=person.user_id)
    return _shown(found["digest"], found["muted"]) if found else _shown(Digest.AT_ONCE, [])


def _shown(digest: str, muted: Iterable[str]) -> Row:
    kinds = {
        kind.value: {channel.value: switch(kind, channel) not in muted for channel in Channel}
        for kind in Kind
    }
    return {"digest": digest, "kinds": kinds}


async def update_preferences(
    session: AsyncSession, person: Principal, patch: PreferencesPatch
) -> Row:
    """Change how someone wants to be told; mail that is no longer wanted is not sent."""
    changes = patch.changes()
    chosen = await _preferences_to_change(session, person.user_id)
    chosen.digest = changes.get("digest", chosen.digest)
    for kind, channels in changes.get("kinds", {}).items():
        for channel, is_on in channels.items():
            chosen.switch(switch(kind, channel), is_on=is_on)
    await _obey(session, chosen)
    return _shown(chosen.digest, chosen.muted)


async def _preferences_to_change(session: AsyncSession, user_id: UUID) -> NotificationSettings:
    await session.execute(queries.preferences_begun(user_id))
    return (await session.scalars(queries.preferences_to_change(user_id))).one()


async def _obey(session: AsyncSession, chosen: NotificationSettings) -> None:
    """Apply preferences to the mails that wait."""
    await session.execute(queries.without_unsent(chosen.user_id, list(_unwanted(chosen))))
    await session.execute(queries.gathered_by(chosen.user_id, Digest(chosen.digest)))


def _unwanted(chosen: NotificationSettings) -> Iterable[MailKind]:
    if chosen.digest == Digest.NEVER:
        yield MailKind.PRICE_CHANGES
    for kind, mailed in MAILED_AS.items():
        if switch(kind, Channel.EMAIL) in chosen.muted:
            yield mailed


async def unsubscribe(session: AsyncSession, unsubscriber: Unsubscriber, token: str) -> Kind:
    """Switch off the mail that carried the token, and return what it was about.

    Raises:
        UnsubscribeLinkInvalid: It is no token of ours.

    """
    user_id, kind = unsubscriber.read(token)
    if await session.scalar(queries.person_to_keep(user_id)) is not None:
        chosen = await _preferences_to_change(session, user_id)
        chosen.switch(switch(kind, Channel.EMAIL), is_on=False)
        await _obey(session, chosen)
    return kind


async def list_watches(reads: ReadPool, person: Principal) -> Mapping[str, Any]:
    """Return what `Watches` shows of someone."""
    return {
        "items": await reads.rows(Compiled(queries.item_watches(person.user_id))),
        "tags": await reads.rows(Compiled(queries.tag_watches(person.user_id))),
    }


async def watch_item(session: AsyncSession, person: Principal, item_id: UUID) -> None:
    """Watch an item; to watch it twice is to watch it.

    Raises:
        ItemNotFound: There is no such item.
        TooManyWatches: The person watches as many as one may.

    """
    await _require_item(session, item_id)
    await _watch(session, ItemWatch, person, item_id=item_id)


async def unwatch_item(session: AsyncSession, person: Principal, item_id: UUID) -> None:
    """Watch an item no more, if it was watched.

    Raises:
        ItemNotFound: There is no such item.

    """
    await _require_item(session, item_id)
    await session.execute(queries.unwatched(ItemWatch, person.user_id, item_id=item_id))


async def _require_item(session: AsyncSession, item_id: UUID) -> None:
    if await session.scalar(queries.item_to_keep(item_id)) is None:
        raise ItemNotFound(item_id=item_id)


async def watch_tag(session: AsyncSession, person: Principal, tag: str) -> None:
    """Watch whatever has a tag, now or some day.

    Raises:
        TooManyWatches: The person watches as many as one may.

    """
    await _watch(session, TagWatch, person, tag=tag)


async def unwatch_tag(session: AsyncSession, person: Principal, tag: str) -> None:
    """Watch a tag no more, if it was watched."""
    await session.execute(queries.unwatched(TagWatch, person.user_id, tag=tag))


async def _watch(
    session: AsyncSession, table: type[queries.Watch], person: Principal, **target: object
) -> None:
    """Insert first: what is watched already counts only once against the limit."""
    await session.execute(queries.watched(table, person.user_id, **target))
    if (await session.scalar(queries.watch_count(table, person.user_id)) or 0) > MAX_WATCHES:
        raise TooManyWatches


async def prune_notifications(session: AsyncSession, *, days: int) -> int:
    """Delete some notifications past their age, and return how many."""
    return await _delete(session, queries.without_old_notifications(timedelta(days=days)))


async def prune_mails(session: AsyncSession, *, days: int) -> int:
    """Delete some mails that were sent or given up long ago, and return how many."""
    return await _delete(session, queries.without_old_mails(timedelta(days=days)))


async def _delete(session: AsyncSession, statement: Delete) -> int:
    result = cast("CursorResult[Any]", await session.execute(statement))
    return result.rowcount
