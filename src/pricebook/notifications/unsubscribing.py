"""Links by which people stop a kind of mail without logging in (RFC 8058)."""

import base64
import binascii
import hmac
from hashlib import sha256
from uuid import UUID

from pricebook.core.sealing import signing_keys
from pricebook.core.settings import Settings
from pricebook.notifications.errors import UnsubscribeLinkInvalid
from pricebook.notifications.kinds import UNMUTABLE, Channel, Kind

PATH = "/v1/notifications/unsubscribe"

_SEAL_BYTES = 32
_ID_BYTES = 16


class Unsubscriber:
    """Makes the links, and tells from one who wants no more of what; nothing is stored."""

    def __init__(self, settings: Settings) -> None:
        """Sign with the secret key of the settings, if there is one."""
        self._keys = signing_keys(settings, "unsubscribe")
        self._url = settings.public_url.rstrip("/") + PATH

    def url(self, user_id: UUID, kind: Kind) -> str | None:
        """Return the link to be mailed, if there is a key to sign it with."""
        if not self._keys or (kind, Channel.EMAIL) in UNMUTABLE:
            return None
        said = user_id.bytes + kind.value.encode()
        token = base64.urlsafe_b64encode(_seal(self._keys[0], said) + said).rstrip(b"=")
        return f"{self._url}?token={token.decode()}"

    def read(self, token: str) -> tuple[UUID, Kind]:
        """Return who wants no more mail of which kind.

        Raises:
            UnsubscribeLinkInvalid: No key of ours has signed it.

        """
        try:
            signed = base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        except (ValueError, binascii.Error) as error:
            raise UnsubscribeLinkInvalid(pointer="query/token") from error
        seal, said = signed[:_SEAL_BYTES], signed[_SEAL_BYTES:]
        if not any(hmac.compare_digest(seal, _seal(key, said)) for key in self._keys):
            raise UnsubscribeLinkInvalid(pointer="query/token")
        return UUID(bytes=said[:_ID_BYTES]), Kind(said[_ID_BYTES:].decode())


def _seal(key: bytes, said: bytes) -> bytes:
    return hmac.digest(key, said, sha256)
