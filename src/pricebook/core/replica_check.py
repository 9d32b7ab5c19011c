"""One look at each replica that the settings name, for people: can it be read, how late is it?"""

import asyncpg

from pricebook.core.database_urls import host_in
from pricebook.core.mendable import MendableError
from pricebook.core.primary import open_connection
from pricebook.core.reading import Connection
from pricebook.core.replica_urls import replica_urls
from pricebook.core.schema_head import connect
from pricebook.core.settings import Settings
from pricebook.core.wal import STANDING, NotReadableError, Standing, check_replica

_PATIENCE_SECONDS = 3.0
_SETTING = "PRICEBOOK_DATABASE_REPLICA_URL"


async def look_at_replicas(settings: Settings) -> str:
    """Say how they are doing.

    Raises:
        DatabaseAwayError: The primary cannot be asked.
        MendableError: One of them cannot be read.

    """
    if settings.database_replica_url is None:
        return "none: everything is read from the database itself"
    primary = await connect(settings)
    try:
        behind = [await _bytes_behind(settings, url, primary) for url in replica_urls(settings)]
    finally:
        await primary.close()
    late = max(behind)
    return f"{len(behind)} can be read, " + (f"{late:,} bytes behind" if late else "none is behind")


async def _bytes_behind(settings: Settings, url: str, primary: Connection) -> int:
    host = host_in(url)
    try:
        theirs = await _standing(settings, url)
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        message = f"{host}: {error or 'no answer'}: start it, or correct {_SETTING}"
        raise MendableError(message) from error
    ours = Standing.of(await primary.fetchrow(STANDING.sql))
    try:
        check_replica(theirs, ours)
    except NotReadableError as error:
        message = f"{host} {error}: make it anew, or correct {_SETTING}"
        raise MendableError(message) from error
    return ours.position - theirs.position


async def _standing(settings: Settings, url: str) -> Standing:
    replica = await open_connection(
        url, is_pooled=settings.database.is_pooled, timeout=_PATIENCE_SECONDS
    )
    try:
        return Standing.of(await replica.fetchrow(STANDING.sql))
    finally:
        await replica.close()
