"""A writer always reads its own write, over any process; others read what a replica has."""

import asyncio
import itertools
import time

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from tests.faults.conftest import start, valkey
from tests.processes import ForkedApi
from tests.replica.pairs import Pairs

LAG_SECONDS = 5

__all__ = ["start", "valkey"]


@pytest.fixture
async def two(both, tokens, primary_database, start, valkey):
    """Two API processes, items that the replica knows, and a replica that lags by 5 s."""
    ours = both.model_copy(update={"redis_url": SecretStr(valkey.url)})
    processes = [start(ForkedApi, ours) for _ in range(2)]
    found = Pairs([process.url for process in processes], tokens["editor"], tokens["viewer"])
    await found.make_items(4)
    await asyncio.sleep(1)
    return found, processes, valkey


async def trouble(found, processes, valkey, end, every):
    """Kill one process after the other, and empty Valkey, for as long as there is work."""
    victims = itertools.cycle(processes)
    async with Redis.from_url(valkey.url) as client:
        while found.goes_on(end - every):
            await asyncio.sleep(every)
            await client.flushall()
            victim = next(victims)
            await asyncio.to_thread(victim.kill)
            victim.start()


async def work(two, standby, seconds, every, least=10):
    found, processes, valkey = two
    found.least = least
    standby.delay(f"{LAG_SECONDS}s")
    async with asyncio.timeout(seconds + 300):
        end = time.monotonic() + seconds
        await asyncio.gather(found.run(seconds), trouble(found, processes, valkey, end, every))
    print(  # noqa: T201 -- the share is to be shown
        f"{found.pairs:,} writes read at once, {len(found.stale)} stale; of {found.others:,} reads "
        f"by others {found.share:.0%} came from the replica; {found.broken_off} requests broken "
        f"off; slowest {found.slowest_seconds:.2f} s"
    )
    assert found.stale == []
    assert found.surprises == []
    return found


async def test_a_writer_reads_its_own_write_and_others_read_from_the_replica(two, standby):
    found = await work(two, standby, seconds=5, every=2)
    assert found.share > 0.1
