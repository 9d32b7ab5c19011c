"""The primary is killed five times under writers: nothing that was acknowledged is lost or untold.

Just before it dies, its standbys stop taking in what it sends for a moment, so that writes are
under way. What is killed is Patroni, PostgreSQL and all its processes, as the loss of a host takes
them along; it comes back as a standby before the next. All runs as `deploy/patroni` and
`deploy/pgbouncer` have it, but for a ttl that is as short as Patroni takes it.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
from tests.chaos.failover import Kept, Loss, what_is_kept
from tests.chaos.leading import WAYS
from tests.chaos.stage import (
    LOOP_SECONDS,
    READERS,
    RETRY_SECONDS,
    TTL_SECONDS,
    WRITERS,
    Stage,
    holds,
    stage,
)

pytestmark = pytest.mark.chaos

KILLS = 5
DEAF_SECONDS = 0.5
# What comes on top of the ttl: to elect, to promote, to be found.
LONGEST_GAP_SECONDS = TTL_SECONDS + 10


async def lose_the_leader(on: Stage, began: float) -> Loss:
    """Kill whoever leads, wait for all to go on, and have it come back."""
    await on.some_writes()
    leader = await on.leader()
    with ExitStack() as deaf:
        for member in on.cluster.members:
            deaf.enter_context(member.hearing_nothing())
        await asyncio.sleep(DEAF_SECONDS)
        killed_at = time.monotonic()
        leader.kill_all()
    gap_seconds = await on.gap_seconds(killed_at)
    leads = await on.leader()
    assert leads is not leader
    await on.bring_back(leader)
    return Loss(
        at_seconds=killed_at - began,
        killed=leader.name,
        leads=leads.name,
        gap_seconds=gap_seconds,
        whole_after_seconds=time.monotonic() - killed_at,
        written=on.clients.written,
        refused=on.clients.refused,
    )


@pytest.mark.parametrize("way", WAYS)
async def test_five_deaths_of_the_primary_lose_nothing_that_was_acknowledged(
    way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stage(way, tmp_path) as on:
        began = time.monotonic()
        async with on.clients_at_work():
            losses = [await lose_the_leader(on, began) for _ in range(KILLS)]
        kept = await what_is_kept(on.database)
        are_alive = [process.is_alive() for process in on.processes]
    with capsys.disabled():
        print("", *lines(on, losses, kept), sep="\n")  # noqa: T201 -- it is run for the figures
    assert on.clients.surprises == []
    assert kept.prices.keys() == on.clients.acknowledged.keys()
    assert kept.lost(on.clients.acknowledged) == []
    assert on.receiver.taken["/a"].keys() == kept.events
    assert max(loss.gap_seconds for loss in losses) < LONGEST_GAP_SECONDS
    assert all(are_alive)


def lines(on: Stage, losses: list[Loss], kept: Kept) -> Iterator[str]:
    clients, told = on.clients, on.receiver.taken["/a"]
    yield f"{on.way.name}: ttl {TTL_SECONDS} s, {WRITERS} writers, {READERS} readers"
    yield from map(str, losses)
    lost = len(kept.lost(clients.acknowledged))
    yield f"  {clients.written:,} writes acknowledged, {lost} items lost any of them"
    again = told.total() - len(told)
    yield f"  {len(told):,} of {len(kept.events):,} events told, {again:,} of them again"
    yield f"  answers: {dict(sorted(clients.statuses.items()))}"


async def test_a_standby_etcd_or_a_leader_that_is_asked_to_leave_costs_what_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stage("haproxy", tmp_path) as on:
        async with on.clients_at_work():
            await on.some_writes()
            standby, refused = on.cluster.synchronous(), on.clients.refused
            on.clients.longest_seconds = 0
            standby.kill_all()
            await on.some_writes()
            without_standby = on.clients.longest_seconds
            refused_without_standby = on.clients.refused - refused
            await on.bring_back(standby)
            await on.some_writes()

            refused = on.clients.refused
            on.cluster.etcd.kill()
            assert on.cluster.etcd.has_stopped(5)
            await asyncio.sleep(TTL_SECONDS + RETRY_SECONDS)
            refused_without_etcd = on.clients.refused - refused
            on.cluster.etcd.launch()
            await holds(on.cluster.etcd.is_ready)
            await on.some_writes()

            leader, on.clients.longest_seconds = await on.leader(), 0
            await switch_over(leader.rest_port, leader.name)
            await on.gap_seconds(time.monotonic())
            switched = on.clients.longest_seconds
            assert await on.leader() is not leader
            await on.is_whole("the former leader does not follow")
            await on.some_writes()
        kept = await what_is_kept(on.database)
    with capsys.disabled():
        print(  # noqa: T201 -- it is run for the figures
            f"\nsynchronous standby killed: the longest write took {without_standby:.1f} s, "
            f"{refused_without_standby} times 503; etcd away: {refused_without_etcd} times 503; "
            f"switched over: the longest write took {switched:.1f} s, with its repeats"
        )
    assert on.clients.surprises == []
    assert kept.lost(on.clients.acknowledged) == []
    assert on.receiver.taken["/a"].keys() == kept.events
    assert refused_without_standby == refused_without_etcd == 0
    assert without_standby < LOOP_SECONDS + 5
    assert switched < TTL_SECONDS


async def switch_over(port: int, leader: str) -> None:
    """Ask Patroni for another leader, as `patronictl switchover` does."""
    async with httpx2.AsyncClient(auth=("patroni", "change-me-restapi"), timeout=60) as client:
        reply = await client.post(f"http://127.0.0.1:{port}/switchover", json={"leader": leader})
    assert reply.status_code == 200, reply.text
