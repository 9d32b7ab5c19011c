"""What happens to API keys. Payloads hold no key, and nothing to make one from."""

from typing import ClassVar
from uuid import UUID

from pricebook.core.outbox import Event


class ApiKeyEvent(Event):
    """Something happened to an API key."""

    subject: ClassVar[str] = "api_key_id"
    api_key_id: UUID
    user_id: UUID


class ApiKeyCreated(ApiKeyEvent):
    """A person made an API key."""

    type: ClassVar[str] = "api_key.created"
    scopes: list[str]


class ApiKeyRevoked(ApiKeyEvent):
    """A person revoked an API key."""

    type: ClassVar[str] = "api_key.revoked"
