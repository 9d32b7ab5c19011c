"""What follows from events: notifications and mails, in the transaction that marks the events."""

from collections.abc import Iterable, Iterator, Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.notifications import notices, watchers

# Notifications that one statement makes: a second of work or two, well within its time limit.
_MOST_AT_ONCE = 20_000


async def tell_watchers(session: AsyncSession, event_ids: Sequence[UUID]) -> None:
    """Tell of a price those who watch the item or one of its tags, by inbox and mail."""
    counted = await session.execute(watchers.watcher_counts(event_ids))
    portions = list(_portions((event_id, count) for event_id, count in counted))
    if len(portions) > 1:
        # All locks at first, in one order: two workers at this wait for each other only once.
        await session.execute(watchers.price_mails(event_ids))
    for portion in portions:
        await session.execute(watchers.price_changes(portion))


def _portions(counts: Iterable[tuple[UUID, int]]) -> Iterator[list[UUID]]:
    """Split events so that none but a huge one makes more notifications than a statement may."""
    portion: list[UUID] = []
    total = 0
    for event_id, count in counts:
        if portion and total + count > _MOST_AT_ONCE:
            yield portion
            portion, total = [], 0
        portion.append(event_id)
        total += count
    if portion:
        yield portion


async def mail_password_reset(session: AsyncSession, event_ids: Sequence[UUID]) -> None:
    """Mail a way to a new password."""
    await session.execute(notices.password_resets(event_ids))


async def mail_verification(session: AsyncSession, event_ids: Sequence[UUID]) -> None:
    """Mail a way to prove that an address is one's own, unless that is done."""
    await session.execute(notices.verifications(event_ids))


async def warn_of_credentials(session: AsyncSession, event_ids: Sequence[UUID]) -> None:
    """Tell people of a new password or API key of theirs."""
    await session.execute(notices.credentials_used(event_ids))


async def tell_owner_of_job(session: AsyncSession, event_ids: Sequence[UUID]) -> None:
    """Tell who asked for a job that it has ended, if they wanted to be told."""
    await session.execute(notices.finished_jobs(event_ids))


async def tell_owner_of_webhook(session: AsyncSession, event_ids: Sequence[UUID]) -> None:
    """Tell who keeps a webhook that it no longer reaches its receiver."""
    await session.execute(notices.webhook_trouble(event_ids))
