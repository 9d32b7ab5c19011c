"""Whether this process can answer: it asks each part it leans on, and remembers for a moment.

Beside these it looks at what goes on behind: without a worker, requests are answered and nobody is
told of anything.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import Text, column, select, table

from pricebook.core.database import Database, is_outage
from pricebook.core.queue import JOBS_QUEUE, sees_worker
from pricebook.core.reading import Compiled
from pricebook.core.replica import Replica
from pricebook.core.schema_head import needed_head, revisions
from pricebook.core.settings import MailSettings
from pricebook.system import queries
from pricebook.system.schemas import Health, Part, Status

# Probes and passers-by together cost the database one question a second.
_KEEP_SECONDS = 1.0
_PATIENCE_SECONDS = 2.0
# At rest all is on its way within one second.
_LATE_SECONDS = 60
_UNITS = ((86_400, "days"), (3_600, "h"), (60, "min"))

_HEAD = Compiled(select(column("version_num", Text)).select_from(table("alembic_version")))


class HealthMonitor:
    """Answers for one process, however many ask at once."""

    def __init__(
        self,
        database: Database,
        valkey: Redis,
        mail: MailSettings,
        replica: Replica | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch over what the process leans on; nothing is asked before the first `check`."""
        self._database = database
        self._valkey = valkey
        self._replica = replica
        self._has_mail_server = mail.url is not None
        # By now every slice has brought its deliveries.
        self._waiting = Compiled(queries.waiting())
        self._jobs = Compiled(queries.waiting_jobs())
        self._clock = clock
        self._asking = asyncio.Lock()
        self._last: Health | None = None
        self._asked_at = 0.0
        self._is_withdrawn = False

    def withdraw(self) -> None:
        """Call the process not ready from now on, for it is to stop."""
        self._is_withdrawn = True

    async def check(self) -> Health:
        """Return how things stood at most a second ago."""
        if self._is_withdrawn:
            return Health(status=Status.FAILING, parts=[_LEAVING])
        async with self._asking:
            if self._last is None or self._clock() - self._asked_at >= _KEEP_SECONDS:
                self._last = await self._ask()
                self._asked_at = self._clock()
            return self._last

    async def _ask(self) -> Health:
        parts = [*await self._ask_database(), *self._replicas(), *await self._ask_valkey()]
        if all(part.status is Status.OK for part in parts if part.is_critical):
            parts += await self._ask_what_waits()
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

    def _replicas(self) -> list[Part]:
        if self._replica is None:
            return []
        return [_aside("replica", self._replica.in_words(), is_ok=not self._replica.is_late)]

    async def _ask_valkey(self) -> list[Part]:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                has_worker = await sees_worker(self._valkey)
                takes_jobs = await sees_worker(self._valkey, JOBS_QUEUE)
        except (RedisError, OSError):
            detail = "does not answer; rate limits are counted by process, work starts later"
            return [_aside("valkey", detail, is_ok=False)]
        worker = worker_in_words(has_worker=has_worker, takes_jobs=takes_jobs)
        is_ok = has_worker and takes_jobs
        return [_aside("valkey", "answers"), _aside("worker", worker, is_ok=is_ok)]

    async def _ask_what_waits(self) -> list[Part]:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                rows = await self._database.reads.rows(self._waiting)
                jobs = await self._database.reads.row(self._jobs)
        except Exception as error:
            if not is_outage(error):
                raise
            return [_aside("deliveries", "could not be looked at in time", is_ok=False)]
        waits = {row["kind"]: row["seconds"] for row in rows}
        mail_waits = None if self._has_mail_server else waits.pop(queries.MAILS, None)
        parts = [_deliveries(waits), _jobs(jobs or {})]
        if mail_waits is None:
            return parts
        detail = f"has waited for {in_words(mail_waits)}, since PRICEBOOK_MAIL__URL is not set"
        return [*parts, _aside("mail", detail, is_ok=False)]


def _deliveries(waits: Mapping[str, float]) -> Part:
    is_late, detail = sum_up(waits)
    return _aside("deliveries", detail, is_ok=not is_late)


def _jobs(found: Mapping[str, Any]) -> Part:
    is_late, detail = sum_up_jobs(found)
    return _aside("jobs", detail, is_ok=not is_late)


def worker_in_words(*, has_worker: bool, takes_jobs: bool) -> str:
    """Say whether workers work, and what to do if they do not."""
    if not has_worker:
        return "none has been seen; start `pricebook worker`"
    advice = "; start one with PRICEBOOK_JOBS__CONCURRENCY above 0"
    return "works" if takes_jobs else f"works, but none takes jobs{advice}"


def sum_up_jobs(found: Mapping[str, Any]) -> tuple[bool, str]:
    """Say of the job that is next, after `waiting_jobs`, whether nobody takes it."""
    seconds = found.get("seconds")
    if seconds is None:
        return False, "none waits"
    if found["is_busy"]:
        return False, f"the next has waited for {in_words(seconds)}, while others are done"
    is_late = seconds >= _LATE_SECONDS
    advice = ", and no worker takes it: see that one runs" if is_late else ""
    return is_late, f"the next has waited for {in_words(seconds)}{advice}"


def sum_up(waits: Mapping[str, float]) -> tuple[bool, str]:
    """Say of what waits, in seconds by kind, whether any is late, and how things stand."""
    if not waits:
        return False, "none waits"
    kind, seconds = max(waits.items(), key=lambda one: one[1])
    is_late = seconds >= _LATE_SECONDS
    detail = f"the longest that any waits is {in_words(seconds)} ({kind.replace('_', ' ')})"
    advice = ": see that a worker runs, and that receivers answer" if is_late else ""
    return is_late, detail + advice


def in_words(seconds: float) -> str:
    """Return a time as a person would say it, roughly."""
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


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


def _aside(name: str, detail: str, *, is_ok: bool = True) -> Part:
    """Return a part without which requests are answered all the same."""
    return _part(name, detail, is_ok=is_ok, is_critical=False)


def _part(name: str, detail: str, *, is_ok: bool = True, is_critical: bool = True) -> Part:
    status = Status.OK if is_ok else Status.FAILING
    return Part(name=name, status=status, is_critical=is_critical, detail=detail)


_LEAVING = _part("process", "is about to stop: send it no more requests", is_ok=False)
