"""The pool that reads: what it refuses, how it waits, and what it does with lost connections."""

import asyncio

import asyncpg
import pytest
from sqlalchemy import BigInteger, Text, bindparam, func, select, text

from pricebook.core.database import Database, open_database
from pricebook.core.outbox import EventRecord
from pricebook.core.reading import Compiled
from pricebook.core.settings import DatabaseSettings, Settings

ONE = Compiled(select(bindparam("number", type_=BigInteger()).label("number")))
WHO = Compiled(select(func.pg_backend_pid()))
SLEEP = Compiled(select(func.pg_sleep(bindparam("seconds")).cast(Text)))
LOCK = Compiled(select(EventRecord.id).with_for_update())


@pytest.fixture
async def small(settings: Settings):
    """A database with two connections to read, waited for no longer than half a second."""
    pool = DatabaseSettings(read_pool_size=2, pool_timeout_seconds=0.5)
    async with open_database(settings.model_copy(update={"database": pool}), "reading") as opened:
        yield opened


async def end_connections(database: Database) -> None:
    async with database.sessions.begin() as session:
        await session.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'reading'"
            )
        )


async def test_rows_a_row_and_a_value_can_be_read(small):
    assert await small.reads.rows(ONE, number=7) == [{"number": 7}]
    assert await small.reads.row(ONE, number=7) == {"number": 7}
    assert await small.reads.value(ONE, number=7) == 7


async def test_postgresql_itself_refuses_whatever_a_reader_may_not_do(small):
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await small.reads.rows(LOCK)


async def test_no_more_connections_are_opened_than_allowed(small):
    pids = await asyncio.gather(*(small.reads.value(WHO) for _ in range(20)))
    assert len(set(pids)) <= 2


async def test_a_read_that_finds_no_free_connection_in_time_gives_up(small):
    busy = [asyncio.create_task(small.reads.value(SLEEP, seconds=5)) for _ in range(2)]
    await asyncio.sleep(0.1)
    with pytest.raises(TimeoutError):
        await small.reads.value(WHO)
    for task in busy:
        task.cancel()


async def test_a_cancelled_read_frees_its_connection(small):
    for _ in range(6):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(small.reads.value(SLEEP, seconds=5), 0.05)
    assert await small.reads.value(ONE, number=1) == 1


async def test_a_failed_read_frees_its_connection(small):
    broken = Compiled(select(func.no_such_function()))
    for _ in range(6):
        with pytest.raises(asyncpg.UndefinedFunctionError):
            await small.reads.value(broken)
    assert await small.reads.value(ONE, number=1) == 1


async def test_a_connection_that_the_server_ended_is_replaced(small, database):
    before = await small.reads.value(WHO)
    await end_connections(database)
    assert await small.reads.value(WHO) != before
