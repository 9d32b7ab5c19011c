"""Secrets that must be read again lie encrypted in the database, under keys of the settings."""

import base64

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from pricebook.core.errors import Unavailable
from pricebook.core.settings import Settings

_PURPOSE = b"pricebook sealing"


class SecretKeyMissing(Unavailable):
    """The operator has to set PRICEBOOK_SECRET_KEY before secrets can be kept."""


class SealBrokenError(Exception):
    """None of the keys opens this; PRICEBOOK_SECRET_KEY lacks the one that sealed it."""


class Sealer:
    """Encrypts with the first key, decrypts with any: so keys are rotated (Fernet's own way)."""

    def __init__(self, settings: Settings) -> None:
        """Use the keys of `settings.secret_key`, which may be missing until one is needed."""
        given = settings.secret_key.get_secret_value() if settings.secret_key else ""
        keys = [Fernet(_derived(key.strip())) for key in given.split(",") if key.strip()]
        self._first = keys[0] if keys else None
        self._all = MultiFernet(keys) if keys else None

    @property
    def is_ready(self) -> bool:
        """Whether there is a key."""
        return self._all is not None

    def seal(self, secret: SecretStr) -> bytes:
        """Encrypt.

        Raises:
            SecretKeyMissing: The settings have no key.

        """
        if self._first is None:
            raise SecretKeyMissing
        return self._first.encrypt(secret.get_secret_value().encode())

    def open(self, sealed: bytes) -> SecretStr:
        """Decrypt.

        Raises:
            SecretKeyMissing: The settings have no key.
            SealBrokenError: It was sealed with none of them.

        """
        if self._all is None:
            raise SecretKeyMissing
        try:
            return SecretStr(self._all.decrypt(sealed).decode())
        except InvalidToken as error:
            message = "no key of PRICEBOOK_SECRET_KEY opens it"
            raise SealBrokenError(message) from error

    def is_current(self, sealed: bytes) -> bool:
        """Whether the first key sealed it: if not, it is sealed anew before the old key goes."""
        try:
            return self._first is not None and bool(self._first.decrypt(sealed))
        except InvalidToken:
            return False


def _derived(key: str) -> bytes:
    """Make a Fernet key of any text that is long enough (RFC 5869)."""
    derive = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE)
    return base64.urlsafe_b64encode(derive.derive(key.encode()))


def signing_keys(settings: Settings, purpose: str) -> list[bytes]:
    """Return keys for HMACs of one purpose, one for each key: the first signs, all verify."""
    given = settings.secret_key.get_secret_value() if settings.secret_key else ""
    return [
        HKDF(algorithm=SHA256(), length=32, salt=None, info=f"pricebook {purpose}".encode()).derive(
            key.strip().encode()
        )
        for key in given.split(",")
        if key.strip()
    ]
