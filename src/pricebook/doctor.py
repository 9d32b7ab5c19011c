"""`pricebook doctor`: looks at everything Pricebook needs, and says in a line what to do."""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import Select, case, func, select

from pricebook.backups.age import look_at_backups
from pricebook.core.files import Files, folder_of
from pricebook.core.mail import Mailer
from pricebook.core.mendable import MendableError
from pricebook.core.queue import JOBS_QUEUE, sees_worker
from pricebook.core.reading import Compiled, Row
from pricebook.core.replica_check import look_at_replicas
from pricebook.core.schema_head import DatabaseAwayError, check_schema, connect
from pricebook.core.sealing import SealBrokenError, Sealer
from pricebook.core.settings import Settings
from pricebook.core.valkey import connected
from pricebook.system import queries
from pricebook.system.service import sum_up, sum_up_jobs, worker_in_words
from pricebook.webhooks.models import WebhookEndpoint

_NEEDED_VERSION = 180_000
_NEEDED_FREE_BYTES = 1024**3
_PATIENCE_SECONDS = 3.0
_LOOK_AGAIN_SECONDS = 0.2
_WITHOUT_DATABASE = "unknown while the database cannot be asked: mend that first"
_WITHOUT_VALKEY = "unknown while Valkey cannot be asked: mend that first"
_A_DAY = timedelta(days=1)
_STILL_SIGNS = WebhookEndpoint.old_secret_until > func.now()
_SECRETS = select(
    WebhookEndpoint.sealed_secret, case((_STILL_SIGNS, WebhookEndpoint.old_sealed_secret))
)


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    subject: str
    is_fine: bool
    text: str


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Run every check, and yield each finding as it comes."""
    for subject, check in CHECKS.items():
        try:
            yield Finding(subject, is_fine=True, text=await check(settings))
        except MendableError as error:
            yield Finding(subject, is_fine=False, text=str(error))


async def _check_settings(settings: Settings) -> str:
    if settings.data_dir.exists() and not settings.data_dir.is_dir():
        message = f"{settings.data_dir} is not a folder: correct PRICEBOOK_DATA_DIR"
        raise MendableError(message)
    return "valid"


async def _check_database(settings: Settings) -> str:
    connection = await connect(settings)
    try:
        version = connection.get_server_version()
        number: int = await connection.fetchval("SELECT current_setting('server_version_num')::int")
        has_trigrams: bool = await connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm')"
        )
    finally:
        await connection.close()
    if number < _NEEDED_VERSION:
        message = f"PostgreSQL {version.major}: Pricebook needs 18 or later, upgrade the server"
        raise MendableError(message)
    if not has_trigrams:
        message = "extension pg_trgm is missing: install PostgreSQL's contrib package"
        raise MendableError(message)
    return f"PostgreSQL {version.major}.{version.minor} answers"


async def _check_replica(settings: Settings) -> str:
    try:
        return await look_at_replicas(settings)
    except DatabaseAwayError as error:
        raise MendableError(_WITHOUT_DATABASE) from error


async def _check_schema(settings: Settings) -> str:
    try:
        await check_schema(settings)
    except DatabaseAwayError as error:
        raise MendableError(_WITHOUT_DATABASE) from error
    return "the one that this version needs"


async def _check_valkey(settings: Settings) -> str:
    if settings.redis_url is None:
        message = "none to talk to: set PRICEBOOK_REDIS_URL, or start `pricebook up` first"
        raise MendableError(message)
    try:
        async with _valkey(settings.redis_url) as valkey:
            info = await valkey.info()
    except (OSError, RedisError) as error:
        message = f"{error}: start Valkey, or correct PRICEBOOK_REDIS_URL"
        raise MendableError(message) from error
    if info.get("cluster_enabled"):
        message = "a cluster, where arq's transactions fail: use one server, or Sentinel"
        raise MendableError(message)
    name = info.get("server_name", "redis").capitalize()
    return f"{name} {info.get('valkey_version', info.get('redis_version'))} answers"


def _valkey(url: SecretStr) -> AbstractAsyncContextManager[Redis]:
    return connected(
        url, socket_timeout=_PATIENCE_SECONDS, socket_connect_timeout=_PATIENCE_SECONDS
    )


async def _check_worker(settings: Settings) -> str:
    if settings.redis_url is None:
        raise MendableError(_WITHOUT_VALKEY)
    try:
        async with _valkey(settings.redis_url) as valkey:
            has_worker, takes_jobs = await _seen(valkey)
    except (OSError, RedisError) as error:
        raise MendableError(_WITHOUT_VALKEY) from error
    words = worker_in_words(has_worker=has_worker, takes_jobs=takes_jobs)
    if not has_worker or not takes_jobs:
        raise MendableError(words)
    return words


async def _seen(valkey: Redis) -> tuple[bool, bool]:
    """Look for a worker, and for one that takes jobs: one that has just started may say so soon."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        seen = (await sees_worker(valkey), await sees_worker(valkey, JOBS_QUEUE))
        if all(seen) or time.monotonic() > deadline:
            return seen
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)


async def _check_deliveries(settings: Settings) -> str:
    rows = await _rows(settings, queries.waiting())
    waits = {row["kind"]: row["seconds"] for row in rows}
    if settings.mail.url is None:
        # It cannot go anywhere, and its own line says so.
        waits.pop(queries.MAILS, None)
    is_late, text = sum_up(waits)
    dead = await _rows(settings, queries.died_within(_A_DAY))
    if dead:
        counts = ", ".join(f"{row['kind'].replace('_', ' ')} {row['count']:,}" for row in dead)
        text += f"; given up in the last day: {counts}"
    if is_late:
        raise MendableError(text)
    return text


async def _check_jobs(settings: Settings) -> str:
    (found,) = await _rows(settings, queries.waiting_jobs())
    (failed,) = await _rows(settings, queries.jobs_failed_within(_A_DAY))
    is_late, text = sum_up_jobs(found)
    if failed["count"]:
        text += f"; failed in the last day: {failed['count']:,}, see `pricebook jobs list`"
    if is_late:
        raise MendableError(text)
    return text


async def _check_mail(settings: Settings) -> str:
    if settings.mail.url is None:
        message = (
            "not sent, not even to reset a password: set PRICEBOOK_MAIL__URL "
            "to smtp://… or, to look at it yourself, file:///a/folder"
        )
        raise MendableError(message)
    url = urlsplit(settings.mail.url.get_secret_value())
    if url.scheme == "file":
        return _check_mail_folder(Path(unquote(url.path)))
    if complaint := await Mailer(settings.mail).complaint():
        message = f"{complaint}: start the mail server, or correct PRICEBOOK_MAIL__URL"
        raise MendableError(message)
    return f"{url.hostname} answers"


def _check_mail_folder(folder: Path) -> str:
    _require_writable(folder, "PRICEBOOK_MAIL__URL")
    return f"written to {folder}, and not sent"


async def _check_files(settings: Settings) -> str:
    folder = folder_of(settings)
    if folder is not None and not folder.exists():
        _require_writable(folder, "PRICEBOOK_FILES__URL")
        return f"to be kept in {folder}"
    place = folder or settings.files.url
    if complaint := await Files(settings).complaint():
        message = f"{place}: {complaint}: mend that, or correct PRICEBOOK_FILES__URL and __OPTIONS"
        raise MendableError(message)
    return f"written to and read from {place}"


def _require_writable(folder: Path, setting: str) -> None:
    existing = _existing(folder)
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        message = f"{existing} is no folder to write to: correct {setting}"
        raise MendableError(message)


async def _check_secret_key(settings: Settings) -> str:
    sealer = Sealer(settings)
    if not sealer.is_ready:
        message = (
            "not set, so that no webhook can be made or told anything: set PRICEBOOK_SECRET_KEY, "
            "to what `openssl rand -base64 32` prints"
        )
        raise MendableError(message)
    rows = await _rows(settings, _SECRETS)
    secrets = [secret for row in rows for secret in row.values() if secret is not None]
    unopened = [sealed for sealed in secrets if not _opens(sealer, sealed)]
    if unopened:
        message = (
            f"does not open {len(unopened)} of {len(secrets)} webhook secrets: add the key that "
            "they were made under to PRICEBOOK_SECRET_KEY, or rotate them"
        )
        raise MendableError(message)
    return f"opens all of {len(secrets)} webhook secrets" if secrets else "set"


def _opens(sealer: Sealer, sealed: bytes) -> bool:
    try:
        sealer.open(sealed)
    except SealBrokenError:
        return False
    return True


async def _rows(settings: Settings, statement: Select[*tuple[Any, ...]]) -> list[Row]:
    """Ask the database, if it is there and of the form that is known here."""
    compiled = Compiled(statement)
    try:
        await check_schema(settings)
        connection = await connect(settings)
    except MendableError as error:
        raise MendableError(_WITHOUT_DATABASE) from error
    try:
        return [dict(row) for row in await connection.fetch(compiled.sql, *compiled.arguments({}))]
    finally:
        await connection.close()


async def _check_disk(settings: Settings) -> str:
    existing = _existing(settings.data_dir.absolute())
    free = shutil.disk_usage(existing).free
    shown = f"{free / 1024**3:.1f} GiB free in {existing}"
    if free < _NEEDED_FREE_BYTES:
        message = f"{shown}: make room, or set PRICEBOOK_DATA_DIR to a larger disk"
        raise MendableError(message)
    return shown


def _existing(path: Path) -> Path:
    """Return the path, or as much of it as there is."""
    return next(one for one in (path, *path.parents) if one.exists())


CHECKS: dict[str, Callable[[Settings], Awaitable[str]]] = {
    "settings": _check_settings,
    "database": _check_database,
    "replica": _check_replica,
    "schema": _check_schema,
    "valkey": _check_valkey,
    "worker": _check_worker,
    "deliveries": _check_deliveries,
    "jobs": _check_jobs,
    "files": _check_files,
    "mail": _check_mail,
    "secret key": _check_secret_key,
    "disk": _check_disk,
    "backups": look_at_backups,
}
