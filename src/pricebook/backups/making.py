"""Making a backup: one moment of the database, dumped, summed up, read back, and only then told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version

import asyncpg

from pricebook.backups.manifest import DUMP, FILES, Manifest, Part, TableSum, fingerprints
from pricebook.backups.programs import Programs
from pricebook.backups.shelf import Shelf, new_name
from pricebook.backups.sums import row_sums
from pricebook.core.clock import now
from pricebook.core.files import FileMissingError, Files
from pricebook.core.schema_head import SchemaError, connect
from pricebook.core.settings import Settings

Say = Callable[[str], object]

_UNITS = {1024**3: "GiB", 1024**2: "MiB", 1024: "KiB"}


@dataclass(frozen=True)
class _Moment:
    """A snapshot of the database that others can read, too, while the connection is open."""

    connection: asyncpg.Connection
    snapshot: str


async def back_up(settings: Settings, say: Say = lambda _line: None) -> Manifest:
    """Make a backup, make sure that it can be read, and let go of old ones.

    Raises:
        BackupError: It cannot be made; what there is of it does not count.
        DatabaseAwayError: The database cannot be reached.
        SchemaError: It has no tables yet.

    """
    shelf, name, began_at = Shelf(settings), new_name(), now()
    async with _moment(settings) as moment:
        postgres = moment.connection.get_server_version().major
        head = await _head(moment.connection)
        programs = await Programs.found(settings, postgres)
        say(f"Backing up as {name}.")
        dump, tables = await _database(shelf, name, programs, moment)
    say(f"  the database: {_counted(tables)} rows, {in_words(dump.size)}")
    files = await _copies(shelf, name, Files(settings))
    say(f"  files: {len(files)}, {in_words(sum(one.size for one in files))}")
    await programs.read_through(shelf.read(name, dump))
    for one in files:
        await shelf.check(name, one)
    say("  read back: as written")
    manifest = Manifest(
        name=name,
        began_at=began_at,
        ended_at=now(),
        version=version("pricebook"),
        head=head,
        postgres=postgres,
        secret_keys=fingerprints(settings),
        tables=tables,
        parts=[dump, *files],
    )
    await shelf.finish(manifest)
    say(f"Whole after {(manifest.ended_at - began_at).total_seconds():.1f} s.")
    for gone in await shelf.clear():
        say(f"Deleted {gone}.")
    return manifest


@asynccontextmanager
async def _moment(settings: Settings) -> AsyncIterator[_Moment]:
    connection = await connect(settings)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            yield _Moment(connection, await connection.fetchval("SELECT pg_export_snapshot()"))
    finally:
        await connection.close()


async def _head(connection: asyncpg.Connection) -> str:
    """Return the revision of the schema, which may be another than this code needs."""
    try:
        head: str = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError as error:
        message = "the database has no tables yet: there is nothing to back up"
        raise SchemaError(message) from error
    else:
        return head


async def _database(
    shelf: Shelf, name: str, programs: Programs, moment: _Moment
) -> tuple[Part, dict[str, TableSum]]:
    """Dump and sum up side by side."""
    summing = asyncio.create_task(row_sums(moment.connection))
    try:
        async with aclosing(programs.dump(moment.snapshot)) as dumped:
            dump = await shelf.write(name, DUMP, dumped)
        return dump, await summing
    finally:
        summing.cancel()
        await asyncio.wait([summing])


async def _copies(shelf: Shelf, name: str, files: Files) -> list[Part]:
    """Copy every file: those that the dump tells of are older than it, or have expired since."""
    copies = []
    async for stored in files.list_all():
        try:
            copies.append(
                await shelf.write(name, FILES + stored.name, files.pieces(stored, 0, stored.size))
            )
        except FileMissingError:
            continue
    return copies


def _counted(tables: dict[str, TableSum]) -> str:
    return f"{sum(table.rows for table in tables.values()):,}"


def in_words(size: int) -> str:
    """Write a number of bytes for people."""
    unit, name = next(((unit, name) for unit, name in _UNITS.items() if size >= unit), (1, "bytes"))
    return f"{size / unit:,.1f} {name}" if unit > 1 else f"{size} bytes"
