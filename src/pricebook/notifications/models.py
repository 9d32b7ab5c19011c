"""The tables of what people watch, what they are told, and the mails that tell it."""

from datetime import datetime
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
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from pricebook.core.clock import now
from pricebook.core.database import Base
from pricebook.core.deliveries import Delivery
from pricebook.items.models import Item
from pricebook.users.models import User


class ItemWatch(Base):
    """Somebody wants to hear when the price of an item changes."""

    __tablename__ = "item_watches"
    __table_args__ = (Index("ix_item_watches_item_id", "item_id"),)

    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), primary_key=True)
    item_id: Mapped[UUID] = mapped_column(ForeignKey(Item.id, ondelete="CASCADE"), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class TagWatch(Base):
    """Somebody wants to hear when the price of anything with a tag changes."""

    __tablename__ = "tag_watches"
    __table_args__ = (Index("ix_tag_watches_tag", "tag"),)

    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), primary_key=True)
    tag: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class NotificationSettings(Base):
    """How somebody wants to be told; without a row, everything, at once."""

    __tablename__ = "notification_settings"
    __table_args__ = (
        CheckConstraint("digest IN ('at_once', 'hourly', 'daily', 'never')", name="digest"),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), primary_key=True)
    digest: Mapped[str] = mapped_column(server_default=text("'at_once'"))
    # What is switched off, as `kind.channel`: `price_changed.email`.
    muted: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))

    def switch(self, name: str, *, is_on: bool) -> None:
        """Switch a kind of notification on or off on a channel, by its name in `muted`."""
        self.muted = sorted({*self.muted} - {name} if is_on else {*self.muted, name})


class Mail(Delivery, Base):
    """The duty to send one person one mail. What it says is made when it is sent."""

    __tablename__ = "mails"
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'delivered', 'dead')", name="status"),
        Index("uq_mails_gathering", "user_id", unique=True, postgresql_where=text("is_gathering")),
        Index("ix_mails_due", "due_at", "id", postgresql_where=text("status = 'pending'")),
        Index("ix_mails_user_id", "user_id", "created_at"),
        Index("ix_mails_settled_at", "settled_at", postgresql_where=text("settled_at IS NOT NULL")),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    kind: Mapped[str]
    # What it is about; a mail of price changes is about the notifications that name it.
    event_id: Mapped[UUID | None]
    data: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    # Takes in more changes until it is claimed; each person has at most one.
    is_gathering: Mapped[bool] = mapped_column(server_default=text("false"))
    last_error: Mapped[str | None]

    @classmethod
    def waiting_since(cls) -> Select[datetime]:
        """Select since when the one has been due that waits longest, and not for more to gather."""
        return super().waiting_since().where(~cls.is_gathering)


class Notification(Base):
    """Something that one person is told, once an event."""

    __tablename__ = "notifications"
    __table_args__ = (
        UniqueConstraint("user_id", "event_id"),
        Index("ix_notifications_inbox", "user_id", "id", postgresql_where=text("is_in_inbox")),
        Index(
            "ix_notifications_unread",
            "user_id",
            postgresql_where=text("is_in_inbox AND read_at IS NULL"),
        ),
        Index("ix_notifications_mail_id", "mail_id"),
        Index("ix_notifications_created_at", "created_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.uuidv7(monotonic=True))
    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    kind: Mapped[str]
    event_id: Mapped[UUID]
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)
    is_in_inbox: Mapped[bool]
    mail_id: Mapped[UUID | None] = mapped_column(ForeignKey(Mail.id, ondelete="SET NULL"))
    read_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    def mark(self, *, is_read: bool) -> None:
        """Take it for read or unread; what is read already keeps its moment."""
        self.read_at = (self.read_at or now()) if is_read else None
