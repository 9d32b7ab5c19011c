"""Files: uploads and results of jobs, in a folder or an object store, streamed in and out."""

from collections.abc import AsyncIterator, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import LocalStore, ObjectStore, from_url

from pricebook.core.settings import Settings

if TYPE_CHECKING:
    from obstore import GetOptions

# The least part that S3 takes; what is written is held in memory by the part.
_PART_BYTES = 5 * 1024 * 1024
_CHUNK_BYTES = 256 * 1024


class FileMissingError(Exception):
    """There is no such file: it has expired, or never was written to its end."""


class Files:
    """Named files. One that is written appears whole or not at all."""

    def __init__(self, settings: Settings) -> None:
        """Keep them where the settings say; nothing is touched before the first use."""
        self._settings = settings

    @cached_property
    def _store(self) -> ObjectStore:
        return _store(self._settings)

    async def write(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Write a file as its bytes come; should they break off, there is none."""
        await obstore.put_async(
            self._store, name, chunks, chunk_size=_PART_BYTES, max_concurrency=1
        )

    async def read(
        self, name: str, first: int = 0, size: int | None = None
    ) -> AsyncIterator[bytes]:
        """Yield a file, or `size` bytes of it from `first` on; never past its end.

        Raises:
            FileMissingError: There is none.

        """
        options: GetOptions = {} if size is None else {"range": (first, first + size)}
        if size is None and first:
            options = {"range": {"offset": first}}
        try:
            found = await obstore.get_async(self._store, name, options=options)
        except FileNotFoundError as error:
            raise FileMissingError(name) from error
        async for chunk in found.stream(min_chunk_size=_CHUNK_BYTES):
            yield bytes(chunk)

    async def size(self, name: str) -> int:
        """Return the size of a file in bytes.

        Raises:
            FileMissingError: There is none.

        """
        try:
            return (await obstore.head_async(self._store, name))["size"]
        except FileNotFoundError as error:
            raise FileMissingError(name) from error

    async def delete(self, names: Iterable[str]) -> None:
        """Delete files; one that is not there is as good as deleted."""
        for name in names:
            try:
                await obstore.delete_async(self._store, name)
            except FileNotFoundError:
                continue


def _store(settings: Settings) -> ObjectStore:
    url = settings.files.url
    if url is None:
        return LocalStore(settings.data_dir.absolute() / "files", mkdir=True)
    if url.startswith("file://"):
        return LocalStore(Path(unquote(urlsplit(url).path)), mkdir=True)
    options = {name: value.get_secret_value() for name, value in settings.files.options.items()}
    return from_url(url, config=options)  # type: ignore[call-overload, no-any-return]  # its overloads name each cloud's options
