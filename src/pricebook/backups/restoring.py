"""Restoring a backup: nothing is touched before all of it has been read and found as written.

The schema's revision is written last of all. Until then no process of Pricebook takes the database
for one of its own, so that a restore that was broken off is never mistaken for a whole one.
"""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from pricebook.backups.manifest import FILES, Manifest, fingerprints
from pricebook.backups.programs import Programs
from pricebook.backups.settling import settle
from pricebook.backups.shelf import BackupError, Shelf
from pricebook.backups.sums import row_sums
from pricebook.core.files import Files
from pricebook.core.schema_head import connect, needed_head, revisions
from pricebook.core.settings import Settings

Say = Callable[[str], object]

_TABLES = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
_OTHERS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
"""
_REPLACE = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"
_VERSIONS = "TABLE DATA public alembic_version"
_SPARE = 1.1


@dataclass(frozen=True)
class Consent:
    """What may be done to the database that is restored into."""

    replaces: bool = False
    """Whether the tables that are there may be dropped."""
    keeps_sessions: bool = False
    """Whether log-ins of the time of the backup stay good."""


async def check(settings: Settings, name: str | None, say: Say = lambda _line: None) -> Manifest:
    """Read all of a backup, and touch nothing.

    Raises:
        BackupError: It is spoilt, or there is none.

    """
    shelf = Shelf(settings)
    manifest = await shelf.find(name)
    async with _fetched(shelf, manifest) as dump:
        programs = await Programs.found(settings, manifest.postgres)
        await programs.contents(dump)
    say(f"{manifest.name} is as it was written.")
    return manifest


async def restore(
    settings: Settings,
    name: str | None = None,
    consent: Consent = Consent(),
    say: Say = lambda _line: None,
) -> Manifest:
    """Restore a backup, by default the newest, into the database and the files of the settings.

    Raises:
        BackupError: It is spoilt, the database is not empty or in use, or it came out otherwise.
        DatabaseAwayError: The database cannot be reached.

    """
    shelf = Shelf(settings)
    manifest = await shelf.find(name)
    _require_known(manifest)
    connection = await connect(settings)
    try:
        await _require_free(connection, consent)
        least = max(manifest.postgres, connection.get_server_version().major)
        programs = await Programs.found(settings, least)
        say(f"Restoring {manifest.name}.")
        async with _fetched(shelf, manifest) as dump:
            say("  all of it is as it was written")
            if consent.replaces:
                await connection.execute(_REPLACE)
            await _fill(connection, programs, dump, manifest, consent)
            say(f"  {len(manifest.tables)} tables: the same rows")
        await _copy_files(shelf, manifest, Files(settings))
        say(f"  {len(manifest.files)} files")
        await connection.execute("INSERT INTO alembic_version VALUES ($1)", manifest.head)
    finally:
        await connection.close()
    for line in _what_next(settings, manifest, consent):
        say(line)
    return manifest


def _require_known(manifest: Manifest) -> None:
    if manifest.head not in revisions():
        message = (
            f"{manifest.name} has the schema {manifest.head}, which this Pricebook does not know: "
            f"restore it with version {manifest.version} or later"
        )
        raise BackupError(message)


async def _require_free(connection: asyncpg.Connection, consent: Consent) -> None:
    others: int = await connection.fetchval(_OTHERS)
    if others:
        message = f"the database is in use by {others} other sessions: stop API and worker first"
        raise BackupError(message)
    tables: int = await connection.fetchval(_TABLES)
    if tables and not consent.replaces:
        message = (
            f"the database has {tables} tables already: say --replace to drop them and all that "
            "is in them, or name an empty one in PRICEBOOK_DATABASE_URL"
        )
        raise BackupError(message)


@asynccontextmanager
async def _fetched(shelf: Shelf, manifest: Manifest) -> AsyncIterator[Path]:
    """Read every part to its end, and keep the dump in a file for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="pricebook-restore-") as folder:
        if shutil.disk_usage(folder).free < manifest.dump.size * _SPARE:
            message = f"no room for the dump in {folder}: set TMPDIR to a larger disk"
            raise BackupError(message)
        dump = Path(folder) / "dump"
        with dump.open("wb") as file:
            async for block in shelf.read(manifest.name, manifest.dump):
                file.write(block)
        for part in manifest.files:
            await shelf.check(manifest.name, part)
        yield dump


async def _fill(
    connection: asyncpg.Connection,
    programs: Programs,
    dump: Path,
    manifest: Manifest,
    consent: Consent,
) -> None:
    lines = await programs.contents(dump)
    wanted = dump.with_name("contents")
    wanted.write_text("\n".join(line for line in lines if _VERSIONS not in line))
    jobs = os.cpu_count() or 1
    for section in ("pre-data", "data"):
        await programs.restore(dump, wanted, section, jobs)
    await _require_same_rows(connection, manifest)
    await settle(connection, keeps_sessions=consent.keeps_sessions)
    await programs.restore(dump, wanted, "post-data", jobs)
    await connection.execute("ANALYZE")


async def _require_same_rows(connection: asyncpg.Connection, manifest: Manifest) -> None:
    found = await row_sums(connection)
    names = found.keys() | manifest.tables.keys()
    differ = sorted(name for name in names if found.get(name) != manifest.tables.get(name))
    if differ:
        message = f"other rows than were backed up came out in {', '.join(differ)}"
        raise BackupError(message)


async def _copy_files(shelf: Shelf, manifest: Manifest, files: Files) -> None:
    for part in manifest.files:
        await files.write(part.name.removeprefix(FILES), shelf.read(manifest.name, part))


def _what_next(settings: Settings, manifest: Manifest, consent: Consent) -> list[str]:
    lines = [f"The list is as it was at {manifest.began_at:%Y-%m-%d %H:%M:%S} UTC. Next:"]
    if manifest.head != needed_head():
        lines.append(f"  `pricebook migrate`: the schema is at {manifest.head}")
    if not set(manifest.secret_keys) <= set(fingerprints(settings)):
        lines.append(
            "  PRICEBOOK_SECRET_KEY: it lacks a key of that time, which webhook secrets need"
        )
    lines.append("  API keys: those that were revoked since are good again; revoke them anew")
    if not consent.keeps_sessions:
        lines.append("  everyone has to log in again")
    lines.append("  the worker sends what had not been sent by then: start it if that is wanted")
    lines.append("  `pricebook doctor`, then start API and worker")
    return lines
