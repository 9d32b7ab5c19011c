"""Each migration is applied while the version before works, and both versions work on after it."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import pytest
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from tests.benchmarks.data import COLUMNS, ROWS
from tests.conftest import ROOT
from tests.receiver import ForkedReceiver
from tests.tools import free_port

from pricebook.core.embedded import Postgres, Valkey
from pricebook.core.migrating import migrate
from pricebook.core.schema_head import alembic_config
from pricebook.core.settings import Settings
from pricebook.webhooks.events import NEVER_TOLD

pytestmark = pytest.mark.chaos

ITEMS = 100_000
CLIENTS = 4
BESIDE_SECONDS = 5
EXPORT_EVERY_SECONDS = 0.5
EMAIL, PASSWORD = "admin@example.com", "an old map of the harbour"
WAY = [one.revision for one in ScriptDirectory.from_config(alembic_config()).walk_revisions()][::-1]
# It holds the table for longer than anyone waits for it.
BAD = "ALTER TABLE items ADD COLUMN colour text; SELECT pg_sleep(8)"
WEBHOOKS, EXPORT = "/v1/webhooks", "/v1/exports/items.csv"
TOLD = "SELECT id::text FROM events WHERE occurred_at > $1 AND type <> ALL($2)"
TO_TELL = """
    SELECT (SELECT count(*) FROM events WHERE expanded_at IS NULL)
        + (SELECT count(*) FROM webhook_deliveries WHERE status = 'pending')
"""
UNTOLD = "SELECT count(*) FROM webhook_deliveries WHERE status <> 'delivered'"
FAILED = "SELECT count(*) FROM webhook_attempts WHERE status_code IS DISTINCT FROM 200"


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def code(tmp_path: Path) -> Callable[[str], Path]:
    """Lay out the code whose head is a revision: as it was before the next one came."""
    assert git("rev-parse", "--is-shallow-repository") == "false", "it needs the whole history"

    def lay_out(head: str) -> Path:
        if head == WAY[-1]:
            return ROOT
        following = WAY[WAY.index(head) + 1]
        pattern = f"migrations/versions/*_{following}_*"
        came = git("log", "--diff-filter=A", "--format=%h", "--", pattern).splitlines()[-1]
        folder = tmp_path / f"code-{head}"
        folder.mkdir()
        packed = folder / "code.tar"
        git("archive", f"--output={packed}", f"{came}^", "src", "migrations")
        shutil.unpack_archive(packed, folder)
        return folder

    return lay_out


@dataclass
class Version:
    """The processes of one version of the code."""

    code: Path
    env: dict[str, str]
    stack: ExitStack
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    port: int = 0

    def command(self, *arguments: str) -> dict[str, Any]:
        return {
            "args": [sys.executable, "-m", "pricebook.cli", *arguments],
            "cwd": self.code,
            "env": self.env | {"PYTHONPATH": str(self.code / "src")},
        }

    def start(self, name: str) -> None:
        """Start its API and its worker."""
        self.port = free_port()
        self.env["PRICEBOOK_PORT"] = str(self.port)
        for verb in ("serve", "worker"):
            log = self.stack.enter_context((self.log_folder / f"{name}-{verb}.log").open("wb"))
            process = subprocess.Popen(**self.command(verb), stdout=log, stderr=log)
            self.stack.callback(_end, process)
            self.processes.append(process)

    @property
    def log_folder(self) -> Path:
        return Path(self.env["PRICEBOOK_DATA_DIR"])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serves(self) -> None:
        async with asyncio.timeout(60), httpx2.AsyncClient() as client:
            while True:
                try:
                    reply = await client.get(f"{self.url}/ping")
                except httpx2.TransportError:
                    await asyncio.sleep(0.1)
                    continue
                assert reply.text == "pong"
                return

    def stop(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(20) for process in self.processes] == [0, 0]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


@dataclass
class Load:
    """Clients of both versions, and what they were answered."""

    ids: list[str]
    token: str
    answers: list[float] = field(default_factory=list)
    """How long each answer took, in seconds."""
    refusals: list[str] = field(default_factory=list)
    made: int = 0
    exports: list[tuple[int, int]] = field(default_factory=list)
    """How many rows each had, and how many it was to have."""
    told_since: datetime | None = None
    """From when on every event is to reach the receiver."""

    @asynccontextmanager
    async def on(self, version: Version) -> AsyncIterator[None]:
        enough = asyncio.Event()
        headers = {"Authorization": f"Bearer {self.token}"}
        async with httpx2.AsyncClient(base_url=version.url, headers=headers, timeout=30) as client:
            working = [
                asyncio.create_task(self._work(client, enough, number)) for number in range(CLIENTS)
            ]
            if EXPORT in await offered(client):
                working.append(asyncio.create_task(self._keep_exporting(client, enough)))
            try:
                yield
            finally:
                enough.set()
                await asyncio.gather(*working)

    async def _work(self, client: httpx2.AsyncClient, enough: asyncio.Event, worker: int) -> None:
        turn = worker
        while not enough.is_set():
            turn += CLIENTS
            item = f"/v1/items/{self.ids[turn % len(self.ids)]}"
            await self._ask(client, "GET", item)
            await self._ask(client, "GET", f"/v1/items?limit=50&q=hammer {turn % 900}")
            await self._ask(client, "PATCH", item, {"price": f"{turn % 1000}.50"})
            new = {"sku": f"NEW-{uuid4().hex}", "name": "Rope", "price": "1", "currency": "EUR"}
            status = await self._ask(client, "POST", "/v1/items", new)
            self.made += status == 201

    async def _keep_exporting(self, client: httpx2.AsyncClient, enough: asyncio.Event) -> None:
        while not enough.is_set():
            async with client.stream("GET", EXPORT, params={"count": "exact"}) as reply:
                lines = [chunk.count(b"\r\n") async for chunk in reply.aiter_bytes()]
            if reply.status_code == 200:
                self.exports.append((sum(lines) - 1, int(reply.headers["X-Total-Count"])))
            else:
                self.refusals.append(f"GET {EXPORT}: {reply.status_code}")
            await asyncio.sleep(EXPORT_EVERY_SECONDS)

    async def tell(self, settings: Settings, version: Version, url: str) -> None:
        """Have a receiver told of everything, by a version that knows of webhooks."""
        headers = {"Authorization": f"Bearer {self.token}"}
        async with httpx2.AsyncClient(base_url=version.url, headers=headers) as client:
            if self.told_since or WEBHOOKS not in await offered(client):
                return
            reply = await client.post(WEBHOOKS, json={"url": url})
            assert reply.status_code == 201, reply.text
        async with on_database(settings) as connection:
            self.told_since = await connection.fetchval("SELECT clock_timestamp()")

    async def _ask(
        self, client: httpx2.AsyncClient, method: str, path: str, body: Any = None
    ) -> int:
        began = time.monotonic()
        reply = await client.request(method, path, json=body)
        self.answers.append(time.monotonic() - began)
        if reply.status_code >= 400:
            self.refusals.append(f"{method} {path}: {reply.status_code} {reply.text[:200]}")
        return reply.status_code

    def p99_milliseconds(self) -> float:
        return 1000 * sorted(self.answers)[int(0.99 * len(self.answers))]


async def offered(client: httpx2.AsyncClient) -> set[str]:
    """Return the paths that a version serves."""
    return set((await client.get("/openapi.json")).json()["paths"])


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Settings]:
    folder = tmp_path / "servers"
    folder.mkdir()
    postgres, valkey = Postgres(folder, durable=False), Valkey(folder)
    postgres.start()
    valkey.start()
    yield Settings(
        database_url=SecretStr(postgres.url),
        redis_url=SecretStr(valkey.url),
        data_dir=folder,
    )
    valkey.stop()
    postgres.stop()


@asynccontextmanager
async def on_database(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    assert settings.database_url
    url = settings.database_url.get_secret_value().replace("+asyncpg", "")
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


def version_of(settings: Settings, code: Path, stack: ExitStack) -> Version:
    assert settings.database_url
    assert settings.redis_url
    plain = {name: value for name, value in os.environ.items() if "PRICEBOOK" not in name}
    return Version(
        code,
        plain
        | {
            "PRICEBOOK_DATABASE_URL": settings.database_url.get_secret_value(),
            "PRICEBOOK_REDIS_URL": settings.redis_url.get_secret_value(),
            "PRICEBOOK_DATA_DIR": str(settings.data_dir),
            "PRICEBOOK_LOG__ACCESS": "false",
            "PRICEBOOK_SECRET_KEY": "k" * 32,
            "PRICEBOOK_WEBHOOKS__ALLOWED_NETWORKS": '["127.0.0.0/8"]',
        },
        stack,
    )


async def fill(settings: Settings, version: Version) -> tuple[list[str], str]:
    """Load a list, make an admin as the version does, and log in to it."""
    async with on_database(settings) as connection:
        await connection.execute(f"INSERT INTO items ({COLUMNS}) {ROWS.format(rows=ITEMS)}")
        await connection.execute("ANALYZE")
        ids = await connection.fetch("SELECT id FROM items ORDER BY random() LIMIT 500")
    made = version.command("create-admin", "--email", EMAIL, "--password", PASSWORD)
    await asyncio.to_thread(subprocess.run, **made, check=True, capture_output=True)
    await version.serves()
    async with httpx2.AsyncClient(base_url=version.url) as client:
        form = {"username": EMAIL, "password": PASSWORD}
        reply = await client.post("/v1/auth/token", data=form)
        return [str(row["id"]) for row in ids], reply.json()["access_token"]


async def rolled(
    settings: Settings, old: Version, new: Version, url: str, apply: Callable[[], Any]
) -> tuple[Load, float]:
    """Apply a change under load, with the old version before, both beside it and the new after."""
    old.start("old")
    load = Load(*await fill(settings, old))
    await load.tell(settings, old, url)
    async with load.on(old):
        await asyncio.sleep(2)
        began = time.monotonic()
        await apply()
        seconds = time.monotonic() - began
        await asyncio.sleep(2)
        new.start("new")
        await new.serves()
        await load.tell(settings, new, url)
        async with load.on(new):
            await asyncio.sleep(BESIDE_SECONDS)
    await asyncio.to_thread(old.stop)
    async with load.on(new):
        await asyncio.sleep(2)
    return load, seconds


@pytest.mark.parametrize("revision", WAY[1:])
async def test_promise_41_no_version_notices_a_migration(
    revision: str,
    servers: Settings,
    code: Callable[[str], Path],
    receiver: ForkedReceiver,
    capsys: pytest.CaptureFixture,
) -> None:
    before = WAY[WAY.index(revision) - 1]
    await asyncio.to_thread(migrate, servers, to=before)

    async def apply() -> None:
        await asyncio.to_thread(migrate, servers, to=revision)

    with ExitStack() as stack:
        old, new = (version_of(servers, code(head), stack) for head in (before, revision))
        load, seconds = await rolled(servers, old, new, receiver.url, apply)
        async with on_database(servers) as connection:
            count = await connection.fetchval("SELECT count(*) FROM items")
            assert count == ITEMS + load.made
            assert await until_all_is_told(connection)
            created = "SELECT count(*) FROM events WHERE type = 'item.created'"
            assert await connection.fetchval(created) == load.made
            told = await connection.fetch(TOLD, load.told_since, list(NEVER_TOLD))
            undelivered = [await connection.fetchval(query) for query in (UNTOLD, FAILED)]
        await asyncio.to_thread(new.stop)
    with capsys.disabled():
        said = f"{revision}: {len(load.answers):,} answers, p99 {load.p99_milliseconds():.0f} ms"
        print(f"\n{said}, applied in {seconds:.1f} s")  # noqa: T201 -- it is run for the figures
        print(f"{len(told):,} events told, {len(load.exports)} exports whole")  # noqa: T201 -- likewise
    assert load.refusals == []
    assert load.made > 0
    assert undelivered == [0, 0]
    taken, _ = await asyncio.to_thread(receiver.tally)
    assert {row["id"] for row in told} - taken["/"].keys() == set()
    assert len(told) > 0
    assert [rows for rows, _ in load.exports] == [due for _, due in load.exports]
    # Since the version of 0003 there are exports.
    assert load.exports or revision < "0003"


async def until_all_is_told(connection: asyncpg.Connection) -> bool:
    """Whether the workers come to the end of what there is to tell."""
    ends_at = time.monotonic() + 60
    while await connection.fetchval(TO_TELL):
        if time.monotonic() > ends_at:
            return False
        await asyncio.sleep(0.2)
    return True


async def test_a_change_that_holds_a_table_would_be_noticed(
    servers: Settings, receiver: ForkedReceiver
) -> None:
    await asyncio.to_thread(migrate, servers)

    async def apply() -> None:
        async with on_database(servers) as connection:
            await connection.execute(BAD)

    with ExitStack() as stack:
        old, new = (version_of(servers, ROOT, stack) for _ in range(2))
        load, _ = await rolled(servers, old, new, receiver.url, apply)
    assert any(": 503 " in refusal for refusal in load.refusals)
