"""Downloads read from a replica, and hold what had been answered before they were asked for."""

import asyncio
import os
import signal
from types import SimpleNamespace

import pytest
from sqlalchemy import func, select
from tests.conftest import Api, connected, until
from tests.exports.conftest import serving
from tests.replica.conftest import HAMMER

from pricebook.core.reading import Compiled
from pricebook.core.replica_snapshots import ReplicaFailedError
from pricebook.exports.tasks import _snapshot

MANY = 1_500
IS_STANDBY = Compiled(select(func.pg_is_in_recovery()))


@pytest.fixture
async def many(primary, primary_database):
    """More than the buffers of a connection hold, on both servers."""
    async with connected(primary.url) as connection:
        await connection.execute(
            "INSERT INTO items (sku, name, notes, price, currency)"
            " SELECT 'SKU-' || n, 'Hammer', repeat('x', 5000), 12.5, 'EUR'"
            f" FROM generate_series(1, {MANY}) AS n"
        )


@pytest.fixture
async def server(both, tokens):
    """A process that serves over the wire; its readers show what is cut off."""
    async with serving(both.model_copy(update={"stop_seconds": 4}), Api(None, tokens)) as served:
        await until(lambda: not served.app.state.replica.is_late)
        yield served


EDITOR = SimpleNamespace(id="editor")


async def exported(till, name="editor"):
    reply, source = await till.as_(name).reads("/v1/exports/items.csv")
    assert reply.status_code == 200
    return reply.text, source


async def test_a_writer_exports_from_the_replica_what_it_has_just_written(till):
    for number in range(20):
        sku = f"JUST-{number}"
        reply = await till.as_("editor").post("/v1/items", json=HAMMER | {"sku": sku})
        assert reply.status_code == 201
        text, source = await exported(till)
        assert f'"{sku}"' in text
        assert source == "replica"


async def test_an_export_waits_for_a_replica_that_is_a_little_late(till, standby):
    standby.delay("300ms")
    for number in range(3):
        sku = f"JUST-{number}"
        await till.as_("editor").post("/v1/items", json=HAMMER | {"sku": sku})
        assert f'"{sku}"' in (await exported(till))[0]


async def test_a_lagging_replica_delays_no_export_and_takes_nothing_from_it(till, standby):
    standby.delay("5s")
    began = asyncio.get_running_loop().time()
    for number in range(3):
        sku = f"JUST-{number}"
        await till.as_("editor").post("/v1/items", json=HAMMER | {"sku": sku})
        text, source = await exported(till)
        assert f'"{sku}"' in text
        assert source in {"late", "failed"}
    assert asyncio.get_running_loop().time() - began < 4


async def test_an_export_whose_replica_dies_midway_is_cut_off(many, server, standby):
    reader = await server.export(EDITOR)
    assert reader.status == 200
    await reader.read_chunk()
    assert server.app.state.downloads.pool.primary.in_use == 0
    os.kill(standby.pid, signal.SIGKILL)
    await reader.read()
    assert not reader.is_whole
    assert reader.trailers == {}
    await asyncio.to_thread(standby.stop)
    again = await (await server.export(EDITOR)).read()
    assert again.is_whole
    assert again.trailers == {"x-row-count": str(MANY)}


async def test_an_export_whose_replica_freezes_midway_is_cut_off_soon(many, server, standby):
    reader = await server.export(EDITOR)
    await reader.read_chunk()
    standby.freeze()
    try:
        async with asyncio.timeout(5):
            await reader.read()
        assert not reader.is_whole
        assert (await (await server.export(EDITOR)).read()).is_whole
    finally:
        standby.thaw()


async def test_one_that_cannot_begin_there_begins_on_the_primary(many, server, standby):
    """The process does not know yet that the replica is gone."""
    server.app.state.replica.can_catch_up_within = lambda _seconds: True
    standby.stop()
    assert (await (await server.export(EDITOR)).read()).is_whole


async def test_no_more_downloads_at_once_wherever_they_are_read(many, both, tokens):
    few = both.exports.model_copy(update={"at_once": 1})
    ours = both.model_copy(update={"exports": few, "stop_seconds": 4})
    async with serving(ours, Api(None, tokens)) as served:
        await until(lambda: not served.app.state.replica.is_late)
        reader = await served.export(EDITOR)
        assert (reader.status, (await served.export(EDITOR)).status) == (200, 503)


async def test_files_are_made_from_the_replica_or_else_from_the_primary(
    both, primary_database, standby
):
    async def is_standby(**options):
        async with _snapshot(both, primary_database.reads, **options) as snapshot:
            return await snapshot.value(IS_STANDBY, {})

    assert await is_standby(on_primary=False)
    assert not await is_standby(on_primary=True)
    standby.freeze()
    try:
        async with asyncio.timeout(5):
            with pytest.raises(ReplicaFailedError):
                await is_standby(on_primary=False)
    finally:
        standby.thaw()
