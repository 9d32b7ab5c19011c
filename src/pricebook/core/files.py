"""Files: uploads and results of jobs, in a folder or an object store, streamed in and out."""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, PreconditionError
from obstore.store import LocalStore, ObjectStore, from_url

from pricebook.core.settings import Settings

if TYPE_CHECKING:
    from obstore import GetOptions

# The least part that S3 takes; what is written is held in memory by the part.
_PART_BYTES = 5 * 1024 * 1024
# A request to the store each time: none stays open for as long as a slow reader takes.
_PIECE_BYTES = 1024 * 1024


class FileMissingError(Exception):
    """There is no such file: it has expired, or never was written to its end."""


class FilesAwayError(OSError):
    """The store does not answer, or has no room; trying again may help."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A file as it was written; one of the same name that is written later is another."""

    name: str
    size: int
    written_at: datetime
    etag: str | None
    """The store's own mark of this writing, if it has one."""


class Files:
    """Named files. One that is written appears whole or not at all."""

    def __init__(self, settings: Settings) -> None:
        """Keep them where the settings say; nothing is touched before the first use."""
        self._settings = settings

    @cached_property
    def _store(self) -> ObjectStore:
        return _store(self._settings)

    async def write(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Write a file as its bytes come; should they break off, there is none.

        Raises:
            FilesAwayError: The store does not answer, or has no room.

        """
        with _errors(name):
            await obstore.put_async(
                self._store, name, chunks, chunk_size=_PART_BYTES, max_concurrency=1
            )

    async def find(self, name: str) -> Stored:
        """Return what is known of a file.

        Raises:
            FileMissingError: There is none.
            FilesAwayError: The store does not answer.

        """
        with _errors(name):
            found = await obstore.head_async(self._store, name)
        return Stored(name, found["size"], found["last_modified"], found["e_tag"])

    async def size(self, name: str) -> int:
        """Return the size of a file in bytes; raises as `find` does."""
        return (await self.find(name)).size

    async def read(
        self, name: str, first: int = 0, size: int | None = None
    ) -> AsyncIterator[bytes]:
        """Yield a file, or `size` bytes of it from `first` on; never past its end.

        Raises:
            FileMissingError: There is none, or another was written meanwhile.
            FilesAwayError: The store does not answer.

        """
        stored = await self.find(name)
        end = stored.size if size is None else first + size
        async for piece in self.pieces(stored, first, end):
            yield piece

    async def pieces(self, stored: Stored, first: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes of a file from `first` up to `end`; raises as `read` does."""
        end = min(end, stored.size)
        while first < end:
            after = min(first + _PIECE_BYTES, end)
            yield await self._piece(stored, first, after)
            first = after

    async def _piece(self, stored: Stored, first: int, end: int) -> bytes:
        options: GetOptions = {"range": (first, end)}
        if stored.etag is not None:
            options["if_match"] = stored.etag
        with _errors(stored.name):
            found = await obstore.get_async(self._store, stored.name, options=options)
            return bytes(await found.bytes_async())

    async def delete(self, names: Iterable[str]) -> None:
        """Delete files; one that is not there is as good as deleted."""
        for name in names:
            try:
                with _errors(name):
                    await obstore.delete_async(self._store, name)
            except FileMissingError:
                continue


@contextmanager
def _errors(name: str) -> Iterator[None]:
    """Raise what the store says in our own words."""
    try:
        yield
    except (FileNotFoundError, PreconditionError) as error:
        raise FileMissingError(name) from error
    except BaseError as error:
        message = "the store of files cannot do this now"
        raise FilesAwayError(message) from error


def _store(settings: Settings) -> ObjectStore:
    url = settings.files.url
    if url is None:
        return LocalStore(settings.data_dir.absolute() / "files", mkdir=True)
    if url.startswith("file://"):
        return LocalStore(Path(unquote(urlsplit(url).path)), mkdir=True)
    options = {name: value.get_secret_value() for name, value in settings.files.options.items()}
    return from_url(url, config=options)  # type: ignore[call-overload, no-any-return]  # its overloads name each cloud's options
