"""HTTP for webhooks."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Query, Request, Response, status
from pydantic import SecretStr

from pricebook.core.current import WebhookAdmin, WebhookReader
from pricebook.core.pagination import Page, link_next
from pricebook.core.reading import Row
from pricebook.core.routing import resource
from pricebook.core.session import DbSession, Reads
from pricebook.webhooks import deliveries, service
from pricebook.webhooks.models import WebhookEndpoint
from pricebook.webhooks.schemas import (
    DeliveryDetail,
    DeliveryListing,
    DeliveryOut,
    NewWebhook,
    ReplayIn,
    ReplayOut,
    WebhookIn,
    WebhookListing,
    WebhookOut,
    WebhookPatch,
)
from pricebook.webhooks.service import Keeper

router = resource("/webhooks", "webhooks")


async def keeper(request: Request) -> Keeper:
    """Return what it takes to keep webhooks."""
    return Keeper(request.app.state.sealer, request.app.state.settings.webhooks)


Keeping = Annotated[Keeper, Depends(keeper)]


def _with_secret(webhook: WebhookEndpoint, secret: SecretStr, response: Response) -> NewWebhook:
    response.headers["Cache-Control"] = "no-store"
    shown = WebhookOut.model_validate(webhook).model_dump(exclude={"status"})
    return NewWebhook(**shown, secret=secret.get_secret_value())


@router.get("", response_model=Page[WebhookOut])
async def list_webhooks(
    _admin: WebhookReader,
    listing: Annotated[WebhookListing, Query()],
    reads: Reads,
    request: Request,
    response: Response,
) -> Page[Row]:
    """List the webhooks, newest first."""
    page = await service.list_webhooks(reads, listing)
    link_next(request, response, page.next_cursor)
    return page


@router.post("", response_model=NewWebhook, status_code=status.HTTP_201_CREATED)
async def create_webhook(
    admin: WebhookAdmin,
    new: WebhookIn,
    session: DbSession,
    keeping: Keeping,
    request: Request,
    response: Response,
) -> NewWebhook:
    """Make a webhook. The answer shows its secret, which signs what it is told, this once."""
    webhook, secret = await service.create_webhook(session, keeping, admin, new)
    response.headers["Location"] = f"{request.url.path}/{webhook.id}"
    return _with_secret(webhook, secret, response)


@router.get("/{webhook_id:uuid}", response_model=WebhookOut)
async def read_webhook(_admin: WebhookReader, webhook_id: UUID, reads: Reads) -> Row:
    """Return a webhook, without its secret."""
    return await service.get_webhook(reads, webhook_id)


@router.patch("/{webhook_id:uuid}", response_model=WebhookOut)
async def update_webhook(
    _admin: WebhookAdmin,
    webhook_id: UUID,
    patch: WebhookPatch,
    session: DbSession,
    keeping: Keeping,
) -> WebhookEndpoint:
    """Change the given fields of a webhook. Resumed, it is told all that waited meanwhile."""
    return await service.update_webhook(session, keeping, webhook_id, patch)


@router.delete("/{webhook_id:uuid}", status_code=status.HTTP_204_NO_CONTENT)
async def delete_webhook(_admin: WebhookAdmin, webhook_id: UUID, session: DbSession) -> None:
    """Delete a webhook, with all its deliveries."""
    await service.delete_webhook(session, webhook_id)


@router.post(
    "/{webhook_id:uuid}/test", response_model=DeliveryOut, status_code=status.HTTP_202_ACCEPTED
)
async def send_webhook_test(_admin: WebhookAdmin, webhook_id: UUID, session: DbSession) -> Row:
    """Send a webhook a message of type `webhook.test`, whatever its filters."""
    return await deliveries.send_test(session, webhook_id)


@router.post("/{webhook_id:uuid}/rotate-secret", response_model=NewWebhook)
async def rotate_webhook_secret(
    _admin: WebhookAdmin,
    webhook_id: UUID,
    session: DbSession,
    keeping: Keeping,
    response: Response,
) -> NewWebhook:
    """Give a webhook a new secret, shown this once. For a day, the old one signs beside it."""
    webhook, secret = await service.rotate_secret(session, keeping, webhook_id)
    return _with_secret(webhook, secret, response)


@router.post(
    "/{webhook_id:uuid}/replay", response_model=ReplayOut, status_code=status.HTTP_202_ACCEPTED
)
async def replay_webhook(
    _admin: WebhookAdmin, webhook_id: UUID, wish: ReplayIn, session: DbSession
) -> ReplayOut:
    """Tell a webhook again what happened since a moment, as its filters are now."""
    return ReplayOut(deliveries=await deliveries.replay(session, webhook_id, wish))


@router.get("/{webhook_id:uuid}/deliveries", response_model=Page[DeliveryOut])
async def list_webhook_deliveries(
    _admin: WebhookReader,
    webhook_id: UUID,
    listing: Annotated[DeliveryListing, Query()],
    reads: Reads,
    request: Request,
    response: Response,
) -> Page[Row]:
    """List a webhook's deliveries, newest first."""
    page = await deliveries.list_deliveries(reads, webhook_id, listing)
    link_next(request, response, page.next_cursor)
    return page


@router.get("/{webhook_id:uuid}/deliveries/{delivery_id:uuid}", response_model=DeliveryDetail)
async def read_webhook_delivery(
    _admin: WebhookReader, webhook_id: UUID, delivery_id: UUID, reads: Reads
) -> Row:
    """Return a delivery with its body and its attempts."""
    return await deliveries.get_delivery(reads, webhook_id, delivery_id)


@router.post(
    "/{webhook_id:uuid}/deliveries/{delivery_id:uuid}/redeliver",
    response_model=DeliveryOut,
    status_code=status.HTTP_202_ACCEPTED,
)
async def redeliver_webhook_delivery(
    _admin: WebhookAdmin, webhook_id: UUID, delivery_id: UUID, session: DbSession
) -> Row:
    """Deliver once more, with all attempts anew; the bytes are the same."""
    return await deliveries.redeliver(session, webhook_id, delivery_id)
