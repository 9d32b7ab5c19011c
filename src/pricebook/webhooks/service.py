"""What can be done with webhooks."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.webhooks import queries


async def deliver(session: AsyncSession, event_ids: Sequence[UUID]) -> None:
    """Tell the endpoints that want to hear of these events."""
    await session.execute(queries.expanded(event_ids))
