"""What people are told of, and which way."""

from datetime import timedelta
from enum import StrEnum


class Kind(StrEnum):
    """What a notification is about; people choose by it."""

    PRICE_CHANGED = "price_changed"
    JOB_FINISHED = "job_finished"
    WEBHOOK_TROUBLE = "webhook_trouble"
    SECURITY = "security"


class MailKind(StrEnum):
    """What a mail is about, and so how it is written."""

    PRICE_CHANGES = "price_changes"
    JOB_FINISHED = "job_finished"
    WEBHOOK_TROUBLE = "webhook_trouble"
    SECURITY = "security"
    PASSWORD_RESET = "password_reset"  # noqa: S105 -- the name of a kind of mail
    VERIFY_EMAIL = "verify_email"


class Channel(StrEnum):
    """The way that a notification takes."""

    INBOX = "inbox"
    EMAIL = "email"


class Digest(StrEnum):
    """How often somebody is mailed about prices."""

    AT_ONCE = "at_once"
    HOURLY = "hourly"
    DAILY = "daily"
    NEVER = "never"


GATHERING_TIMES = {Digest.HOURLY: timedelta(hours=1), Digest.DAILY: timedelta(days=1)}
"""How long a mail of price changes takes in more of them; at once otherwise."""

MAILED_AS = {
    Kind.PRICE_CHANGED: MailKind.PRICE_CHANGES,
    Kind.JOB_FINISHED: MailKind.JOB_FINISHED,
    Kind.WEBHOOK_TROUBLE: MailKind.WEBHOOK_TROUBLE,
    Kind.SECURITY: MailKind.SECURITY,
}

UNMUTABLE = frozenset({(Kind.SECURITY, Channel.EMAIL)})
"""What cannot be switched off: who takes over an account would do that first."""


def switch(kind: Kind, channel: Channel) -> str:
    """Return how the column `muted` calls a kind of notification on a channel."""
    return f"{kind}.{channel}"
