"""The primary goes elsewhere: the service goes with it, and answers nothing from the old one."""

import asyncio
import os
import signal

import pytest
from sqlalchemy import func, select
from tests.conftest import connected, until
from tests.failover.conftest import load_on, skus_on, wait_for, with_other_host
from tests.standby import follow_instead, freeze, thaw

from pricebook.core.database import is_outage
from pricebook.core.reading import Compiled

_PORT = Compiled(select(func.inet_server_port()))
NEW = {"name": "Hammer", "price": "1", "currency": "EUR"}


async def ports_of(api, count=20) -> set[int | None]:
    """The ports of the servers that its pools are connected to."""
    database = api.app.state.database

    async def write_port():
        async with database.engine.connect() as connection:
            return await connection.scalar(select(func.inet_server_port()))

    async def read_port():
        return await database.reads.value(_PORT)

    async with asyncio.timeout(10):
        ports = [patiently(ask) for ask in (write_port, read_port) for _ in range(count)]
        return set(await asyncio.gather(*ports))


async def patiently(ask):
    """Ask until there is an answer: what is opened all at once may not be in time."""
    while True:
        try:
            return await ask()
        except Exception as error:
            if not is_outage(error):
                raise


async def test_a_primary_is_killed_and_the_service_goes_on_with_the_standby(pair, serve):
    api = await serve(pair.url)
    async with load_on(api) as load:
        os.kill(pair.primary.pid, signal.SIGKILL)
        await asyncio.to_thread(pair.primary.has_stopped, 10)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(pair.standby.promote)
        await load.goes_on()
    assert load.answers["POST", 503] > 0
    assert load.written <= await skus_on(pair.standby)


async def test_after_a_switchover_nothing_leads_to_the_old_primary(pair, serve):
    api = await serve(pair.url)
    async with load_on(api) as load:
        await asyncio.to_thread(pair.primary.stop)
        await asyncio.to_thread(pair.standby.promote)
        await asyncio.to_thread(follow_instead, pair.primary, pair.standby)
        await load.goes_on()
    assert await ports_of(api) == {pair.standby._port}
    assert load.written <= await skus_on(pair.standby)
    # Nor does a process that knows nothing of it, and is told of the old one first.
    assert await ports_of(await serve(pair.url)) == {pair.standby._port}


async def test_a_silent_primary_is_left_and_never_taken_for_the_primary_again(pair, serve):
    api = await serve(pair.url)
    async with load_on(api) as load:
        freeze(pair.primary)
        try:
            await asyncio.to_thread(pair.standby.promote)
            await load.goes_on(6)
        finally:
            thaw(pair.primary)
        await load.goes_on()
        written = load.written.copy()
        assert written <= await skus_on(pair.standby)
        # The old one answers again, and knows of nothing.
        async with connected(pair.primary.url) as connection:
            assert not await connection.fetchval("SELECT pg_is_in_recovery()")
        await asyncio.to_thread(pair.standby.stop)
        before = load.answers.copy()
        await until(lambda: (load.answers - before)["POST", 503] > 20)
        await until(lambda: (load.answers - before)["GET", 503] > 20)
        settled = load.answers.copy()
        await asyncio.sleep(0.3)
        assert (load.answers - settled).keys() == {("POST", 503), ("GET", 503)}


async def test_a_commit_that_no_standby_has_confirmed_is_never_called_done(primary, serve):
    api = await serve(primary.url)
    wait_for(primary, "nobody")
    cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"

    async def post():
        key = {"Idempotency-Key": "once"}
        return await api.post("/v1/items", json={**NEW, "sku": "S-1"}, headers=key)

    async def post_and_be_cancelled():
        posting = asyncio.create_task(post())

        async def has_been_cancelled():
            await asyncio.to_thread(primary._sql, f"{cancel};")
            return posting.done()

        await until(has_been_cancelled)
        return await posting

    # The second finds the answer of the first, which PostgreSQL calls committed all the same.
    for _ in range(2):
        reply = await post_and_be_cancelled()
        assert reply.status_code == 503
        assert int(reply.headers["retry-after"]) >= 1
        assert "S-1" in await skus_on(primary)
    await asyncio.to_thread(wait_for, primary, "")
    reply = await post()
    assert (reply.status_code, reply.headers["idempotency-replayed"]) == (201, "true")


@pytest.mark.parametrize("hosts", ["one", "both"])
async def test_a_write_that_meets_a_server_that_only_reads_is_told_to_come_back(
    primary, serve, hosts
):
    api = await serve(primary.url if hosts == "one" else with_other_host(primary.url, 9))
    switch = "ALTER SYSTEM SET default_transaction_read_only = {};\nSELECT pg_reload_conf();"
    assert (await api.get("/v1/items")).status_code == 200
    (before,) = api.app.state.database.reads._idle
    await asyncio.to_thread(primary._sql, switch.format("on"))

    async def is_refused():
        reply = await api.post("/v1/items", json={**NEW, "sku": "S-2"})
        assert reply.status_code in {201, 409, 503}, reply.text
        return reply.status_code == 503

    await until(is_refused)
    # Where writes are led astray, reads may be, too: they begin anew.
    assert before.is_closed()
    assert (await api.get("/v1/items")).status_code == 200
    await asyncio.to_thread(primary._sql, switch.format("off"))

    async def is_written():
        return (await api.post("/v1/items", json={**NEW, "sku": "S-3"})).status_code == 201

    await until(is_written)
