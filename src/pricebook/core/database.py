"""The connections to PostgreSQL: a pool that writes, a pool that reads, and the models' base."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, cast
from uuid import UUID

import asyncpg
from sqlalchemy import BigInteger, DateTime, MetaData, Numeric, Text, Uuid, event, exc
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry

from pricebook.core.fair_pool import FairPool
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
_PASSING = ("08", "53", "57", "40001", "40P01", "55P03")


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
        self.engine = _make_engine(settings, application, is_patient=is_patient)
        self.sessions = async_sessionmaker(
            self.engine, expire_on_commit=False, close_resets_only=False
        )
        self.reads = ReadPool(
            asyncpg_url(settings),
            size=settings.database.read_pool_size,
            timeout_seconds=settings.database.pool_timeout_seconds,
            patience_seconds=_patience_seconds(settings),
            server_settings=server_settings_of(settings, application),
        )

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


def _url(settings: Settings) -> str:
    if settings.database_url is None:
        message = "PRICEBOOK_DATABASE_URL is not set"
        raise RuntimeError(message)
    return settings.database_url.get_secret_value()


def _make_engine(settings: Settings, application: str, *, is_patient: bool) -> AsyncEngine:
    pool = settings.database
    server_settings = server_settings_of(settings, application)
    engine = create_async_engine(
        _url(settings),
        poolclass=FairPool,
        pool_size=pool.pool_size,
        max_overflow=0,
        pool_timeout=pool.pool_timeout_seconds,
        hide_parameters=True,
        connect_args={
            "timeout": pool.pool_timeout_seconds,
            "command_timeout": None if is_patient else _patience_seconds(settings),
            "server_settings": server_settings | (PATIENT if is_patient else {}),
        },
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    trace_engine(engine)
    return engine


def _patience_seconds(settings: Settings) -> float:
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


def asyncpg_url(settings: Settings) -> str:
    """Return the URL as asyncpg itself takes it."""
    return _url(settings).replace("+asyncpg", "")


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
    return any(_is_passing(cause) for cause in causes(error))


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
    "violated",
]
