"""What callers get while PostgreSQL is away, silent or lent out, and that it passes."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from pricebook.core.database import is_outage
from pricebook.core.reading import Compiled

NEW = {"sku": "H-1", "name": "Hammer", "price": "12.50", "currency": "EUR"}


class Line:
    """The network between the application and PostgreSQL."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.port = 0

    async def connect(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Refuse new connections and end those there are."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def freeze(self) -> None:
        """Carry nothing more, and tell nobody."""
        self._open.clear()

    def thaw(self) -> None:
        self._open.set()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            back, forth = await asyncio.open_connection(*self._target)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pump(reader, forth))
                    both.create_task(self._pump(back, writer))
            finally:
                forth.close()
        finally:
            writer.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            await self._open.wait()
            sink.write(data)
            await sink.drain()
        sink.close()


@pytest.fixture
async def line(settings) -> AsyncIterator[Line]:
    url = urlsplit(settings.database_url.get_secret_value())
    assert url.hostname
    made = Line(url.hostname, url.port or 5432)
    await made.connect()
    yield made
    made.thaw()
    await made.cut()


@pytest.fixture
def over(line, settings):
    """Return the database's URL over the line."""
    url = urlsplit(settings.database_url.get_secret_value())
    credentials, _, _ = url.netloc.rpartition("@")
    return SecretStr(url._replace(netloc=f"{credentials}@127.0.0.1:{line.port}").geturl())


SHORT = {"pool_timeout_seconds": 0.3}


async def attempts(client) -> list:
    return [
        await client.get("/v1/items"),
        await client.post("/v1/items", json=NEW),
        await client.get("/v1/users/me"),
    ]


def assert_all_unavailable(replies) -> None:
    for reply in replies:
        assert reply.status_code == 503, reply.text
        assert reply.json()["type"] == "/problems/unavailable"
        assert int(reply.headers["retry-after"]) >= 1


async def test_while_postgresql_is_away_callers_are_told_to_come_back(
    make_api, editor, line, over, recorded
):
    away = (await make_api(database_url=over, database=SHORT)).as_(editor)
    assert (await away.get("/v1/items")).status_code == 200
    await line.cut()
    assert_all_unavailable(await attempts(away))
    assert (await away.get("/health/live")).status_code == 200
    assert (await away.get("/ping")).status_code == 200
    ready = await away.get("/health/ready")
    assert ready.status_code == 503
    assert ready.json()["parts"][0] == {
        "name": "database",
        "status": "failing",
        "is_critical": True,
        "detail": "does not answer",
    }
    assert await recorded() == []
    await line.connect()
    assert [reply.status_code for reply in await attempts(away)] == [200, 201, 200]


async def test_a_silent_postgresql_is_not_waited_for_without_end(make_api, editor, line, over):
    pools = {"statement_timeout_seconds": 0.2, "pool_timeout_seconds": 0.2}
    silent = (await make_api(database_url=over, database=pools)).as_(editor)
    assert (await silent.get("/v1/items")).status_code == 200
    line.freeze()
    async with asyncio.timeout(30):
        both = await asyncio.gather(silent.get("/v1/items"), silent.get("/v1/items"))
        assert_all_unavailable(both)
        assert_all_unavailable([await silent.post("/v1/items", json=NEW)])
    line.thaw()
    async with asyncio.timeout(30):
        while (await silent.get("/v1/items")).status_code == 503:  # noqa: ASYNC110 -- no Event
            await asyncio.sleep(0.05)


async def test_connections_closed_while_idle_are_replaced_unseen(make_api, editor, session):
    other = (await make_api()).as_(editor)
    assert [reply.status_code for reply in await attempts(other)] == [200, 201, 200]
    end_the_others = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND datname = current_database() "
        "AND application_name LIKE 'pricebook%'"
    )
    assert await session.scalar(text(end_the_others)) >= 2
    await session.commit()
    replies = [await other.get("/v1/items"), await other.get("/v1/users/me")]
    assert [reply.status_code for reply in replies] == [200, 200]
    again = await other.post("/v1/items", json={**NEW, "sku": "H-2"})
    assert again.status_code == 201


async def test_with_all_connections_lent_out_callers_are_told_to_come_back(
    make_api, editor, session
):
    pools = {"pool_size": 2, "read_pool_size": 2, "pool_timeout_seconds": 0.3}
    busy = (await make_api(database=pools)).as_(editor)
    assert (await busy.get("/v1/items")).status_code == 200
    await session.execute(text("LOCK TABLE items IN ACCESS EXCLUSIVE MODE"))
    reads = [asyncio.create_task(busy.get("/v1/items")) for _ in range(6)]
    writes = [asyncio.create_task(busy.post("/v1/items", json=NEW)) for _ in range(6)]
    done, _ = await asyncio.wait(reads + writes, return_when=asyncio.FIRST_COMPLETED)
    assert_all_unavailable([task.result() for task in done])
    assert (await busy.get("/health/live")).status_code == 200
    await session.rollback()
    statuses = [reply.status_code for reply in await asyncio.gather(*reads, *writes)]
    assert set(statuses) <= {200, 201, 409, 503}
    assert statuses.count(201) == 1
    assert [reply.status_code for reply in await attempts(busy)] == [200, 409, 200]


async def test_a_statement_that_takes_too_long_is_ended(make_api, editor, session):
    pools = {"lock_timeout_seconds": 0.2, "statement_timeout_seconds": 0.4}
    slow = (await make_api(database=pools)).as_(editor)
    await session.execute(text("LOCK TABLE items IN ACCESS EXCLUSIVE MODE"))
    replies = await asyncio.gather(slow.get("/v1/items"), slow.post("/v1/items", json=NEW))
    assert_all_unavailable(replies)


async def test_the_reading_pool_cannot_write(database):
    number = Compiled(select(func.pg_current_xact_id()))
    with pytest.raises(asyncpg.PostgresError, match="read-only") as refusal:
        await database.reads.value(Compiled(select(func.lo_create(0))))
    assert not is_outage(refusal.value)
    assert await database.reads.value(number) is not None


async def test_only_what_may_pass_is_an_outage(session):
    with pytest.raises(DBAPIError) as fault:
        await session.execute(text("SELECT nonsense"))
    assert not is_outage(fault.value)
    await session.rollback()
    with pytest.raises(DBAPIError) as ended:
        await session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    assert is_outage(ended.value)
    assert is_outage(ConnectionRefusedError())
    assert not is_outage(FileNotFoundError(2, "No such file", "avatar.png"))
    assert not is_outage(ValueError())
