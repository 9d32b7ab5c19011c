"""The pool of snapshots: its bound, its idle connections, and blocks as large as pays."""

from contextlib import aclosing

import pytest
from sqlalchemy import func, literal, select
from tests.conftest import connected, until

from pricebook.core.reading import Compiled
from pricebook.core.snapshots import SnapshotPool, TooManySnapshots

ROWS = 10_000


def lines_of(length):
    """Select so many lines of one length, their ends included."""
    return Compiled(
        select(func.rpad("", length - 1, literal("x")) + "\n").select_from(
            func.generate_series(1, ROWS)
        )
    )


@pytest.fixture
def pool(settings, database):
    made = SnapshotPool(settings, "tests-snapshots", 2)
    yield made
    made.close()


@pytest.fixture
def others(urls, worker_name):
    """Do something about the pool's connections from outside, and return what is found."""

    async def run(what):
        async with connected(urls[f"database_{worker_name}"]) as connection:
            sql = f"SELECT {what} FROM pg_stat_activity WHERE application_name = 'tests-snapshots'"
            return [row[0] for row in await connection.fetch(sql)]

    return run


async def read(pool, length=100):
    async with pool.snapshot() as snapshot:
        blocks = [block async for block in snapshot.blocks(lines_of(length), {})]
    assert snapshot.rows == ROWS
    assert b"".join(blocks) == (b"x" * (length - 1) + b"\n") * ROWS
    return blocks


async def test_blocks_are_smaller_while_others_wait_for_their_answers(settings, pool):
    busy = SnapshotPool(settings, "tests-snapshots", 1, is_busy=lambda: True)
    # The first one is small in any case.
    large, small = (await read(pool))[1:], (await read(busy))[1:]
    busy.close()
    assert max(map(len, small)) <= 64 * 1024 < max(map(len, large)) <= 512 * 1024


async def test_no_more_snapshots_than_its_size(pool):
    async with pool.snapshot(), pool.snapshot():
        with pytest.raises(TooManySnapshots):
            await read(pool)
    await read(pool)


async def test_a_connection_serves_again(pool, others):
    for _ in range(3):
        await read(pool)
    assert await others("state") == ["idle"]


async def test_a_connection_that_was_closed_while_idle_is_replaced(pool, others):
    async with pool.snapshot(), pool.snapshot():
        pass
    assert await others("pg_terminate_backend(pid)") == [True, True]
    await read(pool)


async def fail_midway(pool):
    async with (
        pool.snapshot() as snapshot,
        aclosing(snapshot.blocks(lines_of(1_000), {})) as blocks,
    ):
        await anext(blocks)
        raise RuntimeError


async def test_whoever_breaks_off_leaves_no_transaction(pool, others):
    async def is_gone():
        return not await others("state")

    async with pool.snapshot() as snapshot:
        async for _ in snapshot.blocks(lines_of(1_000), {}):
            break
    await until(is_gone)
    with pytest.raises(RuntimeError):
        await fail_midway(pool)
    await until(is_gone)
    await read(pool)


@pytest.mark.parametrize("length", [10, 250, 20_000])
async def test_blocks_are_bounded_however_long_the_lines_are(pool, length):
    first, ahead, *others = map(len, await read(pool, length))
    # How long lines are is known after the first of them.
    assert first == ahead == 200 * length
    assert max(others) <= 512 * 1024
    assert len(others) <= 1 + ROWS * length // (256 * 1024) + ROWS // 5_000


async def test_nothing_can_be_written_in_a_snapshot(pool):
    async with pool.snapshot() as snapshot:
        shown = [await snapshot.value(setting(name), {}) for name in ("isolation", "read_only")]
    assert shown == ["repeatable read", "on"]


def setting(name):
    return Compiled(select(func.current_setting(f"transaction_{name}")))
