"""`pricebook export`: the list into a file, whole or not at all."""

import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import typer
import zstandard

from pricebook.commands.client import Access, Client, open_client
from pricebook.commands.progress_bar import progress_bar
from pricebook.commands.records import CsvCounter, LineCounter
from pricebook.core.mendable import MendableError

Write = Callable[[bytes], object]

_STDOUT = Path("-")


class ExportBrokenOffError(MendableError):
    """Not everything came."""

    def __init__(self, reason: str) -> None:
        """Say why."""
        super().__init__(f"the export broke off, and what came is not all of it: {reason}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be exported, and to where; without a path, to where it fits best."""

    resource: str
    format: str
    query: Sequence[tuple[str, str]]
    path: Path | None


async def export(access: Access, wanted: Wanted) -> None:
    """Write what is wanted, and say how much it is.

    Raises:
        ExportBrokenOffError: Not everything came.

    """
    path = _path(wanted)
    async with open_client(access) as client:
        with _writing(path) as write:
            rows = await _receive(client, wanted, write)
    where = "" if path == _STDOUT else f" in {path}"
    typer.echo(f"{rows:,} {wanted.resource}{where}", err=True)


def _path(wanted: Wanted) -> Path:
    """Choose a file where a terminal would be flooded, but none that is there already."""
    if wanted.path is not None:
        return wanted.path
    if not sys.stdout.isatty():
        return _STDOUT
    path = Path(f"{wanted.resource}.{wanted.format}")
    if path.exists():
        message = f"{path} is there already: replace it with -o {path}, or name another file"
        raise MendableError(message)
    return path


@contextmanager
def _writing(path: Path) -> Iterator[Write]:
    """Give what writes to a file, which takes its name once it is whole."""
    if path == _STDOUT:
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file.write
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        message = f"cannot write {path}: {error.strerror}"
        raise MendableError(message) from error
    finally:
        part.unlink(missing_ok=True)


async def _receive(client: Client, wanted: Wanted, write: Write) -> int:
    """Write what comes, and return how many rows it was: as many as were announced."""
    path = f"/exports/{wanted.resource}.{wanted.format}"
    query = [*wanted.query, ("count", "exact")]
    is_csv = wanted.format == "csv"
    counter = CsvCounter() if is_csv else LineCounter()
    headers = {"Accept-Encoding": "zstd"}
    async with client.request("GET", path, params=query, headers=headers) as reply:
        announced = int(reply.headers["X-Total-Count"]) + is_csv
        with progress_bar() as bar:
            async for chunk in _unpacked(reply):
                write(chunk)
                counter.take(chunk)
                bar.show("Exporting", counter.count, announced)
    if counter.count != announced:
        reason = f"{counter.count:,} lines came, and {announced:,} were announced"
        raise ExportBrokenOffError(reason)
    return announced - is_csv


async def _unpacked(reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    unpack = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress
    is_packed = reply.headers.get("Content-Encoding", "identity") != "identity"
    try:
        async for chunk in reply.content.iter_any():
            yield unpack(chunk) if is_packed else chunk
    except (aiohttp.ClientError, TimeoutError, zstandard.ZstdError) as error:
        raise ExportBrokenOffError(str(error) or "it fell silent") from error
