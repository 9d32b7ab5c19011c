"""Where connections to the database come from: the one of its hosts that is the primary.

A URL may name several hosts. Each connection then goes to the one that is not in recovery; asked
first is where the primary was last, and the others soon after, so that a host that says nothing
holds nobody up. Of two that both call themselves primary, as after a split, the one with the later
timeline is. Once the primary is known to be elsewhere, all connections to where it was are ended,
lent out or not: nothing is read from there any more. `watch` finds that out also while nobody
connects, and while those who are connected wait for a host that is silent.

With one host nothing is asked, and nobody watches: whatever stands behind its name is taken.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from typing import Any, NamedTuple
from weakref import WeakSet

import asyncpg
import structlog

from pricebook.core.confirmed import Connection
from pricebook.core.database_urls import each_host, host_in
from pricebook.core.pooled import PooledConnection, kept_settings
from pricebook.core.settings import Settings

# How long a host is asked alone before the next one is, too.
_HEAD_START_SECONDS = 0.25
_LOOK_EVERY_SECONDS = 1.0
_LOOK_SECONDS = 1.0
_FIND_SECONDS = 3.0

WRITTEN_TIMELINE = "('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int"
"""The timeline that a primary writes, in SQL; a standby cannot be asked for it so."""

_ASK = f"""
SELECT (pg_control_system()).system_identifier AS system,
       CASE WHEN NOT pg_is_in_recovery() THEN {WRITTEN_TIMELINE} END AS timeline
"""

log = structlog.get_logger(__name__)


class NoPrimaryError(ConnectionError):
    """No host that could be reached is the primary."""


class _History(NamedTuple):
    """Whose primary it is, and since which turn; later ones are greater, in one system."""

    system: int
    timeline: int


class Primary:
    """The primary of the hosts that one URL names, and every connection to it."""

    def __init__(self, url: str, *, is_pooled: bool = False) -> None:
        """Know the hosts of a normal URL; none is asked before the first connection.

        If it `is_pooled`, poolers are behind it that lend connections for one transaction each.
        """
        self.is_pooled = is_pooled
        self._urls = each_host(url)
        self._at = 0
        self._history: _History | None = None
        self._open: list[WeakSet[Connection]] = [WeakSet() for _ in self._urls]
        self._doubted = asyncio.Event()
        self.when_doubted: WeakSet[Any] = WeakSet()
        """Pools whose `close_idle` is called when their connections may lead astray."""

    @property
    def has_several_hosts(self) -> bool:
        """Whether there is anything to choose from."""
        return len(self._urls) > 1

    @property
    def host(self) -> str:
        """Where it was last."""
        return host_in(self._urls[self._at])

    async def connect(self, *, timeout: float, **options: Any) -> Connection:  # noqa: ANN401, ASYNC109 -- as asyncpg.connect
        """Connect as `asyncpg.connect` does, to whichever host is the primary.

        Raises:
            NoPrimaryError: None of them is.
            TimeoutError: None was found in `timeout` seconds.

        """
        options["is_pooled"] = self.is_pooled
        if not self.has_several_hosts:
            return await open_connection(self._urls[0], timeout=timeout, **options)
        async with asyncio.timeout(timeout):
            return await self._race(options | {"timeout": timeout})

    def doubt(self) -> None:
        """Have every idle connection replaced, since one has led to what does not write."""
        for pool in list(self.when_doubted):
            pool.close_idle()
        self._doubted.set()

    async def watch(self) -> None:
        """Notice when the primary moves, for as long as the process runs; cancel it to stop."""
        watching: Connection | None = None
        try:
            while True:
                watching = await self._look(watching)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_EVERY_SECONDS):
                        await self._doubted.wait()
                self._doubted.clear()
        finally:
            if watching is not None:
                watching.terminate()

    async def _look(self, watching: Connection | None) -> Connection | None:
        if watching is not None:
            with suppress(*_FAILURES):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._examine(watching)
                return watching
            watching.terminate()
        with suppress(*_FAILURES):
            return await self.connect(
                timeout=_FIND_SECONDS, server_settings={"application_name": "pricebook-watch"}
            )
        return None

    async def _race(self, options: Mapping[str, Any]) -> Connection:
        """Ask the hosts, each with a head start before the next; the first primary wins."""
        waiting = [self._at, *(one for one in range(len(self._urls)) if one != self._at)]
        asked: dict[asyncio.Task[Connection], int] = {}
        errors: list[BaseException] = []
        try:
            while waiting or asked:
                if waiting:
                    host = waiting.pop(0)
                    asked[asyncio.create_task(self._connect_to(host, options))] = host
                done, _ = await asyncio.wait(
                    asked,
                    timeout=_HEAD_START_SECONDS if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    host = asked.pop(task)
                    if (error := task.exception()) is None:
                        return self._settle(host, task.result())
                    errors.append(error)
        finally:
            for task in asked:
                task.cancel()
                task.add_done_callback(_discard)
        raise _most_telling(errors)

    async def _connect_to(self, host: int, options: Mapping[str, Any]) -> Connection:
        connection = await open_connection(self._urls[host], **options)
        try:
            history = await self._examine(connection)
        except BaseException:
            connection.terminate()
            raise
        self._history = history
        return connection

    async def _examine(self, connection: Connection) -> _History:
        """Return what its server is the primary of.

        Raises:
            NoPrimaryError: It is a standby, or was the primary until another took over.

        """
        row = await connection.fetchrow(_ASK)
        if row["timeline"] is None:
            message = "the server is a standby"
            raise NoPrimaryError(message)
        history, known = _History(row["system"], row["timeline"]), self._history
        if known and known.system == history.system and known.timeline > history.timeline:
            message = "the server was the primary until another took over"
            raise NoPrimaryError(message)
        return history

    def _settle(self, host: int, connection: Connection) -> Connection:
        """Take `host` for the primary: whatever leads elsewhere is ended."""
        if host != self._at:
            log.warning("database has moved", before=self.host, now=host_in(self._urls[host]))
            self._at = host
        self._open[host].add(connection)
        for others in self._open[:host] + self._open[host + 1 :]:
            for other in list(others):
                other.terminate()
            others.clear()
        return connection


# Whatever is wrong with one host, another may be well; and if all are, it passes.
_FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


async def open_connection(url: str, *, is_pooled: bool = False, **options: Any) -> Connection:  # noqa: ANN401 -- as asyncpg.connect
    """Connect to the one host of a URL, whatever it is."""
    if is_pooled:
        return await _open_pooled(url, **options)
    connection: Connection = await asyncpg.connect(url, connection_class=Connection, **options)
    return connection


async def _open_pooled(
    url: str,
    *,
    server_settings: Mapping[str, str] | None = None,
    **options: Any,  # noqa: ANN401 -- likewise
) -> Connection:
    wanted = server_settings or {}
    connection: PooledConnection = await asyncpg.connect(
        url,
        connection_class=PooledConnection,
        statement_cache_size=0,
        server_settings=kept_settings(wanted),
        **options,
    )
    connection.settle(wanted)
    return connection


def _discard(task: asyncio.Task[Connection]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().terminate()


def _most_telling(errors: list[BaseException]) -> BaseException:
    """Return the one that says what to do: a wrong password rather than a host that is away."""
    return next((one for one in errors if isinstance(one, asyncpg.PostgresError)), errors[0])


@lru_cache(maxsize=32)
def primary_at(url: str, *, is_pooled: bool = False) -> Primary:
    """Return what the process knows of the hosts of a normal URL: all its pools share it."""
    return Primary(url, is_pooled=is_pooled)


def primary_of(settings: Settings) -> Primary:
    """Return where connections to the database of the settings come from."""
    if settings.database_url is None:
        message = "PRICEBOOK_DATABASE_URL is not set"
        raise RuntimeError(message)
    url = settings.database_url.get_secret_value()
    return primary_at(url, is_pooled=settings.database.is_pooled)


@asynccontextmanager
async def watching(settings: Settings) -> AsyncIterator[None]:
    """Have the primary watched meanwhile, if there are hosts to choose from."""
    primary = primary_of(settings)
    if not primary.has_several_hosts:
        yield
        return
    task = asyncio.create_task(primary.watch())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
