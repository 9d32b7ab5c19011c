"""Signatures of Standard Webhooks 1.0: https://www.standardwebhooks.com."""

import base64
import hmac
import secrets
from collections.abc import Sequence
from functools import lru_cache

from pydantic import SecretStr

from pricebook.core.sealing import Sealer

_PREFIX = "whsec_"
_SECRET_BYTES = 32
_REMEMBERED = 500


def new_secret() -> SecretStr:
    """Make the secret of an endpoint, in the form that receivers' libraries take."""
    return SecretStr(_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode())


def signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Sign what is sent, by one key."""
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


class Signer:
    """Signs with secrets that lie sealed, and remembers those that it opened."""

    def __init__(self, sealer: Sealer) -> None:
        """Open secrets with `sealer`."""
        self._sealer = sealer
        self._key = lru_cache(_REMEMBERED)(self._opened)

    def headers(
        self, sealed: Sequence[bytes], message_id: str, timestamp: int, body: bytes
    ) -> dict[str, str]:
        """Return the headers that prove where a message comes from; one signature a secret.

        Raises:
            SecretKeyMissing: The settings have no key.
            SealBrokenError: None of their keys opens a secret.

        """
        signatures = (
            signature(self._key(secret), message_id, timestamp, body) for secret in sealed
        )
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(signatures),
        }

    def _opened(self, sealed: bytes) -> bytes:
        secret = self._sealer.open(sealed).get_secret_value()
        return base64.b64decode(secret.removeprefix(_PREFIX))
