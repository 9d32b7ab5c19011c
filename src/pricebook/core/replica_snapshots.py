"""Snapshots on a replica: none begins before all that had been committed when it was asked for."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg

from pricebook.core.reading import Connection
from pricebook.core.replica import Replica
from pricebook.core.settings import Settings
from pricebook.core.snapshots import (
    GONE,
    Snapshot,
    SnapshotPool,
    TooManySnapshots,
    in_transaction,
)
from pricebook.core.wal import STANDING, NotReadableError, Standing, check_replica

_CONNECT_SECONDS = 1.0
# A replica that is well is there within some milliseconds; the primary need not wait for more.
_CATCH_UP_SECONDS = 1.0
_LOOK_EVERY_SECONDS = 0.02


class ReplicaFailedError(Exception):
    """A snapshot on a replica broke off; whoever has passed on nothing of it may begin anew."""


class Snapshots:
    """Where downloads get their snapshots: a replica if it can, else the primary."""

    def __init__(
        self,
        settings: Settings,
        application: str,
        size: int,
        replica: Replica | None,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        """Allow `size` of them, wherever they are."""
        self._size = size
        self._known = replica
        self.primary = SnapshotPool(settings, application, size, is_busy)
        self._replica = (
            _ReplicaSnapshots(settings, application, size, replica, is_busy) if replica else None
        )

    @asynccontextmanager
    async def snapshot(self, *, on_primary: bool = False) -> AsyncGenerator[Snapshot, None]:
        """Yield a snapshot of this moment.

        Raises:
            TooManySnapshots: As many as may be are there already.
            ReplicaFailedError: It was on a replica, and broke off: ask for one `on_primary`.

        """
        if self._in_use >= self._size:
            raise TooManySnapshots
        async with (self.primary if on_primary else self._choose()).snapshot() as snapshot:
            yield snapshot

    def _choose(self) -> SnapshotPool:
        if self._known is None or self._replica is None:
            return self.primary
        if self._known.can_catch_up_within(_CATCH_UP_SECONDS):
            return self._replica
        self._known.count_primary(self._known.reason)
        return self.primary

    @property
    def _in_use(self) -> int:
        return self.primary.in_use + (self._replica.in_use if self._replica else 0)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self.primary.close()
        if self._replica is not None:
            self._replica.close()


# To send to a client that has left, or takes too long, is no fault of the replica.
_FAULTS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class _ReplicaSnapshots(SnapshotPool):
    """Snapshots on a standby that has replayed what the primary had written a moment before."""

    def __init__(
        self,
        settings: Settings,
        application: str,
        size: int,
        replica: Replica,
        is_busy: Callable[[], bool],
    ) -> None:
        super().__init__(settings, application, size, is_busy)
        self._options["timeout"] = _CONNECT_SECONDS
        self._replica = replica
        self._lent: set[Connection] = set()
        replica.when_lost.append(self._let_go)

    @asynccontextmanager
    async def snapshot(self) -> AsyncGenerator[Snapshot, None]:
        try:
            async with super().snapshot() as snapshot:
                yield snapshot
        except asyncpg.QueryCanceledError:
            # It has had its time, and is not given as much again.
            raise
        except _FAULTS as error:
            self._replica.count_primary("failed")
            raise ReplicaFailedError from error
        self._replica.counts.replica += 1

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        async with super()._transaction() as connection:
            self._lent.add(connection)
            try:
                yield connection
            finally:
                self._lent.discard(connection)

    async def _begin(self) -> Connection:
        """Begin on a connection whose own server has caught up: one name may have several."""
        connection = await self._take_idle_or_connect()
        try:
            await self._wait_for(connection)
            return await in_transaction(connection)
        except (NotReadableError, *GONE) as error:
            connection.terminate()
            raise asyncpg.InterfaceError(str(error)) from error
        except BaseException:
            connection.terminate()
            raise

    async def _take_idle_or_connect(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        try:
            return await self._replica.connect(**self._options)
        except OSError as error:
            raise asyncpg.InterfaceError(str(error)) from error

    async def _wait_for(self, connection: Connection) -> None:
        """Wait until a standby has replayed what the primary has written by now.

        Raises:
            NotReadableError: It is no replica of ours.
            TimeoutError: It is too far behind.

        """
        async with asyncio.timeout(_CATCH_UP_SECONDS):
            theirs = await _ask(connection)
            ours = await self._replica.ask_primary()
            check_replica(theirs, ours)
            while theirs.position < ours.position:
                await asyncio.sleep(_LOOK_EVERY_SECONDS)
                theirs = await _ask(connection)

    def _let_go(self) -> None:
        for connection in (*self._lent, *self._idle):
            connection.terminate()


async def _ask(connection: Connection) -> Standing:
    return Standing.of(await connection.fetchrow(STANDING.sql))
