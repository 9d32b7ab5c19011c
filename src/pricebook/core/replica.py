"""A replica of the database: what is known of it, and the reads that it takes from the primary.

Who reads there. A replica lags, so only a reader who can tell no difference is sent to it:

- Whoever has no credentials, or credentials that cannot change items (`Principal.may_write`): an
  API key without a scope that writes, the session of a viewer. Neither can have written anything
  that is read there, in any process, so that none of it can be missing. A session ends when its
  person's role changes, and the scopes of a key never do: who may not write now has never done so.
- A download, whoever asks for it: the primary is asked how far its log reaches, and the snapshot is
  begun on a connection whose server has replayed as much (`core/replica_snapshots`). What had been
  answered before the download was asked for was committed before, so it is in it.

Everyone else reads from the primary: whoever may have written sees it, with nothing to remember,
to share between processes or to lose with one of them or with Valkey. To remember who has written
could send more there, but what one process knows, another has to ask for: that costs a round trip
for each read, as much as the read itself. `Cache-Control: no-cache` asks for the primary as well,
for those who have heard of a change by other ways.

Only the routes that name it (`core/session.lagging_pool`) read from a replica. Rights, credentials,
brakes, stored answers, jobs and live streams know the primary alone.

How late it is. `follow` asks the replica what it has replayed, and then the primary how far its log
reaches, some times a second. Once the replica has replayed what the primary had written at a
moment, it has everything that had been committed by then: `lag_seconds` counts from that moment, by
this process's clock alone, and is right on an idle primary too. Past
`PRICEBOOK_REPLICA__MAX_LAG_SECONDS` nothing is read there.
"""

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import SystemRandom
from typing import Any

import asyncpg
import structlog

from pricebook.core.database import server_settings_of
from pricebook.core.primary import open_connection
from pricebook.core.reading import Compiled, Connection, ReadPool
from pricebook.core.replica_urls import replica_urls
from pricebook.core.settings import Settings
from pricebook.core.wal import STANDING, Log, NotReadableError, Standing, check_replica

_LOOK_EVERY_SECONDS = 0.2
_TRY_AGAIN_SECONDS = 1.0
# A replica that says nothing for so long is gone, and whoever waits for it is sent elsewhere.
_PATIENCE_SECONDS = 1.0
_MOST_MARKS = 3_000

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class ReadCounts:
    """How many of the reads that might have gone to a replica went where, and why."""

    replica: int = 0
    primary: Counter[str] = field(default_factory=Counter)
    """By reason. `may_write` and `no_cache`: the reader is owed what is current. `late`, `away`,
    `full`: the replica could not take it. `failed`, `conflict`: it was read a second time."""


class Replica:
    """What one process knows of the replica, and its connections to it."""

    def __init__(self, settings: Settings, application: str, primary: ReadPool) -> None:
        """Compare it with `primary`; nothing is asked before `follow`."""
        self.counts = ReadCounts()
        self._primary = primary
        self._max_lag_seconds = settings.replica.max_lag_seconds
        # Processes spread over several replicas; one process reads from one, so that its readers
        # go back and forth in time as little as may be.
        self.urls = replica_urls(settings)
        SystemRandom().shuffle(self.urls)
        self._is_pooled = settings.database.is_pooled
        self._options: dict[str, Any] = {
            "timeout": _PATIENCE_SECONDS,
            "command_timeout": _PATIENCE_SECONDS,
            "server_settings": server_settings_of(settings, f"{application}-follower"),
        }
        self._reads = _ReplicaReads(settings, f"{application}-replica", self)
        self._follower: Connection | None = None
        self._marks: deque[tuple[float, int]] = deque(maxlen=_MOST_MARKS)
        self._log: Log | None = None
        self._fresh_at = -math.inf
        self.complaint: str | None = "has not been looked at yet"
        """Why it is not read, unless it is late."""
        self._has_looked = False
        self.when_lost: list[Callable[[], None]] = []
        """Called when nothing that still comes from it is to be waited for."""

    @property
    def url(self) -> str:
        """The one of the replicas that is read now."""
        return self.urls[0]

    @property
    def lag_seconds(self) -> float:
        """Whatever was committed before that is on it; infinite where nothing is known."""
        return time.monotonic() - self._fresh_at

    @property
    def is_late(self) -> bool:
        """Whether it is further behind than it may be, or not to be read at all."""
        return self.lag_seconds > self._max_lag_seconds

    def reads(self) -> ReadPool:
        """Return the pool for a read that may lag: of the replica if it may be read now."""
        if not self.is_late:
            return self._reads
        return self.primary(self.reason)

    @property
    def reason(self) -> str:
        """Why it is not read now, in a word."""
        return "away" if self.complaint else "late"

    def primary(self, reason: str) -> ReadPool:
        """Return the primary's pool, and count why."""
        self.count_primary(reason)
        return self._primary

    def count_primary(self, reason: str) -> None:
        """Count a read that the primary takes over."""
        self.counts.primary[reason] += 1

    def can_catch_up_within(self, seconds: float) -> bool:
        """Whether it is worth a try to wait for it so long."""
        if self.complaint is not None:
            return not self._has_looked
        return math.isinf(self._fresh_at) or self.lag_seconds <= seconds

    async def ask_primary(self) -> Standing:
        """Return where the primary stands."""
        return Standing.of(await self._primary.row(STANDING) or {})

    async def follow(self) -> None:
        """Look at the replica for as long as the process runs; cancel it to stop."""
        try:
            while True:
                await self._follow_one()
                await asyncio.sleep(_TRY_AGAIN_SECONDS if self.complaint else 0)
        finally:
            self._let_go()

    def in_words(self) -> str:
        """Say how it is doing."""
        if self.complaint is not None:
            return f"{self.complaint}; all is read from the primary"
        if self.is_late:
            return f"is {self.lag_seconds:.0f} s late; all is read from the primary"
        return f"is read, {self.lag_seconds:.1f} s late at most"

    def shun(self) -> None:
        """Read it no more until it has been looked at again."""
        self._fresh_at = -math.inf

    def lose(self, complaint: str) -> None:
        """Read it no more until it is well again, and send those who wait for it elsewhere."""
        if self.complaint is None:
            log.warning("replica is not read", reason=complaint)
        self.complaint = complaint
        self._has_looked = True
        self._let_go()

    def _let_go(self) -> None:
        self._fresh_at = -math.inf
        self._marks.clear()
        self._reads.close()
        for let_go in self.when_lost:
            let_go()
        if self._follower is not None:
            self._follower.terminate()
            self._follower = None

    async def _follow_one(self) -> None:
        try:
            while True:
                await self._look()
                await asyncio.sleep(_LOOK_EVERY_SECONDS)
        except NotReadableError as error:
            self.lose(str(error))
        except Exception as error:  # noqa: BLE001 -- whatever it is, the primary is read
            self.lose(f"does not answer ({type(error).__name__})")
        self.urls.append(self.urls.pop(0))

    async def _look(self) -> None:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            theirs = await self._ask()
        asked_at = time.monotonic()
        # Not in vain: without a word from the primary, the lag grows.
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            ours = await self.ask_primary()
            self._compare(theirs, ours, asked_at)

    async def connect(self, **options: Any) -> Connection:  # noqa: ANN401 -- as asyncpg.connect
        """Connect to the replica that is read now."""
        return await open_connection(self.url, is_pooled=self._is_pooled, **options)

    async def _ask(self) -> Standing:
        if self._follower is None or self._follower.is_closed():
            self._follower = await self.connect(**self._options)
        return Standing.of(await self._follower.fetchrow(STANDING.sql))

    def _compare(self, theirs: Standing, ours: Standing, asked_at: float) -> None:
        """Learn how late it is; `ours` was asked for at `asked_at`, after `theirs` had answered."""
        check_replica(theirs, ours)
        if ours.log != self._log:
            self._log = ours.log
            self._marks.clear()
        self._marks.append((asked_at, ours.position))
        while self._marks and self._marks[0][1] <= theirs.position:
            self._fresh_at = self._marks.popleft()[0]
        if self.complaint is not None:
            log.info("replica is followed")
        self.complaint = None
        self._has_looked = True


# What the standby had to take from the reader, to go on replaying.
_CONFLICTS = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)


class _ReplicaReads(ReadPool):
    """Reads from the replica, and once more from the primary where that fails."""

    def __init__(self, settings: Settings, application: str, replica: Replica) -> None:
        super().__init__(
            replica.connect,
            size=settings.database.read_pool_size,
            timeout_seconds=_PATIENCE_SECONDS,
            patience_seconds=settings.database.statement_timeout_seconds + 1,
            server_settings=server_settings_of(settings, application),
        )
        self._replica = replica

    async def _fetch(
        self, statement: Compiled, values: Mapping[str, object]
    ) -> list[asyncpg.Record]:
        if self._places.locked():
            return await self._replica.primary("full")._fetch(statement, values)  # noqa: SLF001 -- a pool of the same kind
        try:
            records = await self._fetch_once(statement.sql, statement.arguments(values))
        except asyncpg.QueryCanceledError:
            # It has had its time, and is not given as much again.
            raise
        except Exception as error:  # noqa: BLE001 -- whatever is wrong, the primary's word counts
            reason = self._note(error)
        else:
            self._replica.counts.replica += 1
            return records
        return await self._replica.primary(reason)._fetch(statement, values)  # noqa: SLF001 -- likewise

    def _note(self, error: Exception) -> str:
        if isinstance(error, _CONFLICTS):
            return "conflict"
        if isinstance(error, NotReadableError):
            self._replica.lose(str(error))
        elif isinstance(error, OSError | asyncpg.InsufficientResourcesError):
            self._replica.shun()
        return "failed"

    async def _connect(self) -> Connection:
        url = self._replica.url
        connection = await super()._connect()
        # Behind one name there may be several servers: each of them is to be a standby.
        if not await connection.fetchval("SELECT pg_is_in_recovery()"):
            connection.terminate()
            message = "has been promoted, or is the primary itself"
            raise NotReadableError(message)
        if url != self._replica.url:
            # Another one of several has been followed since.
            connection.terminate()
        return connection


@asynccontextmanager
async def following(
    settings: Settings, application: str, primary: ReadPool
) -> AsyncIterator[Replica | None]:
    """Yield the replica, followed, if there is one."""
    if settings.database_replica_url is None:
        yield None
        return
    replica = Replica(settings, application, primary)
    task = asyncio.create_task(replica.follow())
    try:
        yield replica
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
