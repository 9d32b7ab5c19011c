"""Snapshots of the database for those who read much of it, on a few connections of their own.

What a snapshot reads comes in blocks of lines through a cursor, so that memory stays flat however
long the list is, and all of it is as of one moment, however long that takes.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from pricebook.core.database import patience_seconds, server_settings_of
from pricebook.core.errors import Unavailable
from pricebook.core.primary import primary_of
from pricebook.core.reading import Compiled, Connection
from pricebook.core.settings import Settings

# The first block is small, so that its first byte is there soon; the others are as large as pays,
# and no larger, however long the lines are.
_FIRST_ROWS = 200
_MOST_ROWS = 5000
_BLOCK_BYTES = 512 * 1024
# While others wait for their answers: what they may have to wait for is a block.
_POLITE_BLOCK_BYTES = 64 * 1024


class TooManySnapshots(Unavailable):
    """Too many exports are under way here; try again."""


class Snapshot:
    """One moment of the database, read line by line."""

    def __init__(self, connection: Connection, turns: "_Turns") -> None:
        """Read on a connection in a transaction; all that share `turns` fetch one at a time."""
        self._connection = connection
        self._turns = turns
        self._fetching: asyncio.Task[list[asyncpg.Record]] | None = None
        self.rows = 0
        """How many lines the blocks yielded so far have had."""

    async def value(self, statement: Compiled, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- any column's type
        """Return the first column of the first row."""
        return await self._connection.fetchval(statement.sql, *statement.arguments(values))

    async def blocks(
        self, statement: Compiled, values: Mapping[str, Any]
    ) -> AsyncGenerator[bytes, None]:
        """Yield the lines, each the one column of a row, many at a time; one block is ahead."""
        # Prepared first, and nameless where a pooler could not keep the name.
        prepared = await self._connection.prepare(statement.sql)
        cursor = await prepared.cursor(*statement.arguments(values))
        # Not in turn: it may take long, as all rows have to be found before any can be sorted.
        rows, ahead = await cursor.fetch(_FIRST_ROWS), _FIRST_ROWS
        while rows:
            self._fetching = asyncio.create_task(self._fetch(cursor, ahead))
            # Whoever breaks off does not hear of its failure, and nobody is to miss that.
            self._fetching.add_done_callback(lambda one: one.cancelled() or one.exception())
            # PostgreSQL works on it meanwhile.
            await asyncio.sleep(0)
            self.rows += len(rows)
            block = "".join([row[0] for row in rows]).encode()
            ahead = max(1, min(_MOST_ROWS, self._turns.block_bytes * len(rows) // len(block)))
            yield block
            rows = await self._fetching
        self._fetching = None

    def end(self) -> bool:
        """Read no more; return whether all that was begun has been read."""
        if self._fetching is None:
            return True
        self._fetching.cancel()
        return False

    async def _fetch(self, cursor: Any, count: int) -> list[asyncpg.Record]:  # noqa: ANN401 -- asyncpg has no types
        async with self._turns.one():
            rows: list[asyncpg.Record] = await cursor.fetch(count)
            return rows


class _Turns:
    """One fetch at a time, and as much rest as work while the API is in use."""

    def __init__(self, is_busy: Callable[[], bool]) -> None:
        self._is_busy = is_busy
        self._turn = asyncio.Semaphore()

    @property
    def block_bytes(self) -> int:
        """How much to fetch in one turn."""
        return _POLITE_BLOCK_BYTES if self._is_busy() else _BLOCK_BYTES

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        async with self._turn:
            began = time.perf_counter()
            yield
            if self._is_busy():
                await asyncio.sleep(time.perf_counter() - began)


class SnapshotPool:
    """Connections for snapshots, and no more of them than its size."""

    def __init__(
        self,
        settings: Settings,
        application: str,
        size: int,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        """Describe the connections; none is opened before the first snapshot.

        While `is_busy`, reading gives way to whatever else the process and PostgreSQL do.
        """
        self._options: dict[str, Any] = {
            "timeout": settings.database.pool_timeout_seconds,
            "command_timeout": patience_seconds(settings),
            "server_settings": server_settings_of(settings, application) | _SERVER_SETTINGS,
        }
        self._size = self._free = size
        self._idle: list[Connection] = []
        self._turns = _Turns(is_busy)
        self._primary = primary_of(settings)
        self._primary.when_doubted.add(self)

    @property
    def in_use(self) -> int:
        """How many snapshots there are now."""
        return self._size - self._free

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """Yield a snapshot of this moment.

        Whoever breaks off, by an error or by being cancelled, takes the connection along.

        Raises:
            TooManySnapshots: As many as may be are there already.

        """
        if not self._free:
            raise TooManySnapshots
        self._free -= 1
        try:
            async with self._transaction() as connection:
                snapshot = Snapshot(connection, self._turns)
                try:
                    yield snapshot
                finally:
                    if not snapshot.end():
                        connection.terminate()
        finally:
            self._free += 1

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self.close_idle()

    def close_idle(self) -> None:
        """Close them, as their server may be the primary no more."""
        for connection in self._idle:
            connection.terminate()
        self._idle.clear()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        connection = await self._begin()
        try:
            yield connection
            if not connection.is_closed():
                await connection.execute("COMMIT")
                self._idle.append(connection)
        except BaseException:
            connection.terminate()
            raise

    async def _begin(self) -> Connection:
        """Return a connection in a transaction; the server may have closed one that was idle."""
        while self._idle:
            with suppress(*GONE):
                return await in_transaction(self._idle.pop())
        return await in_transaction(await self._primary.connect(**self._options))


_SERVER_SETTINGS = {
    # A cursor is read bit by bit, which parallel workers cannot do.
    "max_parallel_workers_per_gather": "0",
    # Should a process hang, its snapshots end all the same; times in milliseconds.
    "idle_in_transaction_session_timeout": "30000",
    "client_connection_check_interval": "2000",
}


# To begin needs nothing but the connection.
GONE = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


async def in_transaction(connection: Connection) -> Connection:
    """Begin a snapshot's transaction; its moment is that of its first statement."""
    try:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    except BaseException:
        connection.terminate()
        raise
    return connection
