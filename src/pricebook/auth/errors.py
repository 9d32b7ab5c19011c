"""What can be refused about log-ins, sessions and API keys."""

from pricebook.core.errors import (
    Conflict,
    Invalid,
    NotFound,
    TooManyRequests,
    Unauthenticated,
)


class LogInFailed(Unauthenticated):
    """No user has this e-mail address and this password."""


class SessionNotFound(NotFound):
    """You have no such session."""


class ApiKeyNotFound(NotFound):
    """You have no such API key."""


class TooManyApiKeys(Conflict):
    """You have as many API keys as one person may have; revoke one first."""


class OneTimeTokenInvalid(Invalid):
    """The token is unknown, used, or past its time; ask for a new mail."""


class TooManyMailRequests(TooManyRequests):
    """Too many mails have been asked for; wait before the next."""


class ExpiryPast(Invalid):
    """The expiry must lie ahead."""
