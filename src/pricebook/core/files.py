"""Files: uploads and results of jobs, in a folder or an object store, streamed in and out."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import obstore
from obstore.exceptions import BaseError, PreconditionError
from obstore.store import LocalStore, ObjectStore, from_url

from pricebook.core.clock import now
from pricebook.core.settings import Settings

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import RetryConfig

# The least part that S3 takes; what is written is held in memory by the part.
_PART_BYTES = 5 * 1024 * 1024
# A request to the store each time: none stays open for as long as a slow reader takes.
_PIECE_BYTES = 1024 * 1024
# By itself it would try for three minutes, which nobody waits for; jobs try again on their own.
_RETRIES: "RetryConfig" = {"max_retries": 3, "retry_timeout": timedelta(seconds=10)}
_FAREWELL_SECONDS = 5.0
_LITTLE = b"Pricebook was here."
# Options that are about the connection to a store; the rest are about the store itself.
_CONNECTION = (
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "proxy_url",
    "timeout",
)
# How a folder calls a file that is not written to its end: with the number of the try.
_UNFINISHED = "*#[0-9]*"


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

        `chunks` is run in the caller's own task, and is done with when this returns.

        Raises:
            FilesAwayError: The store does not answer, or has no room.

        """
        pipe = _Pipe()
        putting = asyncio.create_task(self._put(name, pipe))
        putting.add_done_callback(_heard)
        try:
            async for chunk in chunks:
                await pipe.give(chunk, putting)
            await pipe.give(None, putting)
            await putting
        except BaseException:
            pipe.break_off()
            await asyncio.wait([putting], timeout=_FAREWELL_SECONDS)
            raise
        finally:
            putting.cancel()

    async def _put(self, name: str, pipe: "_Pipe") -> None:
        with _errors(name):
            await obstore.put_async(
                self._store, name, pipe.chunks(), chunk_size=_PART_BYTES, max_concurrency=1
            )

    async def find(self, name: str) -> Stored:
        """Return what is known of a file.

        Raises:
            FileMissingError: There is none.
            FilesAwayError: The store does not answer.

        """
        with _errors(name):
            return _stored(await obstore.head_async(self._store, name))

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

    async def complaint(self) -> str | None:
        """Say why a small file cannot be written and read, if so."""
        name = f"doctor/{uuid4()}"
        try:
            await self.write(name, _little())
            found = b"".join([piece async for piece in self.read(name)])
            await self.delete([name])
        except (FileMissingError, FilesAwayError) as error:
            return str(error.__cause__).partition("\n")[0]
        return None if found == _LITTLE else "what is read is not what was written"

    async def list_old(self, folder: str, age: timedelta) -> AsyncIterator[str]:
        """Yield the names of files in a folder that were written before `age`."""
        before = now() - age
        async for stored in self.list_all(folder):
            if stored.written_at < before:
                yield stored.name

    async def list_all(self, folder: str = "") -> AsyncIterator[Stored]:
        """Yield every file in a folder and below it; by default every file."""
        with _errors(folder):
            async for found in obstore.list(self._store, prefix=f"{folder}/" if folder else None):
                for one in found:
                    yield _stored(one)

    async def clear_unfinished(self, age: timedelta) -> int:
        """Delete what killed processes left of files they were writing; return how many.

        An object store does that by itself, by a rule for incomplete uploads.
        """
        if not isinstance(self._store, LocalStore) or self._store.prefix is None:
            return 0
        return await asyncio.to_thread(_clear, Path(self._store.prefix), now() - age)


def _stored(meta: "ObjectMeta") -> Stored:
    return Stored(meta["path"], meta["size"], meta["last_modified"], meta["e_tag"])


async def _little() -> AsyncIterator[bytes]:
    yield _LITTLE


class _Pipe:
    """Chunks on their way to the store.

    The store reads them in a task that it does not end when it is cancelled itself, and a
    generator that runs on can be neither closed nor trusted; this one always comes to its end.
    """

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._is_broken = False

    async def give(self, chunk: bytes | None, putting: asyncio.Task[None]) -> None:
        """Pass a chunk on, as soon as the one before it is taken; None is the end."""
        giving = asyncio.create_task(self._queue.put(chunk))
        try:
            await asyncio.wait([giving, putting], return_when=asyncio.FIRST_COMPLETED)
        finally:
            giving.cancel()
        if putting.done():
            putting.result()

    def break_off(self) -> None:
        """Let the store know that there will be no end."""
        self._is_broken = True
        with suppress(asyncio.QueueFull):
            self._queue.put_nowait(None)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what was given."""
        while (chunk := await self._queue.get()) is not None:
            if self._is_broken:
                break
            yield chunk
        if self._is_broken:
            raise _BrokenOffError


class _BrokenOffError(Exception):
    """There will be no whole file."""


def _heard(putting: asyncio.Task[None]) -> None:
    """Whoever waits for it hears of its error; if nobody does, it is of no interest."""
    if not putting.cancelled():
        putting.exception()


def _clear(folder: Path, before: datetime) -> int:
    count = 0
    for path in folder.rglob(_UNFINISHED):
        with suppress(FileNotFoundError):
            if path.is_file() and path.stat().st_mtime < before.timestamp():
                path.unlink()
                count += 1
    return count


@contextmanager
def _errors(name: str) -> Iterator[None]:
    """Raise what the store says in our own words."""
    try:
        yield
    except (FileNotFoundError, PreconditionError) as error:
        raise FileMissingError(name) from error
    except (BaseError, OSError) as error:
        message = "the store of files cannot do this now"
        raise FilesAwayError(message) from error


def folder_of(settings: Settings) -> Path | None:
    """Return the folder that files are kept in, unless they are kept elsewhere."""
    url = settings.files.url
    if url is None:
        return settings.data_dir.absolute() / "files"
    return Path(unquote(urlsplit(url).path)) if url.startswith("file://") else None


def _store(settings: Settings) -> ObjectStore:
    if (folder := folder_of(settings)) is not None:
        return LocalStore(folder, mkdir=True)
    given = {name.lower(): one.get_secret_value() for name, one in settings.files.options.items()}
    connection = {name: given.pop(name) for name in _CONNECTION if name in given}
    url: str = settings.files.url  # type: ignore[assignment]  # no folder, so there is one
    how = {"config": given, "client_options": connection, "retry_config": _RETRIES}
    store: ObjectStore = from_url(url, **how)  # type: ignore[call-overload]  # its overloads name each cloud's options
    return store
