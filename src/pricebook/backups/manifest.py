"""The manifest of a backup: what is in it, how to know that it is whole, and what it needs."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pricebook.core.sealing import signing_keys
from pricebook.core.settings import Settings

DUMP = "dump"
FILES = "files/"
_FINGERPRINT_BYTES = 4


class Part(BaseModel):
    """One of its files: the dump, or a copy of one that Pricebook keeps."""

    model_config = ConfigDict(frozen=True)

    name: str
    size: int
    sha256: str


class TableSum(BaseModel):
    """What all rows of a table come to, whatever their order; see `row_sums`."""

    model_config = ConfigDict(frozen=True)

    rows: int
    hash: str


class Manifest(BaseModel):
    """Written last: a backup that has one is whole."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    name: str
    began_at: datetime
    """Shortly before the moment that the backup shows."""
    ended_at: datetime
    version: str
    """Pricebook's."""
    head: str
    """The schema's revision."""
    postgres: int
    """The major version of the server."""
    secret_keys: list[str]
    """A fingerprint of each key in PRICEBOOK_SECRET_KEY, which is not in the backup."""
    tables: dict[str, TableSum]
    parts: list[Part]

    @property
    def dump(self) -> Part:
        """The part that holds the database."""
        return next(part for part in self.parts if part.name == DUMP)

    @property
    def files(self) -> list[Part]:
        """The parts that are copies of files."""
        return [part for part in self.parts if part.name.startswith(FILES)]

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(part.size for part in self.parts)


def fingerprints(settings: Settings) -> list[str]:
    """Tell keys apart without telling anything of use about them: 32 bits of a derived key."""
    keys = signing_keys(settings, "fingerprint in backups")
    return [key[:_FINGERPRINT_BYTES].hex() for key in keys]
