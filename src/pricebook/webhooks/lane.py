"""The lane to webhook endpoints: one that is slow, or gone, holds up no other."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias
from uuid import UUID
from weakref import WeakValueDictionary

from sqlalchemy import Row, Update
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.core.clock import now
from pricebook.core.deliveries import Claim, Status, Verdict
from pricebook.core.lanes import Lane, attempt_span
from pricebook.core.outbox import record
from pricebook.core.sealing import SealBrokenError, Sealer
from pricebook.core.settings import Settings
from pricebook.core.tracing import fail, outgoing_headers
from pricebook.webhooks import claims
from pricebook.webhooks.events import WebhookDeliveryDied, WebhookDisabled
from pricebook.webhooks.models import WebhookDelivery
from pricebook.webhooks.sender import Sender, WebhookOutcome
from pricebook.webhooks.signing import Signer

# Held of an endpoint, it leaves no room for another.
_MORE_THAN_ANY = 1_000_000


class Door:
    """The way to one endpoint: so many may pass at once, and nobody once it is shut."""

    def __init__(self, places: int) -> None:
        """Let `places` requests pass at once."""
        self.places = asyncio.Semaphore(places)
        self.is_shut = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookClaim(Claim):
    """A message that one endpoint is to get, and all that it takes to send it."""

    endpoint_id: UUID
    message_id: UUID
    url: str = field(repr=False)
    body: str
    sealed_secrets: tuple[bytes, ...] = field(repr=False)
    door: Door = field(repr=False)

    def names(self) -> dict[str, str]:
        """Return what log lines and spans call it by."""
        return {**Claim.names(self), "webhook_id": str(self.endpoint_id)}


Result: TypeAlias = tuple[WebhookClaim, WebhookOutcome, Verdict]


class WebhookLane(Lane[WebhookClaim, WebhookOutcome]):
    """Claims by endpoint, signs, sends, and keeps account of each endpoint's health."""

    name: ClassVar[str] = "webhooks"
    table: ClassVar[type[WebhookDelivery]] = WebhookDelivery

    def __init__(self, settings: Settings, sealer: Sealer) -> None:
        """Begin, within the loop that it is to run on."""
        self._settings = settings.webhooks
        self.capacity = settings.webhooks.capacity
        self.delays_seconds = settings.webhooks.retry_delays_seconds
        self.lease_seconds = settings.delivery.lease_seconds
        self._sender = Sender(settings.webhooks)
        self._signer = Signer(sealer)
        self._is_ready = sealer.is_ready
        self._doors: WeakValueDictionary[UUID, Door] = WeakValueDictionary()

    async def claim(
        self, session: AsyncSession, held: Sequence[WebhookClaim], room: int
    ) -> Sequence[WebhookClaim]:
        """Lease what is due, by the endpoint; without a key to sign with, all of it waits."""
        if not self._is_ready:
            return []
        counts = Counter(claim.endpoint_id for claim in held)
        # What a receiver that is gone has answered may not be written down yet.
        shut = {one.endpoint_id for one in held if one.door.is_shut}
        counts.update(dict.fromkeys(shut, _MORE_THAN_ANY))
        statement = claims.claimed(
            counts,
            room,
            concurrency=self._settings.concurrency,
            capacity=self.capacity,
            lease_seconds=self.lease_seconds,
        )
        return [self._claim(row) for row in await session.execute(statement)]

    def _claim(self, row: Row[*tuple[Any, ...]]) -> WebhookClaim:
        secrets = (row.sealed_secret, row.old_sealed_secret)
        return WebhookClaim(
            id=row.id,
            lease=row.lease,
            attempts=row.attempts,
            endpoint_id=row.endpoint_id,
            message_id=row.message_id,
            event_id=row.message_id,
            request_id=row.request_id,
            causes=tuple(filter(None, [row.traceparent])),
            url=row.url,
            body=row.body,
            sealed_secrets=tuple(filter(None, secrets)),
            door=self._door_to(row.endpoint_id),
        )

    def _door_to(self, endpoint_id: UUID) -> Door:
        door = self._doors.get(endpoint_id)
        if door is None or door.is_shut:
            door = self._doors[endpoint_id] = Door(self._settings.concurrency)
        return door

    async def send(self, claim: WebhookClaim) -> WebhookOutcome:
        """Sign and send, once there is a place; the time it takes begins then."""
        async with claim.door.places:
            if claim.door.is_shut:
                return WebhookOutcome(is_tried=False, started_at=now())
            outcome = await self._traced(claim)
            claim.door.is_shut |= outcome.is_gone
            return outcome

    async def _traced(self, claim: WebhookClaim) -> WebhookOutcome:
        """Try, and make a span of it; it does not name the URL, which may hold a secret."""
        with attempt_span("POST webhook", claim) as span:
            span.set_attribute("http.request.method", "POST")
            outcome = await self._attempt(claim)
            if outcome.status_code is not None:
                span.set_attribute("http.response.status_code", outcome.status_code)
            if outcome.error is not None:
                fail(span, str(outcome.status_code or "_OTHER"))
            return outcome

    async def _attempt(self, claim: WebhookClaim) -> WebhookOutcome:
        body = claim.body.encode()
        timestamp = int(now().timestamp())
        message_id = str(claim.message_id)
        try:
            headers = self._signer.headers(claim.sealed_secrets, message_id, timestamp, body)
        except SealBrokenError as error:
            return WebhookOutcome(error=f"not signed: {error}", started_at=now())
        return await self._sender.post(claim.url, headers | outgoing_headers(), body)

    def broken(self, error: Exception) -> WebhookOutcome:
        """Name the error: it is ours, and the log has the rest."""
        return WebhookOutcome(error=f"not sent: {type(error).__name__}", started_at=now())

    async def settled(self, session: AsyncSession, results: Sequence[Result]) -> None:
        """Write down the attempts, and what they say of each endpoint's health."""
        tried = [result for result in results if result[1].is_tried]
        if not tried:
            return
        await session.execute(claims.new_attempts([_attempt(*result) for result in tried]))
        is_up = {claim.endpoint_id: outcome.is_delivered for claim, outcome, _ in tried}
        up = [endpoint_id for endpoint_id, answers in is_up.items() if answers]
        if len(up) < len(is_up) or any(verdict.status == Status.DEAD for *_, verdict in tried):
            await session.execute(claims.locked(is_up))
            await self._write_down_failures(session, tried, is_up)
        if up:
            await session.execute(claims.recovered(up))

    async def _write_down_failures(
        self, session: AsyncSession, tried: Sequence[Result], is_up: dict[UUID, bool]
    ) -> None:
        down = [endpoint_id for endpoint_id, answers in is_up.items() if not answers]
        gone = {claim.endpoint_id for claim, outcome, _ in tried if outcome.is_gone}
        died = {
            claim.endpoint_id: claim.id
            for claim, outcome, verdict in tried
            if verdict.status == Status.DEAD and not outcome.is_gone
        }
        await session.execute(claims.failing(down))
        days = self._settings.disable_after_days
        await _disable(session, "gone", claims.disabled_as_gone(gone))
        await _disable(session, "failing", claims.disabled_as_failing(down, days))
        await _alert(session, died)

    async def close(self) -> None:
        """Close all connections."""
        await self._sender.close()


async def _disable(session: AsyncSession, reason: str, disabled: Update) -> None:
    for row in await session.execute(disabled):
        event = WebhookDisabled(webhook_id=row.id, reason=reason, owner_id=row.owner_id)
        record(session, event)


async def _alert(session: AsyncSession, died: dict[UUID, UUID]) -> None:
    """Tell of deliveries that died, by their endpoints; once for each time of failing."""
    for row in await session.execute(claims.alerted(died)):
        event = WebhookDeliveryDied(
            webhook_id=row.id, delivery_id=died[row.id], owner_id=row.owner_id
        )
        record(session, event)


def _attempt(claim: WebhookClaim, outcome: WebhookOutcome, _: Verdict) -> tuple[Any, ...]:
    return (
        claim.id,
        outcome.started_at,
        outcome.duration_ms,
        outcome.status_code,
        outcome.error,
        outcome.response_head,
    )
