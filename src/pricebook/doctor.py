"""`pricebook doctor`: looks at everything Pricebook needs, and says in a line what to do."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from pricebook.core.mendable import MendableError
from pricebook.core.schema_head import DatabaseAwayError, check_schema, connect
from pricebook.core.settings import Settings

_NEEDED_VERSION = 180_000
_NEEDED_FREE_BYTES = 1024**3
_PATIENCE_SECONDS = 3.0


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


async def _check_schema(settings: Settings) -> str:
    try:
        await check_schema(settings)
    except DatabaseAwayError as error:
        message = "unknown while the database cannot be asked: mend that first"
        raise MendableError(message) from error
    return "the one that this version needs"


async def _check_valkey(settings: Settings) -> str:
    if settings.redis_url is None:
        message = "none to talk to: set PRICEBOOK_REDIS_URL, or start `pricebook up` first"
        raise MendableError(message)
    url = settings.redis_url.get_secret_value()
    try:
        async with Redis.from_url(
            url, socket_timeout=_PATIENCE_SECONDS, socket_connect_timeout=_PATIENCE_SECONDS
        ) as valkey:
            info = await valkey.info("server")
    except (OSError, RedisError) as error:
        message = f"{error}: start Valkey, or correct PRICEBOOK_REDIS_URL"
        raise MendableError(message) from error
    name = info.get("server_name", "redis").capitalize()
    return f"{name} {info.get('valkey_version', info.get('redis_version'))} answers"


async def _check_disk(settings: Settings) -> str:
    folder = settings.data_dir.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    shown = f"{free / 1024**3:.1f} GiB free in {existing}"
    if free < _NEEDED_FREE_BYTES:
        message = f"{shown}: make room, or set PRICEBOOK_DATA_DIR to a larger disk"
        raise MendableError(message)
    return shown


CHECKS: dict[str, Callable[[Settings], Awaitable[str]]] = {
    "settings": _check_settings,
    "database": _check_database,
    "schema": _check_schema,
    "valkey": _check_valkey,
    "disk": _check_disk,
}
