"""The connections to PostgreSQL: a pool that writes, a pool that reads, and the models' base."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar, cast
from uuid import UUID

import asyncpg
from sqlalchemy import BigInteger, DateTime, MetaData, Numeric, Text, Uuid, event, exc
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry, NullPool

from pricebook.core.fair_pool import FairPool
from pricebook.core.primary import Primary, primary_at, primary_of
from pricebook.core.reading import ReadPool, is_closed
from pricebook.core.settings import Settings
from pricebook.core.traced_sql import trace_engine

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

# What PostgreSQL says when it is going away, gone, full, or too busy (SQLSTATE, appendix A of its
# manual): the request is fine and may be sent again.
_PASSING = ("08", "53", "57", "40001", "40003", "40P01", "55P03")
# On the connections that write: the server has become a standby, or is to be written no more. On
# those that only read, it says that someone has tried to write, and passes never.
_READ_ONLY = "25006"


_LONE_SECONDS = 60.0


class Base(DeclarativeBase):
    """The base of every table."""

    metadata = MetaData(naming_convention=NAMES)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        Decimal: Numeric(14, 4),
        UUID: Uuid(),
        int: BigInteger(),
        str: Text(),
    }


class Database:
    """Both pools, made from the settings; nothing connects before the first use."""

    def __init__(
        self, settings: Settings, *, application: str = "pricebook", is_patient: bool = False
    ) -> None:
        """Make the pools of one process, which PostgreSQL lists under `application`.

        If it `is_patient`, a statement that writes may take as long as it likes: for jobs.
        """
        self._primary = primary_of(settings)
        self.engine = _make_engine(settings, application, self._primary, is_patient=is_patient)
        self.sessions = async_sessionmaker(
            self.engine, expire_on_commit=False, close_resets_only=False
        )
        self.reads = ReadPool(
            self._primary.connect,
            size=settings.database.read_pool_size,
            timeout_seconds=settings.database.pool_timeout_seconds,
            patience_seconds=patience_seconds(settings),
            server_settings=server_settings_of(settings, application),
        )
        self._primary.when_doubted.add(self.reads)

    @property
    def pool(self) -> AsyncAdaptedQueuePool:
        """The pool of connections that write."""
        return cast("AsyncAdaptedQueuePool", self.engine.pool)

    async def close(self) -> None:
        """Close every connection."""
        self.reads.close()
        await self.engine.dispose()


@asynccontextmanager
async def open_database(
    settings: Settings, application: str, *, is_patient: bool = False
) -> AsyncIterator[Database]:
    """Yield a database whose connections are closed at the end."""
    database = Database(settings, application=application, is_patient=is_patient)
    try:
        yield database
    finally:
        await database.close()


def _make_engine(
    settings: Settings, application: str, primary: Primary, *, is_patient: bool
) -> AsyncEngine:
    pool = settings.database
    server_settings = server_settings_of(settings, application)
    engine = engine_to(
        primary,
        poolclass=FairPool,
        pool_size=pool.pool_size,
        max_overflow=0,
        pool_timeout=pool.pool_timeout_seconds,
        hide_parameters=True,
        connect_args={
            "timeout": pool.pool_timeout_seconds,
            "command_timeout": None if is_patient else patience_seconds(settings),
            "server_settings": server_settings | (PATIENT if is_patient else {}),
        },
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    trace_engine(engine)
    event.listen(engine.sync_engine, "handle_error", partial(_drop_lost, primary))
    return engine


def engine_to(
    primary: Primary,
    *,
    connect_args: Mapping[str, object],
    **options: Any,  # noqa: ANN401 -- SQLAlchemy's own
) -> AsyncEngine:
    """Make an engine whose connections `primary` makes."""
    arguments = {"async_creator_fn": primary.connect, **connect_args}
    if primary.is_pooled:
        arguments["prepared_statement_cache_size"] = 0
    return create_async_engine("postgresql+asyncpg://", connect_args=arguments, **options)


def lone_engine(url: str) -> AsyncEngine:
    """Make an engine without a pool, for one long piece of work over a connection of its own."""
    return engine_to(primary_at(url), connect_args={"timeout": _LONE_SECONDS}, poolclass=NullPool)


def patience_seconds(settings: Settings) -> float:
    """Return how long to wait for an answer: a server that lives ends a statement before that."""
    return settings.database.statement_timeout_seconds + 1


PATIENT = {
    "statement_timeout": "0",
    "lock_timeout": "30000",
    "idle_in_transaction_session_timeout": "120000",
    # A statement ends with the process that waits for it, and holds nobody up.
    "client_connection_check_interval": "2000",
}
"""What long work asks of PostgreSQL otherwise; times in milliseconds."""


def server_settings_of(settings: Settings, application: str) -> dict[str, str]:
    """Return what each connection asks of PostgreSQL; times in milliseconds."""
    pool = settings.database
    return {
        "application_name": application,
        "statement_timeout": str(int(pool.statement_timeout_seconds * 1000)),
        "lock_timeout": str(int(pool.lock_timeout_seconds * 1000)),
        "idle_in_transaction_session_timeout": "30000",
        "timezone": "UTC",
        # Plans are made anew for small tables all the time by the compiler; it never pays here.
        "jit": "off",
    }


def _refuse_closed(
    connection: Any,  # noqa: ANN401 -- the adapter class is private to SQLAlchemy
    _entry: ConnectionPoolEntry,
    _proxy: Any,  # noqa: ANN401 -- likewise
) -> None:
    """Replace a connection that the server has closed: a pre-ping without its round trip."""
    if connection.driver_connection.is_closed():
        raise exc.DisconnectionError


def _drop_lost(primary: Primary, context: ExceptionContext) -> None:
    """Lend out no connection again whose server is silent, or does not write any more.

    The others of the pool are as good: they are replaced as well.
    """
    if context.connection is None or context.connection.invalidated:
        return
    error = context.original_exception
    is_read_only = getattr(error, "sqlstate", None) == _READ_ONLY
    if not is_read_only and not isinstance(error, TimeoutError):
        return
    context.is_disconnect = True
    raw = context.connection.connection.driver_connection
    if raw is not None:
        raw.terminate()
    if is_read_only:
        primary.doubt()


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what caused it, the driver's own exception included."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        if isinstance(error, exc.DBAPIError) and error.driver_exception is not None:
            yield error.driver_exception
        error = error.__cause__ or error.__context__


def is_outage(error: BaseException) -> bool:
    """Whether the database is away or too busy, so that trying again may help."""
    return outage_in(error) is not None


def outage_in(error: BaseException) -> BaseException | None:
    """Return what says that the database is away or too busy, if anything does."""
    return next((cause for cause in causes(error) if _is_passing(cause)), None)


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(_PASSING)
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return True
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return is_closed(error)
    if isinstance(error, OSError):
        # One that names a file is about that file, not about the network.
        return error.filename is None
    return isinstance(error, exc.TimeoutError)


def violated(error: exc.IntegrityError) -> str | None:
    """Return the name of the constraint that refused a row."""
    return getattr(error.driver_exception, "constraint_name", None)


__all__ = [
    "AsyncSession",
    "Base",
    "Database",
    "causes",
    "is_outage",
    "open_database",
    "outage_in",
    "violated",
]
