"""The tables of what people and systems show to be let in; tokens are stored as digests only."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, Index, Text, func
from sqlalchemy.orm import Mapped, mapped_column

from pricebook.core.database import Base
from pricebook.users.models import User


class Session(Base):
    """A log-in. It ends at its time, by deletion, or with the epoch of its user's credentials."""

    __tablename__ = "sessions"
    __table_args__ = (
        Index("uq_sessions_token_digest", "token_digest", unique=True),
        Index("ix_sessions_user_id", "user_id", "id"),
        Index("ix_sessions_expires_at", "expires_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.uuidv7())
    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    token_digest: Mapped[bytes]
    credentials_epoch: Mapped[int]
    address: Mapped[str]
    user_agent: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]


class ApiKey(Base):
    """A key that a person made for a system."""

    __tablename__ = "api_keys"
    __table_args__ = (
        CheckConstraint("length(name) BETWEEN 1 AND 200", name="name"),
        CheckConstraint(
            "cardinality(scopes) > 0 AND scopes <@ "
            "ARRAY['items:read', 'items:write', 'users:read', 'users:write', "
            "'webhooks:read', 'webhooks:write']",
            name="scopes",
        ),
        Index("uq_api_keys_token_digest", "token_digest", unique=True),
        Index("ix_api_keys_user_id", "user_id", "id"),
        Index("ix_api_keys_expires_at", "expires_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.uuidv7())
    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    token_digest: Mapped[bytes]
    name: Mapped[str]
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]


class KnownNetwork(Base):
    """A network that someone has logged in from: strangers' failures elsewhere do not close it."""

    __tablename__ = "known_networks"

    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), primary_key=True)
    network: Mapped[str] = mapped_column(primary_key=True)
    last_login_at: Mapped[datetime] = mapped_column(server_default=func.now())


class OneTimeToken(Base):
    """A token that a mail carries: it works once, and for a while.

    One for a new password belongs to the epoch of the user's credentials that it was made in, as a
    session does, and is void when the epoch moves on.
    """

    __tablename__ = "one_time_tokens"
    __table_args__ = (
        CheckConstraint("purpose IN ('password_reset', 'verify_email')", name="purpose"),
        Index("ix_one_time_tokens_user_id", "user_id"),
        Index("ix_one_time_tokens_expires_at", "expires_at"),
    )

    token_digest: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    purpose: Mapped[str]
    credentials_epoch: Mapped[int]
    # The address that the mail went to: it must still be the user's when the token comes back.
    email: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
