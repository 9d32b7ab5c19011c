"""The tables of webhooks: endpoints, what they are told, and each attempt to tell them."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    ForeignKey,
    Index,
    Select,
    Text,
    UniqueConstraint,
    func,
    select,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from pricebook.core.clock import now
from pricebook.core.database import Base
from pricebook.core.deliveries import Delivery
from pricebook.users.models import User


class WebhookEndpoint(Base):
    """A system that wants to be told. Its secrets lie encrypted (`core.sealing`)."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (
        CheckConstraint("char_length(url) BETWEEN 1 AND 2000", name="url_length"),
        CheckConstraint("cardinality(events) > 0", name="events_named"),
        CheckConstraint("cardinality(tags) > 0", name="tags_named"),
        CheckConstraint(
            "(disabled_at IS NULL) = (disabled_reason IS NULL)", name="disabled_with_reason"
        ),
        CheckConstraint("disabled_reason IN ('gone', 'failing')", name="disabled_reason"),
        Index("ix_webhook_endpoints_owner_id", "owner_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.uuidv7())
    # Who hears of its trouble; without one, all admins do.
    owner_id: Mapped[UUID | None] = mapped_column(ForeignKey(User.id, ondelete="SET NULL"))
    url: Mapped[str]
    description: Mapped[str | None]
    # None: all of them.
    events: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    tags: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    sealed_secret: Mapped[bytes]
    old_sealed_secret: Mapped[bytes | None]
    old_secret_until: Mapped[datetime | None]
    paused_at: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None]
    # Since the first failure after the last success.
    failing_since: Mapped[datetime | None]
    # When the owner was told that a delivery died; once for each time of failing.
    alerted_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())

    __mapper_args__ = {"version_id_col": version, "eager_defaults": True}  # noqa: RUF012 -- SQLAlchemy declares it as no ClassVar

    @property
    def paused(self) -> bool:
        """Whether nothing is sent, by somebody's wish or because of its failures."""
        return self.paused_at is not None or self.disabled_at is not None

    def edit(self, changes: Mapping[str, Any]) -> list[str]:
        """Take over `changes`, and return the names of those that were any."""
        changed = [name for name, value in changes.items() if getattr(self, name) != value]
        for name in changed:
            if name != "paused":
                setattr(self, name, changes[name])
            elif changes[name]:
                self.paused_at = now()
            else:
                self.paused_at = self.disabled_at = self.disabled_reason = None
        if {"url", "paused"} & set(changed):
            # Its failures are counted anew.
            self.failing_since = self.alerted_at = None
        return changed

    def rotate(self, sealed_secret: bytes, old_signs_for: timedelta) -> None:
        """Sign with a new secret, and for a while with the present one too."""
        self.old_sealed_secret = self.sealed_secret
        self.old_secret_until = func.now() + old_signs_for
        self.sealed_secret = sealed_secret


class WebhookMessage(Base):
    """What is told, to the byte: what is signed now is what is sent again later.

    The id is the event's, so that all deliveries of an event carry the same `webhook-id`.
    """

    __tablename__ = "webhook_messages"
    __table_args__ = (Index("ix_webhook_messages_created_at", "created_at"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    type: Mapped[str]
    body: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class WebhookDelivery(Delivery, Base):
    """The duty to tell one endpoint one message."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'delivered', 'dead')", name="status"),
        UniqueConstraint("endpoint_id", "message_id"),
        Index(
            "ix_webhook_deliveries_due",
            "endpoint_id",
            "due_at",
            "id",
            postgresql_where=text("status = 'pending'"),
        ),
        Index("ix_webhook_deliveries_endpoint_id", "endpoint_id", "id"),
        Index("ix_webhook_deliveries_message_id", "message_id"),
        Index(
            "ix_webhook_deliveries_delivered",
            "settled_at",
            postgresql_where=text("status = 'delivered'"),
        ),
    )

    endpoint_id: Mapped[UUID] = mapped_column(ForeignKey(WebhookEndpoint.id, ondelete="CASCADE"))
    message_id: Mapped[UUID] = mapped_column(ForeignKey(WebhookMessage.id))

    @classmethod
    def waiting_since(cls) -> Select[datetime]:
        """Select since when the one has been due that waits longest for an endpoint not paused."""
        of_endpoint = super().waiting_since().where(cls.endpoint_id == WebhookEndpoint.id)
        is_active = (WebhookEndpoint.paused_at.is_(None), WebhookEndpoint.disabled_at.is_(None))
        return select(func.min(of_endpoint.scalar_subquery())).where(*is_active)


class WebhookAttempt(Base):
    """One try to deliver, and how it went."""

    __tablename__ = "webhook_attempts"
    __table_args__ = (Index("ix_webhook_attempts_delivery_id", "delivery_id", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.uuidv7(monotonic=True))
    delivery_id: Mapped[UUID] = mapped_column(ForeignKey(WebhookDelivery.id, ondelete="CASCADE"))
    started_at: Mapped[datetime]
    duration_ms: Mapped[int]
    # None: no answer came.
    status_code: Mapped[int | None]
    error: Mapped[str | None]
    response_head: Mapped[str | None]
