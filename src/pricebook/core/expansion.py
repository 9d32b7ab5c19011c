"""From events to deliveries: each event is expanded exactly once."""

import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeAlias
from uuid import UUID

import structlog
from sqlalchemy import (
    Row,
    Select,
    Update,
    func,
    not_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.core.database import Database, is_outage
from pricebook.core.leases import one_of
from pricebook.core.metrics import note_expansion
from pricebook.core.outbox import Event, EventRecord
from pricebook.core.tracing import batch

Reaction = Callable[[AsyncSession, Sequence[UUID]], Awaitable[None]]
"""Turns the events of these ids into deliveries, set-based, in the session's transaction."""

Subscriptions = Mapping[type[Event], Sequence[Reaction]]

_Columns: TypeAlias = tuple[UUID, str, str | None, str | None]
_Row: TypeAlias = Row[*_Columns]

_POISON_PAUSE_SECONDS = 60.0

log = structlog.get_logger(__name__)


class Expander:
    """Turns events into deliveries, each exactly once: marked in the transaction that does it."""

    def __init__(self, database: Database, subscriptions: Subscriptions, batch: int) -> None:
        """Expand up to `batch` events in one transaction."""
        self._sessions = database.sessions
        self._reactions = {event.type: found for event, found in subscriptions.items()}
        self._batch = self._most = batch
        # Events that no transaction could expand, and when to try again.
        self._poisonous: dict[UUID, float] = {}

    async def expand(self) -> bool:
        """Expand one batch of what is new; return whether there may be more."""
        batch = self._batch
        try:
            count = await self._expand(batch)
        except Exception as error:
            # It may be that so many deliveries take longer than a statement may.
            self._batch = max(1, batch // 2)
            if is_outage(error):
                raise
            log.exception("a batch of events could not be expanded; one by one now")
            return await self._expand_one_by_one()
        note_expansion(count)
        self._batch = min(self._most, batch * 2)
        return count == batch

    async def _expand(self, limit: int) -> int:
        async with self._sessions() as session:
            rows = (await session.execute(self._new(limit))).all()
            if rows:
                await self._turn_into_deliveries(session, rows)
            return len(rows)

    async def _turn_into_deliveries(self, session: AsyncSession, rows: Sequence[_Row]) -> None:
        facts = {"messaging.batch.message_count": len(rows)}
        with batch("expand events", [row.traceparent for row in rows], facts):
            await self._react(session, {row.id: row.type for row in rows})
            await session.execute(_marked([row.id for row in rows]))
            await session.commit()

    async def _expand_one_by_one(self) -> bool:
        """Find the event that spoils the batch; the others are not to wait for it."""
        for _ in range(self._batch):
            async with self._sessions() as session:
                row = (await session.execute(self._new(1))).first()
                if row is None:
                    return False
                try:
                    await self._turn_into_deliveries(session, [row])
                except Exception as error:
                    if is_outage(error):
                        raise
                    log.exception(
                        "event not expanded",
                        event_id=str(row.id),
                        event_type=row.type,
                        request_id=row.request_id,
                    )
                    self._poisonous[row.id] = time.monotonic() + _POISON_PAUSE_SECONDS
        return True

    async def _react(self, session: AsyncSession, events: Mapping[UUID, str]) -> None:
        concerned: dict[Reaction, list[UUID]] = defaultdict(list)
        for event_id, event_type in events.items():
            for reaction in self._reactions.get(event_type, ()):
                concerned[reaction].append(event_id)
        for reaction, event_ids in concerned.items():
            await reaction(session, event_ids)

    def _new(self, limit: int) -> Select[*_Columns]:
        now = time.monotonic()
        self._poisonous = {one: until for one, until in self._poisonous.items() if until > now}
        return (
            select(
                EventRecord.id, EventRecord.type, EventRecord.request_id, EventRecord.traceparent
            )
            .where(
                EventRecord.expanded_at.is_(None), not_(EventRecord.id == one_of(self._poisonous))
            )
            .order_by(EventRecord.transaction_id, EventRecord.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )


def _marked(events: Iterable[UUID]) -> Update:
    marked = update(EventRecord).where(EventRecord.id == one_of(events))
    return marked.values(expanded_at=func.now())
