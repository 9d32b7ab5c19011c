"""The shelf: where backups lie, each in a folder of its name, with its manifest written last."""

import hashlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta

from pydantic import ValidationError

from pricebook.backups.manifest import Manifest, Part
from pricebook.core.clock import now
from pricebook.core.files import FileMissingError, Files
from pricebook.core.mendable import MendableError
from pricebook.core.settings import BackupSettings, Settings

_MANIFEST = "manifest.json"
# No backup takes as long: what has no manifest by then was broken off.
_UNFINISHED_AGE = timedelta(days=2)


class BackupError(MendableError):
    """A backup cannot be made, found, or trusted."""


class Shelf:
    """All backups of `PRICEBOOK_BACKUP__URL`."""

    def __init__(self, settings: Settings) -> None:
        """Look where the settings say; nothing is touched before the first use.

        Raises:
            BackupError: They say nothing.

        """
        if settings.backup.url is None:
            message = "no place for backups: set PRICEBOOK_BACKUP__URL, such as file:///a/folder"
            raise BackupError(message)
        place = {"url": settings.backup.url, "options": settings.backup.options}
        self._settings = settings.backup
        self._files = Files(
            settings.model_copy(update={"files": settings.files.model_copy(update=place)})
        )

    async def write(self, backup: str, name: str, chunks: AsyncIterator[bytes]) -> Part:
        """Write a part as its bytes come, and return what it is known by."""
        digest, size = hashlib.sha256(), 0

        async def seen() -> AsyncGenerator[bytes, None]:
            nonlocal size
            async for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                yield chunk

        async with aclosing(seen()) as passed_on:
            await self._files.write(f"{backup}/{name}", passed_on)
        return Part(name=name, size=size, sha256=digest.hexdigest())

    async def read(self, backup: str, part: Part) -> AsyncIterator[bytes]:
        """Yield a part.

        Raises:
            BackupError: It is not what was written; that is known at its end.

        """
        digest, size = hashlib.sha256(), 0
        try:
            async for chunk in self._files.read(f"{backup}/{part.name}"):
                digest.update(chunk)
                size += len(chunk)
                yield chunk
        except FileMissingError as error:
            message = f"{backup} is spoilt: {part.name} is missing"
            raise BackupError(message) from error
        if (size, digest.hexdigest()) != (part.size, part.sha256):
            message = f"{backup} is spoilt: {part.name} is not what was written"
            raise BackupError(message)

    async def check(self, backup: str, part: Part) -> None:
        """Read a part to its end; raises as `read` does."""
        async for _ in self.read(backup, part):
            pass

    async def finish(self, manifest: Manifest) -> None:
        """Write the manifest: from now on the backup counts."""

        async def written() -> AsyncIterator[bytes]:
            yield manifest.model_dump_json(indent=1).encode()

        await self._files.write(f"{manifest.name}/{_MANIFEST}", written())

    async def find(self, name: str | None) -> Manifest:
        """Return the manifest of a backup, by default of the newest.

        Raises:
            BackupError: There is none of that name, or it cannot be read.

        """
        if name is None:
            names = await self.names()
            if not names:
                message = f"there is no whole backup at {self._settings.url}"
                raise BackupError(message)
            name = names[-1]
        try:
            text = b"".join([piece async for piece in self._files.read(f"{name}/{_MANIFEST}")])
            return Manifest.model_validate_json(text)
        except FileMissingError as error:
            message = f"there is no whole backup {name}: see `pricebook backups`"
            raise BackupError(message) from error
        except ValidationError as error:
            message = f"the manifest of {name} is not one that this version can read"
            raise BackupError(message) from error

    async def names(self) -> list[str]:
        """Return the names of all whole backups, the oldest first."""
        return sorted(_whole([one.name async for one in self._files.list_all()]))

    async def clear(self) -> list[str]:
        """Delete what is not to be kept, and return its names.

        A manifest goes before what it tells of, so that no part of a backup ever passes for one.
        """
        written: dict[str, datetime] = {}
        paths: dict[str, list[str]] = {}
        async for stored in self._files.list_all():
            name = stored.name.partition("/")[0]
            paths.setdefault(name, []).append(stored.name)
            written[name] = max(stored.written_at, written.get(name, stored.written_at))
        whole = set(_whole(path for some in paths.values() for path in some))
        broken_off = {
            name
            for name, moment in written.items()
            if name not in whole and begun_at(name) and moment < now() - _UNFINISHED_AGE
        }
        gone = sorted({*expired(sorted(whole), self._settings, now()), *broken_off})
        for name in gone:
            await self._files.delete(sorted(paths[name], key=lambda one: not _is_manifest(one)))
        await self._files.clear_unfinished(_UNFINISHED_AGE)
        return gone


def expired(names: Sequence[str], settings: BackupSettings, moment: datetime) -> list[str]:
    """Return which whole backups are both old and not among the newest; names sort by time."""
    before = moment - timedelta(days=settings.keep_days)
    return [
        name
        for name in sorted(names)[: -settings.keep]
        if (begun := begun_at(name)) is not None and begun < before
    ]


def new_name() -> str:
    """Name a backup by the moment; the end tells two of one second apart."""
    return f"{now():%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def begun_at(name: str) -> datetime | None:
    """Return the moment that a backup's name tells; None if it is no name of ours."""
    try:
        return datetime.strptime(f"{name.partition('-')[0]}+0000", "%Y%m%dT%H%M%SZ%z")
    except ValueError:
        return None


def _whole(paths: Iterable[str]) -> list[str]:
    folders = (path.partition("/")[0] for path in paths if _is_manifest(path))
    return [name for name in folders if begun_at(name)]


def _is_manifest(path: str) -> bool:
    return path.partition("/")[2] == _MANIFEST
