"""The fast road for reads: a `Select`, compiled once, run on a pool that only reads.

The DTO is the projection: a read selects exactly the columns that its output model names
(`columns_of`), so what a reader may not see never leaves PostgreSQL. The rows go to
`response_model` as they come; or, where there are many, PostgreSQL itself writes the JSON that
`response_model` would (`as_json`). Writes take the ORM's road, in `core.session`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeAlias, cast
from weakref import WeakSet

import asyncpg
import orjson
from pydantic import BaseModel
from sqlalchemy import (
    ColumnElement,
    DateTime,
    Numeric,
    Select,
    Text,
    func,
    literal_column,
    select,
)
from sqlalchemy import cast as cast_sql
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute

P = ParamSpec("P")
Row = dict[str, Any]
Connection: TypeAlias = asyncpg.Connection
Connect: TypeAlias = Callable[..., Awaitable[Connection]]

# Clients choose some shapes, such as the fields they want: past this many, old ones are forgotten.
_SHAPES = 500

_DIALECT = PGDialect_asyncpg()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped


def columns_of(
    model: type[BaseModel], table: type[DeclarativeBase], only: Iterable[str] | None = None
) -> list[InstrumentedAttribute[Any]]:
    """Return the table's columns that the output model shows, or those of them in `only`."""
    return [getattr(table, name) for name in (model.model_fields if only is None else only)]


def as_json(
    columns: Sequence[InstrumentedAttribute[Any]], renamed: Mapping[str, str] | None = None
) -> ColumnElement[str]:
    """Have PostgreSQL write these columns of a row as one JSON object, as `response_model` would.

    A column that is `renamed` has another name there. To read every value into Python, check it
    and write it there costs several times as much.
    """
    names = renamed or {}
    shown = select(*(_written(one).label(names.get(one.key, one.key)) for one in columns))
    return func.row_to_json(shown.correlate(columns[0].class_).lateral().table_valued())


def _written(column: InstrumentedAttribute[Any]) -> ColumnElement[Any]:
    """Return the value as the output models have it in JSON; see `DecimalOut` and `Moment`."""
    if isinstance(column.type, Numeric):
        return cast_sql(column, Text)
    if isinstance(column.type, DateTime):
        return written_moment(column)
    return column.expression


def written_moment(column: InstrumentedAttribute[Any]) -> ColumnElement[str]:
    """Return a moment as JSON has it: RFC 3339, in UTC, since every connection's time zone is."""
    moment = func.to_char(column, literal_column("""'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"""))
    return func.replace(moment, literal_column("'.000000'"), literal_column("''"))


def _written_json(value: object) -> str:
    return orjson.dumps(value).decode()


# The connection is of no more use. InternalClientError: the server's last word came unasked, as it
# closed the connection, and the driver has read the word but not yet the end.
_BROKEN = (asyncpg.PostgresConnectionError, asyncpg.InternalClientError)
# A server that lives ends a statement before its time is up here: whoever asks next would wait in
# vain, too.
_SILENT = TimeoutError


class Compiled:
    """A `Select` as SQL text, with the order that its values go in."""

    def __init__(self, select: Select[*tuple[Any, ...]]) -> None:
        """Compile `select`; values not bound in it are given at each run, by name."""
        compiled = select.compile(dialect=_DIALECT)
        self.sql = str(compiled)
        self._names: list[str] = list(compiled.positiontup or ())
        self._bound: dict[str, Any] = dict(compiled.params)

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """Return the values in the order of the placeholders."""
        if not values:
            return [self._bound[name] for name in self._names]
        return [values[name] if name in values else self._bound[name] for name in self._names]


def compiled_once(query: Callable[P, Select[*tuple[Any, ...]]]) -> Callable[P, Compiled]:
    """Decorate a query that takes only hashable arguments: each shape of it is compiled once."""

    @lru_cache(maxsize=_SHAPES)
    @wraps(query)
    def compiled(*args: P.args, **kwargs: P.kwargs) -> Compiled:
        return Compiled(query(*args, **kwargs))

    return cast("Callable[P, Compiled]", compiled)


class ReadPool:
    """Connections on which PostgreSQL itself refuses to write, lent out for one statement each.

    A statement outside a transaction leaves nothing behind that would have to be reset, so this is
    all the pool that is needed; asyncpg's costs more time than the rest of a read.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        size: int,
        timeout_seconds: float,
        patience_seconds: float,
        server_settings: Mapping[str, str],
    ) -> None:
        """Describe the connections that `connect` makes; none is opened before the first read.

        A read waits `timeout_seconds` for a connection, and `patience_seconds` for its answer.
        """
        self._timeout_seconds = timeout_seconds
        self.size = size
        self._places = asyncio.Semaphore(size)
        self._free = size
        self._idle: list[Connection] = []
        self._opened: WeakSet[Connection] = WeakSet()
        self._open = connect
        self._options: dict[str, Any] = {
            "timeout": timeout_seconds,
            "command_timeout": patience_seconds,
            "server_settings": {**server_settings, "default_transaction_read_only": "on"},
        }

    def close(self) -> None:
        """Close the connections, at once where they are still in use."""
        for connection in list(self._opened):
            connection.terminate()

    def close_idle(self) -> None:
        """Close the connections that are not in use."""
        for connection in self._idle:
            connection.terminate()
        self._idle.clear()

    async def rows(self, statement: Compiled, **values: object) -> list[Row]:
        """Return every row as a dict.

        Raises:
            TimeoutError: No connection became free in time.

        """
        return [dict(record) for record in await self._fetch(statement, values)]

    async def row(self, statement: Compiled, **values: object) -> Row | None:
        """Return the first row, or None."""
        records = await self._fetch(statement, values)
        return dict(records[0]) if records else None

    async def value(self, statement: Compiled, **values: object) -> Any:  # noqa: ANN401 -- any column's type
        """Return the first column of the first row, or None."""
        records = await self._fetch(statement, values)
        return records[0][0] if records else None

    async def _fetch(
        self, statement: Compiled, values: Mapping[str, object]
    ) -> list[asyncpg.Record]:
        arguments = statement.arguments(values)
        try:
            return await self._fetch_once(statement.sql, arguments)
        except (*_BROKEN, asyncpg.InterfaceError) as error:
            if not is_closed(error):
                raise
        # The server closed the connection while it was idle. A read may be sent again.
        return await self._fetch_once(statement.sql, arguments)

    async def _fetch_once(self, sql: str, arguments: list[Any]) -> list[asyncpg.Record]:
        await self._wait_for_place()
        self._free -= 1
        try:
            connection = self._take_idle() or await self._connect()
            try:
                records: list[asyncpg.Record] = await connection.fetch(sql, *arguments)
            except (*_BROKEN, _SILENT):
                connection.terminate()
                raise
            else:
                return records
            finally:
                self._idle.append(connection)
        finally:
            self._free += 1
            self._places.release()

    @property
    def in_use(self) -> int:
        """How many connections are lent out."""
        return self.size - self._free

    async def _wait_for_place(self) -> None:
        if not self._places.locked():
            await self._places.acquire()
            return
        async with asyncio.timeout(self._timeout_seconds):
            await self._places.acquire()

    def _take_idle(self) -> Connection | None:
        """Return the connection that was used last, and forget those that are closed."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    async def _connect(self) -> Connection:
        connection = await self._open(**self._options)
        await connection.set_type_codec(
            "jsonb", schema="pg_catalog", encoder=_written_json, decoder=orjson.loads
        )
        self._opened.add(connection)
        return connection


def is_closed(error: Exception) -> bool:
    """Whether asyncpg refused because the connection or its pool is closed."""
    if isinstance(error, _BROKEN):
        return True
    return not isinstance(error, ValueError) and "clos" in str(error)
