"""What follows from events: notifications and mails, in the transaction that marks the events."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.notifications import fan_out


async def tell_watchers(session: AsyncSession, event_ids: Sequence[UUID]) -> None:
    """Tell of a price those who watch the item or one of its tags, by inbox and mail."""
    await session.execute(fan_out.price_changes(event_ids))


async def mail_password_reset(session: AsyncSession, event_ids: Sequence[UUID]) -> None:
    """Mail a way to a new password."""
    await session.execute(fan_out.password_resets(event_ids))


async def mail_verification(session: AsyncSession, event_ids: Sequence[UUID]) -> None:
    """Mail a way to prove that an address is one's own, unless that is done."""
    await session.execute(fan_out.verifications(event_ids))


async def warn_of_credentials(session: AsyncSession, event_ids: Sequence[UUID]) -> None:
    """Tell people of a new password or API key of theirs."""
    await session.execute(fan_out.credentials_used(event_ids))


async def tell_owner_of_webhook(session: AsyncSession, event_ids: Sequence[UUID]) -> None:
    """Tell who keeps a webhook that it no longer reaches its receiver."""
    await session.execute(fan_out.webhook_trouble(event_ids))
