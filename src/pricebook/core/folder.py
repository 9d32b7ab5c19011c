"""Small files in a data folder: written whole, private, and locked by one owner at a time."""

import fcntl
import os
import secrets
from pathlib import Path

from pydantic import SecretStr

from pricebook.core.mendable import MendableError

_KEY_BYTES = 32


class FolderInUseError(MendableError):
    """Another process holds the lock of this folder."""


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; nobody but its owner may read it."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    new.replace(path)


def secret_key_in(folder: Path) -> SecretStr:
    """Return the secret key that lies in a data folder; it is made when first asked for."""
    path = folder / "secret-key"
    if not path.exists():
        write_private(path, secrets.token_urlsafe(_KEY_BYTES) + "\n")
    return SecretStr(path.read_text().strip())


def take_folder(folder: Path) -> int:
    """Lock a folder until the returned descriptor is closed or this process ends."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode() or "unknown"
        os.close(descriptor)
        message = f"the data folder {folder} is in use by another pricebook (process {holder})"
        raise FolderInUseError(message) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor
