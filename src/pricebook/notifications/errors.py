"""What can be refused about watches, the inbox and mail."""

from pricebook.core.errors import Conflict, Invalid, NotFound


class NotificationNotFound(NotFound):
    """There is no such notification in your inbox."""


class TooManyWatches(Conflict):
    """You watch as many as one person may; stop watching something first."""


class UnsubscribeLinkInvalid(Invalid):
    """The link is not one that a mail of this service carried."""
