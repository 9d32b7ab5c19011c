"""What happens to webhook endpoints. Payloads hold no URL, which may carry a secret."""

from typing import ClassVar
from uuid import UUID

from pricebook.core.outbox import Event

# What asks for a mail is for the mail alone.
NEVER_TOLD = frozenset({"user.password_reset_requested", "user.email_verification_requested"})


class WebhookEvent(Event):
    """Something happened to a webhook endpoint."""

    subject: ClassVar[str] = "webhook_id"
    webhook_id: UUID


class WebhookCreated(WebhookEvent):
    """An endpoint was made."""

    type: ClassVar[str] = "webhook.created"


class WebhookUpdated(WebhookEvent):
    """The named fields of an endpoint changed."""

    type: ClassVar[str] = "webhook.updated"
    changed: list[str]


class WebhookSecretRotated(WebhookEvent):
    """An endpoint got a new secret; the old one signs beside it for a while."""

    type: ClassVar[str] = "webhook.secret_rotated"


class WebhookDisabled(WebhookEvent):
    """An endpoint is told nothing more: it answered 410 (gone), or failed for days (failing)."""

    type: ClassVar[str] = "webhook.disabled"
    reason: str
    owner_id: UUID | None


class WebhookDeliveryDied(WebhookEvent):
    """A delivery ran out of attempts: the first since the endpoint last succeeded."""

    type: ClassVar[str] = "webhook.delivery_died"
    delivery_id: UUID
    owner_id: UUID | None


class WebhookDeleted(WebhookEvent):
    """An endpoint was deleted, with all its deliveries."""

    type: ClassVar[str] = "webhook.deleted"
