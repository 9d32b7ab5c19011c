"""Links to files that work without logging in: signed, and good for a time.

One ends sooner with what its owner could log in with, or be, when it was made.
"""

import base64
import hmac
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from urllib.parse import urlencode
from uuid import UUID

from pricebook.core.clock import now
from pricebook.core.sealing import signing_keys
from pricebook.core.settings import Settings


@dataclass(frozen=True, slots=True)
class Linked:
    """What a link opens, and whose it is."""

    path: str
    owner_id: UUID
    credentials_epoch: int
    """The owner's; it moves on with a new role, a new password, and when the owner is shut out."""


class FileLinks:
    """Makes links, and tells which are genuine; nothing is stored."""

    def __init__(self, settings: Settings) -> None:
        """Sign with the secret key of the settings, if there is one."""
        self._keys = signing_keys(settings, "file links")
        self._url = settings.public_url.rstrip("/")

    def url(self, linked: Linked, expires_at: datetime) -> str | None:
        """Return a link, if there is a key to sign it with."""
        if not self._keys:
            return None
        expires = int(expires_at.timestamp())
        signature = _signature(self._keys[0], linked, expires)
        query = urlencode({"expires": expires, "signature": signature})
        return f"{self._url}{linked.path}?{query}"

    def opens(self, linked: Linked, expires: int, signature: str) -> bool:
        """Whether a link to this was signed here, and is in time."""
        # Half of a surrogate pair has no form in UTF-8, and is in no signature.
        given = signature.encode(errors="replace")
        is_genuine = any(
            hmac.compare_digest(given, _signature(key, linked, expires).encode())
            for key in self._keys
        )
        return is_genuine and now().timestamp() < expires


def _signature(key: bytes, linked: Linked, expires: int) -> str:
    said = f"{linked.path}\n{linked.owner_id}\n{linked.credentials_epoch}\n{expires}"
    seal = hmac.digest(key, said.encode(), sha256)
    return base64.urlsafe_b64encode(seal).rstrip(b"=").decode()
