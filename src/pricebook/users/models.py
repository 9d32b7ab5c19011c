"""The users table, and the rules that hold for one user."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from pricebook.core.clock import now
from pricebook.core.database import Base
from pricebook.core.principal import Role


class User(Base):
    """A person with an account.

    A session belongs to the `credentials_epoch` in which it was opened, and ends when the user's
    epoch moves on: no clock is asked, and a log-in that raced the change is dead at birth. Only
    `kept_session_id` outlives its epoch: the session in which the password was changed.
    """

    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint("length(email) BETWEEN 3 AND 254", name="email"),
        CheckConstraint("length(name) BETWEEN 1 AND 200", name="name"),
        CheckConstraint("role IN ('viewer', 'editor', 'admin')", name="role"),
        Index("ix_users_created_at", "created_at", "id"),
        Index("ix_users_name", "name", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.uuidv7())
    email: Mapped[str]
    name: Mapped[str]
    role: Mapped[str]
    hashed_password: Mapped[str]
    email_verified_at: Mapped[datetime | None]
    credentials_epoch: Mapped[int] = mapped_column(server_default="1")
    kept_session_id: Mapped[UUID | None]
    disabled_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(server_default="1")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())

    __mapper_args__ = {"version_id_col": version, "eager_defaults": True}  # noqa: RUF012 -- SQLAlchemy declares it as no ClassVar

    @property
    def disabled(self) -> bool:
        """Whether the user is shut out."""
        return self.disabled_at is not None

    @property
    def is_acting_admin(self) -> bool:
        """Whether the user can manage users just now."""
        return self.role == Role.ADMIN and not self.disabled

    def edit(self, changes: Mapping[str, Any]) -> list[str]:
        """Take over `changes`, and return the names of those that were any."""
        changed = [name for name, value in changes.items() if getattr(self, name) != value]
        for name in changed:
            if name == "disabled":
                self.disabled_at = now() if changes[name] else None
            else:
                setattr(self, name, changes[name])
        if "email" in changed:
            self.email_verified_at = None
        if {"role", "disabled"} & set(changed):
            self.end_sessions()
        return changed

    def prove_address(self) -> bool:
        """Take the e-mail address as the user's own; return whether that is new."""
        is_new = self.email_verified_at is None
        if is_new:
            self.email_verified_at = now()
        return is_new

    def end_sessions(self, *, keep: UUID | None = None) -> None:
        """End every session but `keep`; API keys live on."""
        self.credentials_epoch += 1
        self.kept_session_id = keep


Index("uq_users_email", func.lower(User.email), unique=True)
