"""A cluster that Patroni runs, a `pricebook serve` of two processes and a worker, and clients."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from pydantic import SecretStr
from tests import patroni
from tests.chaos.failover import EVENTS, Clients, Running
from tests.chaos.leading import PASSWORD, WAYS, Way
from tests.faults.conftest import Backlog, eventually
from tests.patroni import Cluster, Member
from tests.receiver import Receiver, receiving
from tests.tools import free_port

from pricebook.auth.service import open_session
from pricebook.core.database import Database, open_database
from pricebook.core.embedded import Valkey
from pricebook.core.settings import Settings
from pricebook.serving import listen
from pricebook.users.models import User

# The shortest that Patroni takes.
TTL_SECONDS, LOOP_SECONDS, RETRY_SECONDS = 20, 2, 5
WRITERS, READERS = 8, 2
_WRITES_BETWEEN = 300


@dataclass(frozen=True)
class Stage:
    """What there is to lose, and who notices."""

    way: Way
    cluster: Cluster
    database: Database
    clients: Clients
    receiver: Receiver
    processes: list[Running]

    @asynccontextmanager
    async def clients_at_work(self) -> AsyncIterator[None]:
        """Let clients write and read meanwhile, and each event be told before the end."""
        async with asyncio.TaskGroup() as writing:
            writing.create_task(self.clients.go_on())
            yield
            self.clients.stop()
        await eventually(Backlog(self.database).is_gone)

    async def some_writes(self) -> None:
        """Wait until clients have got on."""
        enough = self.clients.written + _WRITES_BETWEEN
        await holds(lambda: self.clients.written >= enough)

    async def gap_seconds(self, began: float) -> float:
        """Wait for each writer to be told of a write that it began later; return how long."""
        await holds(lambda: self.clients.are_back_since(began))
        return time.monotonic() - began

    async def leader(self) -> Member:
        found = await asyncio.to_thread(self.cluster.leader)
        assert found
        return found

    async def bring_back(self, member: Member) -> None:
        """Start it again, and wait until everyone follows whoever leads."""
        # From this thread, with which it would end.
        member.launch()
        await self.is_whole(f"{member.name} does not come back: {member.log}")

    async def is_whole(self, otherwise: str) -> None:
        await asyncio.to_thread(patroni.until, self.cluster.is_whole, 90, otherwise)


async def holds(condition: Callable[[], bool]) -> None:
    async def does() -> bool:
        return condition()

    await eventually(does)


@asynccontextmanager
async def stage(name: str, folder: Path) -> AsyncIterator[Stage]:
    """Set it up on one of the ways to find a primary; logs go to `folder`."""
    dcs = {"ttl": TTL_SECONDS, "loop_wait": LOOP_SECONDS, "retry_timeout": RETRY_SECONDS}
    receiver = Receiver()
    with patroni.cluster(**dcs) as cluster, ExitStack() as undo:
        undo.callback(lambda: [shutil.copy(log, folder) for log in cluster.folder.glob("*.log")])
        cluster.run_sql(patroni.SHIPPED / "pricebook.sql", password=PASSWORD)
        with WAYS[name](cluster) as way, _running(way, folder) as (env, processes):
            settings = Settings(
                database_url=SecretStr(way.direct_url),
                redis_url=SecretStr(env["PRICEBOOK_REDIS_URL"]),
            )
            async with (
                open_database(settings, "tests") as database,
                receiving(receiver, listen("127.0.0.1", 0)) as told,
                httpx2.AsyncClient(
                    base_url=f"http://127.0.0.1:{env['PRICEBOOK_PORT']}",
                    headers={"Authorization": f"Bearer {await _token_of_an_admin(database)}"},
                    timeout=60,
                ) as client,
            ):
                await _subscribe(client, f"{told}/a")
                clients = Clients(client, WRITERS, READERS)
                yield Stage(way, cluster, database, clients, receiver, processes)


@contextmanager
def _running(way: Way, folder: Path) -> Iterator[tuple[dict[str, str], list[Running]]]:
    """Run API and worker on a schema that `pricebook migrate` made."""
    valkey = Valkey(folder)
    with ExitStack() as undo:
        valkey.start()
        undo.callback(valkey.stop)
        env = _environment(way, valkey, folder)
        command = [sys.executable, "-m", "pricebook.cli", "migrate"]
        subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)
        processes = [Running(verb, env, folder / f"{verb}.log") for verb in ("serve", "worker")]
        for process in processes:
            undo.callback(process.end)
            process.launch()
        yield env, processes


def _environment(way: Way, valkey: Valkey, folder: Path) -> dict[str, str]:
    ours = {
        "DATABASE_URL": way.url,
        "REDIS_URL": valkey.url,
        "SECRET_KEY": "k" * 32,
        "DATA_DIR": str(folder / "data"),
        "PORT": str(free_port()),
        "PROCESSES": "2",
        "LIMITS__REQUESTS": "10000000",
        "WEBHOOKS__ALLOWED_NETWORKS": '["127.0.0.0/8"]',
        **way.settings,
    }
    others = {name: value for name, value in os.environ.items() if "PRICEBOOK" not in name}
    return others | {f"PRICEBOOK_{name}": value for name, value in ours.items()}


async def _token_of_an_admin(database: Database) -> str:
    async with database.sessions.begin() as session:
        user = User(email="a@example.com", name="A", role="admin", hashed_password="")
        session.add(user)
        await session.flush()
        return await open_session(session, user, address="127.0.0.1", user_agent="tests")


async def _subscribe(client: httpx2.AsyncClient, url: str) -> None:
    async def is_ready() -> bool:
        try:
            return (await client.get("/health/ready")).status_code == 200
        except httpx2.TransportError:
            return False

    await eventually(is_ready)
    made = await client.post("/v1/webhooks", json={"url": url, "events": list(EVENTS)})
    assert made.status_code == 201, made.text
