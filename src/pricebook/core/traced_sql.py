"""Spans of SQL: each statement, and each commit, that runs on behalf of something that is traced.

They show the statement as it is prepared, with places for its values; the values never.
"""

import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeAlias

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine

from pricebook.core import tracing
from pricebook.core.tracing import Attributes, Span

_SYSTEM = {"db.system.name": "postgresql"}
_MOST_CHARACTERS = 2_000
_MOST_STATEMENTS = 1_000
_CHANGE = re.compile(r"(?<!FOR )(?<!KEY )(?<!DO )\b(INSERT INTO|UPDATE|DELETE FROM) (\w+)")
_READ = re.compile(r"\b(SELECT)\b.*?\bFROM (\w+)", re.DOTALL)
_SPAN = "pricebook.span"


@lru_cache(_MOST_STATEMENTS)
def _described(sql: str) -> tuple[str, Attributes]:
    """Return the name of a statement's span and what is said of it."""
    found = _CHANGE.search(sql) or _READ.search(sql)
    verb = found[1].split()[0] if found else (sql.split(maxsplit=1) or ["SQL"])[0].upper()
    name = f"{verb} {found[2]}" if found else verb
    said = {"db.operation.name": verb, "db.query.text": sql[:_MOST_CHARACTERS], **_SYSTEM}
    if found:
        said["db.collection.name"] = found[2]
    return name, said


def _fail(span: Span, error: BaseException) -> None:
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        span.set_attribute("db.response.status_code", state)
    tracing.fail(span, state or type(error).__name__)


@contextmanager
def _spanned(name: str, said: Attributes) -> Iterator[None]:
    span = tracing.start_statement(name, said)
    if span is None:
        yield
        return
    try:
        yield
    except BaseException as error:
        _fail(span, error)
        raise
    finally:
        span.end()


Fetch: TypeAlias = Callable[
    [asyncpg.Connection, str, Sequence[Any]], Awaitable[list[asyncpg.Record]]
]


def fetching() -> Fetch:
    """Return how the pool that reads asks: with a span, if there is a collector."""
    return _fetch_traced if tracing.is_on() else _fetch


def _fetch(
    connection: asyncpg.Connection, sql: str, arguments: Sequence[Any]
) -> Awaitable[list[asyncpg.Record]]:
    records: Awaitable[list[asyncpg.Record]] = connection.fetch(sql, *arguments)
    return records


async def _fetch_traced(
    connection: asyncpg.Connection, sql: str, arguments: Sequence[Any]
) -> list[asyncpg.Record]:
    with _spanned(*_described(sql)):
        return await _fetch(connection, sql, arguments)


def trace_engine(engine: AsyncEngine) -> None:
    """Make spans of what an engine runs, if there is a collector."""
    if not tracing.is_on():
        return
    event.listen(engine.sync_engine, "before_cursor_execute", _begin)
    event.listen(engine.sync_engine, "after_cursor_execute", _end)
    event.listen(engine.sync_engine, "handle_error", _end_badly)
    # SQLAlchemy tells when a commit begins, and not when it is done.
    dialect: Any = engine.sync_engine.dialect
    dialect.do_commit = _traced(dialect.do_commit)


def _begin(
    connection: Connection,
    _cursor: object,
    sql: str,
    _parameters: object,
    _context: object,
    _is_many: bool,  # noqa: FBT001 -- likewise
) -> None:
    connection.info[_SPAN] = tracing.start_statement(*_described(sql))


def _end(connection: Connection, *_of_statement: object) -> None:
    if (span := connection.info.pop(_SPAN, None)) is not None:
        span.end()


def _end_badly(context: ExceptionContext) -> None:
    connection = context.connection
    if connection is None or connection.invalidated:
        return
    if (span := connection.info.pop(_SPAN, None)) is not None:
        _fail(span, context.original_exception)
        span.end()


def _traced(commit: Callable[[DBAPIConnection], None]) -> Callable[[DBAPIConnection], None]:
    def traced(connection: DBAPIConnection) -> None:
        with _spanned("COMMIT", {"db.operation.name": "COMMIT", **_SYSTEM}):
            commit(connection)

    return traced
