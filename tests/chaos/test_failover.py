"""The primary is killed five times under writers: nothing that was acknowledged is lost or untold.

Patroni with etcd, a synchronous standby and a spare one, by the files of `deploy/patroni`; a
`pricebook serve` of two processes and a worker. Just before it dies, its standbys hear nothing of it
for a moment: what is acknowledged then without them is lost for certain. What is killed is Patroni,
PostgreSQL and all its processes, as a host that fails takes them along; it comes back as a standby
before the next.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr
from tests import patroni
from tests.chaos.failover import EVENTS, Clients, Kept, Loss, Running, what_is_kept
from tests.chaos.leading import PASSWORD, WAYS, Way
from tests.faults.conftest import Backlog, eventually
from tests.patroni import Cluster, Member
from tests.receiver import Receiver, receiving

from pricebook.auth.service import open_session
from pricebook.core.database import Database, open_database
from pricebook.core.embedded import Valkey
from pricebook.core.embedded.server import _free_port
from pricebook.core.settings import Settings
from pricebook.serving import listen
from pricebook.users.models import User

pytestmark = pytest.mark.chaos

KILLS = 5
# The shortest that Patroni takes; the rest of a gap is to elect and to promote.
TTL_SECONDS = 20
LONGEST_GAP_SECONDS = TTL_SECONDS + 10
WRITERS, READERS = 8, 2
WRITES_BETWEEN = 300
DEAF_SECONDS = 0.5


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with patroni.cluster(ttl=TTL_SECONDS, loop_wait=2, retry_timeout=5) as made:
        made.run_sql(patroni.SHIPPED / "pricebook.sql", password=PASSWORD)
        yield made


@pytest.fixture
def way(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Way]:
    """How Pricebook finds who leads."""
    with WAYS[request.param](cluster) as way:
        yield way


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def env(way: Way, valkey: Valkey, tmp_path: Path) -> dict[str, str]:
    ours = {
        "REDIS_URL": valkey.url,
        "SECRET_KEY": "k" * 32,
        "DATA_DIR": str(tmp_path / "data"),
        "PORT": str(_free_port()),
        "PROCESSES": "2",
        "LIMITS__REQUESTS": "10000000",
        "WEBHOOKS__ALLOWED_NETWORKS": '["127.0.0.0/8"]',
    }
    ours |= {"DATABASE_URL": way.url, **way.settings}
    others = {name: value for name, value in os.environ.items() if "PRICEBOOK" not in name}
    return others | {f"PRICEBOOK_{name}": value for name, value in ours.items()}


@pytest.fixture
def started(way: Way, env: dict[str, str], tmp_path: Path) -> Iterator[list[Running]]:
    """The API and the worker, on a schema that `pricebook migrate` made."""
    directly = env | {"PRICEBOOK_DATABASE_URL": way.direct_url}
    subprocess.run([sys.executable, "-m", "pricebook.cli", "migrate"], check=True, env=directly)
    with ExitStack() as undo:
        running = [Running(verb, env, tmp_path / f"{verb}.log") for verb in ("serve", "worker")]
        for one in running:
            undo.callback(one.end)
            one.launch()
        yield running


async def token_of_an_admin(database: Database) -> str:
    async with database.sessions.begin() as session:
        user = User(email="a@example.com", name="A", role="admin", hashed_password="")
        session.add(user)
        await session.flush()
        return await open_session(session, user, address="127.0.0.1", user_agent="tests")


class Run:
    """Losses of whoever leads, one after another, and what clients see of them."""

    def __init__(self, cluster: Cluster, clients: Clients) -> None:
        self._cluster, self._clients = cluster, clients
        self._began = time.monotonic()

    async def lose_the_leader(self) -> Loss:
        await self._write_more()
        leader = await asyncio.to_thread(self._cluster.leader)
        assert leader
        with ExitStack() as deaf:
            for member in self._cluster.members:
                deaf.enter_context(member.hearing_nothing())
            await asyncio.sleep(DEAF_SECONDS)
            killed_at = time.monotonic()
            leader.kill_all()
        gap_seconds = await eventually(lambda: self._are_back(killed_at))
        leads = await asyncio.to_thread(self._cluster.leader)
        assert leads
        assert leads is not leader
        await self._bring_back(leader)
        return Loss(
            at_seconds=killed_at - self._began,
            killed=leader.name,
            leads=leads.name,
            gap_seconds=gap_seconds,
            whole_after_seconds=time.monotonic() - killed_at,
            written=self._clients.written,
            refused=self._clients.refused,
        )

    async def _write_more(self) -> None:
        enough = self._clients.written + WRITES_BETWEEN

        async def are_written() -> bool:
            return self._clients.written >= enough

        await eventually(are_written)

    async def _are_back(self, moment: float) -> bool:
        return self._clients.are_back_since(moment)

    async def _bring_back(self, member: Member) -> None:
        # From this thread, with which it would end.
        member.launch()
        what = f"{member.name} does not come back: {member.log}"
        await asyncio.to_thread(patroni.until, self._cluster.is_whole, 90, what)


@pytest.mark.parametrize("way", WAYS, indirect=True)
async def test_five_deaths_of_the_primary_lose_nothing_that_was_acknowledged(
    cluster: Cluster,
    way: Way,
    started: list[Running],
    env: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    receiver, losses = Receiver(), []
    settings = Settings(
        database_url=SecretStr(way.direct_url), redis_url=SecretStr(env["PRICEBOOK_REDIS_URL"])
    )
    async with (
        open_database(settings, "tests") as database,
        receiving(receiver, listen("127.0.0.1", 0)) as told,
        httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{env['PRICEBOOK_PORT']}",
            headers={"Authorization": f"Bearer {await token_of_an_admin(database)}"},
            timeout=60,
        ) as client,
    ):
        await eventually(lambda: is_ready(client))
        made = await client.post("/v1/webhooks", json={"url": f"{told}/a", "events": list(EVENTS)})
        assert made.status_code == 201, made.text
        clients = Clients(client, WRITERS, READERS)
        run = Run(cluster, clients)
        async with asyncio.TaskGroup() as writing:
            writing.create_task(clients.go_on())
            losses = [await run.lose_the_leader() for _ in range(KILLS)]
            clients.stop()
        await eventually(Backlog(database).is_gone)
        kept = await what_is_kept(database)
    with capsys.disabled():
        print("", *lines(way, losses, clients, kept, receiver), sep="\n")  # noqa: T201 -- it is run for the figures
    assert clients.surprises == []
    assert kept.prices.keys() == clients.acknowledged.keys()
    assert kept.lost(clients.acknowledged) == []
    assert receiver.taken["/a"].keys() == kept.events
    assert max(loss.gap_seconds for loss in losses) < LONGEST_GAP_SECONDS
    assert all(one.is_alive() for one in started)


async def is_ready(client: httpx2.AsyncClient) -> bool:
    try:
        return (await client.get("/health/ready")).status_code == 200
    except httpx2.TransportError:
        return False


def lines(losses: list[Loss], clients: Clients, kept: Kept, receiver: Receiver) -> Iterator[str]:
    yield f"{way.name}: ttl {TTL_SECONDS} s, {WRITERS} writers, {READERS} readers"
    yield from map(str, losses)
    lost = len(kept.lost(clients.acknowledged))
    yield f"  {clients.written:,} writes acknowledged, {lost} items lost any of them"
    told, twice = receiver.taken["/a"], receiver.taken["/a"].total() - len(receiver.taken["/a"])
    yield f"  {len(told):,} of {len(kept.events):,} events told, {twice:,} of them again"
    yield f"  answers: {dict(sorted(clients.statuses.items()))}"
