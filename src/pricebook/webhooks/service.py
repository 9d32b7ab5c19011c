"""What can be done with webhooks."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from pydantic import SecretStr
from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncSession
from yarl import URL

from pricebook.core.outbox import record
from pricebook.core.pagination import Page, id_before, newest_first
from pricebook.core.principal import Principal
from pricebook.core.reading import Compiled, ReadPool, Row
from pricebook.core.sealing import SealBrokenError, Sealer
from pricebook.core.settings import WebhookSettings
from pricebook.webhooks import queries
from pricebook.webhooks.errors import TooManyWebhooks, WebhookNotFound, WebhookUrlRefused
from pricebook.webhooks.events import (
    WebhookCreated,
    WebhookDeleted,
    WebhookSecretRotated,
    WebhookUpdated,
)
from pricebook.webhooks.guard import Guard
from pricebook.webhooks.models import WebhookDelivery, WebhookEndpoint
from pricebook.webhooks.schemas import WebhookIn, WebhookListing, WebhookPatch
from pricebook.webhooks.signing import new_secret

MAX_WEBHOOKS = 200
_NEWEST_FIRST = "-id"

log = structlog.get_logger(__name__)


class Keeper:
    """What it takes to keep webhooks: it seals their secrets, and knows where they may go."""

    def __init__(self, sealer: Sealer, settings: WebhookSettings) -> None:
        """Keep them as `settings` say."""
        self._sealer = sealer
        self._guard = Guard(settings.allowed_networks)
        self.old_signs_for = timedelta(hours=settings.old_secret_hours)

    def new_secret(self) -> tuple[SecretStr, bytes]:
        """Make a secret; return it, and what is to be stored of it.

        Raises:
            SecretKeyMissing: There is no key to seal it with.

        """
        secret = new_secret()
        return secret, self._sealer.seal(secret)

    def check(self, url: str) -> None:
        """See to it that a URL may be reached, as far as it can be told without looking names up.

        Raises:
            WebhookUrlRefused: Its host is an address that nothing is sent to.

        """
        if self._guard.refuses_host(URL(url).raw_host or ""):
            raise WebhookUrlRefused(pointer="/url")


async def deliver(session: AsyncSession, event_ids: Sequence[UUID]) -> None:
    """Tell the endpoints that want to hear of these events."""
    await session.execute(queries.expanded(event_ids))


async def list_webhooks(reads: ReadPool, listing: WebhookListing) -> Page[Row]:
    """Return one page of webhooks, newest first."""
    return await page_of(reads, queries.endpoints(), WebhookEndpoint, listing)


async def get_webhook(reads: ReadPool, webhook_id: UUID) -> Row:
    """Return what `WebhookOut` shows of a webhook."""
    chosen = queries.endpoints().where(WebhookEndpoint.id == webhook_id)
    webhook = await reads.row(Compiled(chosen))
    if webhook is None:
        raise WebhookNotFound(webhook_id=webhook_id)
    return webhook


async def create_webhook(
    session: AsyncSession, keeper: Keeper, admin: Principal, new: WebhookIn
) -> tuple[WebhookEndpoint, SecretStr]:
    """Make a webhook; return it with its secret, which nobody can read again.

    Raises:
        SecretKeyMissing: There is no key to keep the secret under.
        TooManyWebhooks: There are as many as there may be.
        WebhookUrlRefused: Nothing is sent to that address.

    """
    keeper.check(new.url)
    secret, sealed = keeper.new_secret()
    if (await session.scalar(queries.endpoint_count()) or 0) >= MAX_WEBHOOKS:
        raise TooManyWebhooks
    webhook = WebhookEndpoint(owner_id=admin.user_id, sealed_secret=sealed, **new.model_dump())
    session.add(webhook)
    await session.flush()
    record(session, WebhookCreated(webhook_id=webhook.id))
    return webhook, secret


async def update_webhook(
    session: AsyncSession, keeper: Keeper, webhook_id: UUID, patch: WebhookPatch
) -> WebhookEndpoint:
    """Change the fields that were sent; resumed, it gets what has been waiting.

    Raises:
        WebhookUrlRefused: Nothing is sent to that address.

    """
    changes = patch.changes()
    if "url" in changes:
        keeper.check(changes["url"])
    webhook = await lock(session, webhook_id)
    if changed := webhook.edit(changes):
        await session.flush()
        record(session, WebhookUpdated(webhook_id=webhook_id, changed=changed))
    return webhook


async def rotate_secret(
    session: AsyncSession, keeper: Keeper, webhook_id: UUID
) -> tuple[WebhookEndpoint, SecretStr]:
    """Give a webhook a new secret; the present one signs beside it for a while.

    Raises:
        SecretKeyMissing: There is no key to keep the secret under.

    """
    secret, sealed = keeper.new_secret()
    webhook = await lock(session, webhook_id)
    webhook.rotate(sealed, keeper.old_signs_for)
    await session.flush()
    await session.refresh(webhook)  # the database has told the time
    record(session, WebhookSecretRotated(webhook_id=webhook_id))
    return webhook, secret


async def delete_webhook(session: AsyncSession, webhook_id: UUID) -> None:
    """Delete a webhook, with all its deliveries."""
    its_deliveries, itself = queries.without(webhook_id)
    await session.execute(its_deliveries)
    if await session.scalar(itself.returning(WebhookEndpoint.id)) is None:
        raise WebhookNotFound(webhook_id=webhook_id)
    record(session, WebhookDeleted(webhook_id=webhook_id))


async def lock(session: AsyncSession, webhook_id: UUID) -> WebhookEndpoint:
    """Return a webhook that stays as it is until the transaction ends."""
    webhook = await session.scalar(queries.for_change(webhook_id))
    if webhook is None:
        raise WebhookNotFound(webhook_id=webhook_id)
    return webhook


async def page_of(
    reads: ReadPool,
    rows: Select[*tuple[Any, ...]],
    table: type[WebhookEndpoint | WebhookDelivery],
    listing: WebhookListing,
) -> Page[Row]:
    """Return one page of rows, newest first."""
    before = id_before(listing.cursor)
    found = await reads.rows(Compiled(queries.page_of(rows, table, listing.limit, before)))
    return newest_first(found, listing.limit)


async def tend_secrets(session: AsyncSession, sealer: Sealer) -> int:
    """Forget secrets that sign no more, and seal the rest with the newest key; return how many."""
    forgotten = len((await session.scalars(queries.without_old_secrets())).all())
    if not sealer.is_ready:
        return forgotten
    webhooks = await session.scalars(queries.for_sealing())
    return forgotten + sum(_is_sealed_anew(webhook, sealer) for webhook in webhooks)


def _is_sealed_anew(webhook: WebhookEndpoint, sealer: Sealer) -> bool:
    sealed, old = webhook.sealed_secret, webhook.old_sealed_secret
    if sealer.is_current(sealed) and (old is None or sealer.is_current(old)):
        return False
    try:
        webhook.sealed_secret = sealer.seal(sealer.open(sealed))
        webhook.old_sealed_secret = None if old is None else sealer.seal(sealer.open(old))
    except SealBrokenError:
        log.exception("a webhook's secret cannot be read", webhook_id=str(webhook.id))
        return False
    return True
