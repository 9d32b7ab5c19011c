"""What happens to users. Payloads name no person and hold no secret."""

from typing import ClassVar
from uuid import UUID

from pricebook.core.outbox import Event


class UserEvent(Event):
    """Something happened to a user."""

    subject: ClassVar[str] = "user_id"
    user_id: UUID


class UserCreated(UserEvent):
    """A user was made."""

    type: ClassVar[str] = "user.created"
    role: str


class UserUpdated(UserEvent):
    """The named fields of a user changed."""

    type: ClassVar[str] = "user.updated"
    changed: list[str]


class UserDisabled(UserEvent):
    """A user was shut out."""

    type: ClassVar[str] = "user.disabled"


class UserDeleted(UserEvent):
    """A user was deleted, with all sessions and API keys."""

    type: ClassVar[str] = "user.deleted"


class UserPasswordChanged(UserEvent):
    """A user's password changed."""

    type: ClassVar[str] = "user.password_changed"


class PasswordResetRequested(UserEvent):
    """Somebody who may be the user asked for a new password."""

    type: ClassVar[str] = "user.password_reset_requested"


class EmailVerificationRequested(UserEvent):
    """A user is to prove that the e-mail address is theirs."""

    type: ClassVar[str] = "user.email_verification_requested"


class EmailVerified(UserEvent):
    """A user proved that the e-mail address is theirs."""

    type: ClassVar[str] = "user.email_verified"
