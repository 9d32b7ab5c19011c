"""Connections are lent in the order in which they were asked for."""

import asyncio

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import create_async_engine

from pricebook.core.fair_pool import FairPool


@pytest.fixture
async def engine(settings):
    url = settings.database_url.get_secret_value()
    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.2}
    made = create_async_engine(url, poolclass=FairPool, **options)
    yield made
    await made.dispose()


async def test_a_newcomer_does_not_overtake_those_who_wait(engine):
    served = []

    async def use(name):
        async with engine.connect():
            served.append(name)

    async with engine.connect():
        waiting = [asyncio.create_task(use(name)) for name in "abc"]
        await asyncio.sleep(0.02)
    # The connection is free, and nobody who waits has run since.
    await use("newcomer")
    await asyncio.gather(*waiting)
    assert served == ["a", "b", "c", "newcomer"]


async def test_whoever_gives_up_does_not_hold_up_the_others(engine):
    async def use():
        async with engine.connect():
            return True

    async with engine.connect():
        impatient = asyncio.create_task(use())
        await asyncio.sleep(0.02)
        patient = asyncio.create_task(use())
        await asyncio.sleep(0.02)
        impatient.cancel()
    assert await patient
    with pytest.raises(asyncio.CancelledError):
        await impatient
    async with engine.connect():
        with pytest.raises(PoolTimeoutError):
            await use()
    assert await use()
