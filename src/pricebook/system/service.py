"""Whether this process can answer: it asks each part it leans on, and remembers for a moment."""

import asyncio
import time
from collections.abc import Callable

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import Text, column, select, table

from pricebook.core.database import Database, is_outage
from pricebook.core.reading import Compiled
from pricebook.core.schema_head import needed_head, revisions
from pricebook.system.schemas import Health, Part, Status

# Probes and passers-by together cost the database one question a second.
_KEEP_SECONDS = 1.0
_PATIENCE_SECONDS = 2.0

_HEAD = Compiled(select(column("version_num", Text)).select_from(table("alembic_version")))


class HealthMonitor:
    """Answers for one process, however many ask at once."""

    def __init__(
        self, database: Database, valkey: Redis, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Watch over what the process leans on; nothing is asked before the first `check`."""
        self._database = database
        self._valkey = valkey
        self._clock = clock
        self._asking = asyncio.Lock()
        self._last: Health | None = None
        self._asked_at = 0.0

    async def check(self) -> Health:
        """Return how things stood at most a second ago."""
        async with self._asking:
            if self._last is None or self._clock() - self._asked_at >= _KEEP_SECONDS:
                self._last = await self._ask()
                self._asked_at = self._clock()
            return self._last

    async def _ask(self) -> Health:
        parts = [*await self._ask_database(), await self._ask_valkey()]
        failing = any(part.is_critical and part.status is Status.FAILING for part in parts)
        return Health(status=Status.FAILING if failing else Status.OK, parts=parts)

    async def _ask_database(self) -> list[Part]:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                head = await self._database.reads.value(_HEAD)
        except asyncpg.UndefinedTableError:
            head = None
        except Exception as error:
            if not is_outage(error):
                raise
            return [_part("database", "does not answer", is_ok=False)]
        return [_part("database", "answers"), await _schema(head)]

    async def _ask_valkey(self) -> Part:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._valkey.ping()
        except (RedisError, OSError):
            detail = "does not answer; rate limits are counted by process, work starts later"
            return _part("valkey", detail, is_ok=False, is_critical=False)
        return _part("valkey", "answers", is_critical=False)


async def _schema(head: str | None) -> Part:
    """Say whether this code can work with the database's schema.

    A newer one is fine: while a new version is rolled out, it migrates first and the old code
    goes on beside it.
    """
    needed = await asyncio.to_thread(needed_head)
    if head == needed:
        return _part("schema", f"is at {head}")
    if head is None:
        return _part("schema", "has no tables yet: run `pricebook migrate`", is_ok=False)
    if head in await asyncio.to_thread(revisions):
        detail = f"is at {head}, not at {needed}: run `pricebook migrate`"
        return _part("schema", detail, is_ok=False)
    return _part("schema", f"is at {head}, newer than {needed}, which this process knows")


def _part(name: str, detail: str, *, is_ok: bool = True, is_critical: bool = True) -> Part:
    status = Status.OK if is_ok else Status.FAILING
    return Part(name=name, status=status, is_critical=is_critical, detail=detail)
