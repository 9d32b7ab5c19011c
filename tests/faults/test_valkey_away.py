"""Valkey holds no truth: without it everything goes on, and with its return nothing is behind."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator

import httpx2
import pytest
from redis.asyncio import Redis
from tests.faults.conftest import add_endpoint, eventually
from tests.processes import ForkedApi


@pytest.fixture
async def client(for_delivery, api, editor, start) -> AsyncIterator[httpx2.AsyncClient]:
    """An editor who talks to an API process."""
    server = start(ForkedApi, for_delivery)
    headers = {"Authorization": f"Bearer {api.tokens[editor.id]}"}
    async with httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=5) as opened:
        yield opened


class Freeze:
    """It answers nothing, and connections to it stay open."""

    @staticmethod
    def begin(valkey):
        os.kill(valkey.pid, signal.SIGSTOP)

    @staticmethod
    def end(valkey):
        os.kill(valkey.pid, signal.SIGCONT)


class Death:
    """It is gone with all it knew, and comes back empty."""

    @staticmethod
    def begin(valkey):
        os.kill(valkey.pid, signal.SIGKILL)

    @staticmethod
    def end(valkey):
        valkey.start()


@pytest.mark.parametrize(("outage", "seconds"), [(Freeze, 20), (Death, 8)])
async def test_an_outage_of_valkey_stops_nothing(
    outage, seconds, client, run_worker, receive, session, for_delivery, valkey, backlog
):
    receiver, url = await receive()
    await add_endpoint(session, for_delivery, f"{url}/a")
    worker = run_worker()
    written: list[str] = []

    async def write() -> None:
        new = {"sku": f"AWAY-{len(written)}", "name": "Hammer", "price": "1", "currency": "EUR"}
        made = await client.post("/v1/items", json=new)
        assert made.status_code == 201, made.text
        read = await client.get(f"/v1/items/{made.json()['id']}")
        assert read.status_code == 200, read.text
        gone = await client.delete(f"/v1/items/{made.json()['id']}")
        assert gone.status_code == 204, gone.text
        written.append(made.json()["id"])

    async def is_told():
        return len(receiver.taken["/a"]) == len(written) > 0

    await write()
    await eventually(is_told)
    outage.begin(valkey)
    try:
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            await write()
            await asyncio.sleep(0.1)
        # The worker looks for work by itself, so even now little is behind.
        assert len(receiver.taken["/a"]) > len(written) / 2
    finally:
        outage.end(valkey)
    await write()
    await eventually(is_told, 10)
    await eventually(backlog.is_gone, 10)
    assert worker.is_alive()
    async with Redis.from_url(valkey.url) as queue:
        # The hints work again, and arq's own clock does.
        await eventually(lambda: queue.exists("arq:queue:health-check"))
