"""Whatever befalls the replica, no read fails, none waits for long, and it is read again after."""

import asyncio
import os
import signal
import time

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy import column, func, select, table
from tests.conftest import asyncpg_url, connected, until
from tests.replica.conftest import HAMMER

from pricebook.core.mendable import MendableError
from pricebook.core.reading import Compiled
from pricebook.core.replica_check import look_at_replicas
from pricebook.items.models import Item

LONGEST_SECONDS = 2.5
_COUNT = Compiled(select(func.count()).select_from(Item))


async def read_for(till, seconds):
    """Read as a viewer would, eight at a time; return the slowest and the reasons."""
    slowest = 0.0
    end = time.monotonic() + seconds

    async def read():
        nonlocal slowest
        while time.monotonic() < end:
            began = time.monotonic()
            reply = await till.as_("viewer").get("/v1/items")
            assert reply.status_code == 200, reply.text
            slowest = max(slowest, time.monotonic() - began)
            await asyncio.sleep(0.005)

    await asyncio.gather(*(read() for _ in range(8)))
    return slowest


@pytest.mark.parametrize("death", [signal.SIGINT, signal.SIGKILL])
async def test_it_ends_and_comes_back(death, till, standby):
    reading = asyncio.create_task(read_for(till, 1))
    await asyncio.sleep(0.3)
    os.kill(standby.pid, death)
    assert await reading < LONGEST_SECONDS
    assert till.replica.is_late
    health = (await till.get("/health/ready")).json()
    (part,) = (part for part in health["parts"] if part["name"] == "replica")
    assert (part["status"], part["is_critical"]) == ("failing", False)
    assert health["status"] == "ok"
    await asyncio.to_thread(standby.stop)
    standby.start()
    await till.is_followed()
    assert (await till.as_("viewer").reads("/v1/items"))[1] == "replica"


async def test_it_freezes(till, standby):
    """Connections stay, and nobody answers."""
    await read_for(till, 0.2)
    standby.freeze()
    try:
        assert await read_for(till, 1.5) < LONGEST_SECONDS
        assert till.replica.complaint
        # From then on nobody waits for it at all.
        assert await read_for(till, 0.3) < 1
    finally:
        standby.thaw()
    await till.is_followed()
    assert (await till.as_("viewer").reads("/v1/items"))[1] == "replica"


async def test_it_is_promoted(till, standby, both):
    await read_for(till, 0.2)
    standby.promote()
    await until(lambda: till.replica.is_late)
    assert "promoted" in till.replica.in_words()
    # What is written there is of another history, and nobody here is told of it.
    async with connected(standby.url) as connection:
        await connection.execute(
            "INSERT INTO items (sku, name, price, currency) VALUES ('ELSE-1', 'Other', 1, 'EUR')"
        )
    for _ in range(3):
        assert (await till.as_("viewer").get("/v1/items/by-sku/ELSE-1")).status_code == 404
        await asyncio.sleep(0.3)
    with pytest.raises(MendableError, match="promoted"):
        await look_at_replicas(both)


async def test_the_primary_or_another_cluster_is_not_taken_for_a_replica(
    both, serve, primary, urls, worker_name
):
    strangers = {primary.url: "is the primary itself"}
    strangers[urls[f"database_{worker_name}"]] = "another database cluster"
    for url, complaint in strangers.items():
        wrong = both.model_copy(update={"database_replica_url": SecretStr(asyncpg_url(url))})
        client = await serve(wrong)
        await until(lambda known=client.replica, said=complaint: said in known.in_words())
        assert (await client.as_("viewer").reads("/v1/items"))[1] == "away"


async def test_a_read_that_stands_in_the_way_of_replaying_is_read_again(till, standby, primary):
    standby.configure(max_standby_streaming_delay="50ms")
    held = Compiled(select(func.pg_sleep(1)).select_from(Item.__table__.alias()).limit(1))
    await till.as_("editor").post("/v1/items", json=HAMMER)
    await until(lambda: till.replica.reads().value(_COUNT))
    reading = asyncio.create_task(till.replica.reads().rows(held))
    await asyncio.sleep(0.3)
    async with connected(primary.url) as connection:
        # What locks a table is replayed as a lock, and a reader holds it up.
        await connection.execute("BEGIN; LOCK TABLE items IN ACCESS EXCLUSIVE MODE; COMMIT")
    assert len(await reading) == 1
    assert till.replica.counts.primary["conflict"] == 1
    standby.configure(max_standby_streaming_delay="30s")


async def test_more_readers_than_connections_read_from_the_primary(till):
    slow = Compiled(select(func.pg_sleep(0.5)))
    pool = till.replica.reads()
    await asyncio.gather(*(pool.rows(slow) for _ in range(12)))
    assert till.replica.counts.primary["full"] == 4


async def test_a_replica_that_has_not_heard_of_a_table_yet_fails_no_read(till, standby, primary):
    """New code runs as soon as the primary is migrated."""
    standby.delay("1min")
    statement = Compiled(select(column("number")).select_from(table("fresh")))
    async with connected(primary.url) as connection:
        await connection.execute("CREATE TABLE fresh AS SELECT 7 AS number")
        try:
            assert await till.replica.reads().value(statement) == 7
        finally:
            await connection.execute("DROP TABLE fresh")
    assert till.replica.counts.primary["failed"] == 1


async def test_a_read_that_runs_out_of_its_time_is_not_given_it_twice(both, serve):
    short = both.database.model_copy(update={"statement_timeout_seconds": 0.2})
    client = await serve(both.model_copy(update={"database": short}))
    await client.is_followed()
    with pytest.raises(asyncpg.QueryCanceledError):
        await client.replica.reads().value(Compiled(select(func.pg_sleep(5))))
    assert not client.replica.counts.primary


async def test_of_several_hosts_one_that_is_well_is_read(both, serve, standby):
    several = standby.url.replace("@127.0.0.1:", "@127.0.0.1:1,127.0.0.1:")
    client = await serve(
        both.model_copy(update={"database_replica_url": SecretStr(asyncpg_url(several))})
    )
    await client.is_followed()
    assert (await client.as_("viewer").reads("/v1/items"))[1] == "replica"


async def test_doctor_says_how_the_replica_is_doing(both, standby):
    assert (await look_at_replicas(both)).startswith("1 can be read, ")
    standby.stop()
    with pytest.raises(MendableError, match="PRICEBOOK_DATABASE_REPLICA_URL"):
        await look_at_replicas(both)
