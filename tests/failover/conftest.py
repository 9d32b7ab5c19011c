"""A primary and its synchronous standby, and an application whose URL names both."""

import asyncio
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from alembic import command
from pydantic import SecretStr
from tests.conftest import Api, alembic_config, asyncpg_url, connected, until
from tests.standby import Standby

from pricebook.auth.service import open_session
from pricebook.core.database import open_database
from pricebook.core.embedded import Postgres
from pricebook.core.settings import DatabaseSettings, Settings
from pricebook.main import create_app
from pricebook.users.models import User


@pytest.fixture(scope="session")
def _migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a server that has been stopped, to copy."""
    folder = tmp_path_factory.mktemp("migrated")
    server = Postgres(folder, durable=False)
    server.start()
    command.upgrade(alembic_config(asyncpg_url(server.url)), "head")
    server.stop()
    return folder


def wait_for(server: Postgres, name: str) -> None:
    """Have commits wait for the standby of that name; `*`: any."""
    change = f"ALTER SYSTEM SET synchronous_standby_names = '{name}'"
    server._sql(f"{change};\nSELECT pg_reload_conf();")


@dataclass
class Pair:
    """Two servers, of which `primary` was the primary at first."""

    primary: Postgres
    standby: Standby

    @property
    def url(self) -> str:
        return with_other_host(self.primary.url, self.standby._port)


def with_other_host(url: str, port: int) -> str:
    user, at, place = url.rpartition("@")
    host, slash, name = place.partition("/")
    return f"{user}{at}{host},127.0.0.1:{port}{slash}{name}"


@pytest.fixture
def primary(_migrated: Path, tmp_path: Path) -> Iterator[Postgres]:
    subprocess.run(["cp", "-a", _migrated, tmp_path / "one"], check=True)
    server = Postgres(tmp_path / "one", durable=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def pair(primary: Postgres, tmp_path: Path) -> Iterator[Pair]:
    standby = Standby(tmp_path / "two", primary)
    standby.start()
    wait_for(primary, "*")
    yield Pair(primary, standby)
    # Nobody is to wait for the one that is gone.
    standby.stop()


Serve = Callable[..., Awaitable[Api]]


@pytest.fixture
async def serve(settings: Settings) -> AsyncIterator[Serve]:
    """Start the application of a process, and return a client of it who may write."""
    async with AsyncExitStack() as started:

        async def run(url: str, **changes: Any) -> Api:
            several = settings.model_copy(
                update={
                    "database_url": SecretStr(asyncpg_url(url)),
                    "database": DatabaseSettings(pool_timeout_seconds=0.5),
                    **changes,
                }
            )
            application = create_app(several)
            await started.enter_async_context(application.router.lifespan_context(application))
            token = await token_of_an_editor(several)
            return Api(application, {}, token)

        yield run


async def token_of_an_editor(settings: Settings) -> str:
    async with open_database(settings, "tests") as database, database.sessions.begin() as session:
        email = f"{uuid4().hex}@example.com"
        user = User(email=email, name="E", role="editor", hashed_password="")
        session.add(user)
        await session.flush()
        return await open_session(session, user, address="127.0.0.1", user_agent="tests")


@dataclass
class Load:
    """Those who write and read all the time, and what they were answered."""

    written: set[str] = field(default_factory=set)
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    surprises: list[str] = field(default_factory=list)

    async def write(self, client: Api) -> None:
        while True:
            sku = f"SKU-{uuid4().hex}"
            new = {"sku": sku, "name": "Hammer", "price": "1", "currency": "EUR"}
            reply = await client.post("/v1/items", json=new)
            self._note(reply, 201)
            if reply.status_code == 201:
                self.written.add(sku)
            await asyncio.sleep(0.02)

    async def read(self, client: Api) -> None:
        while True:
            self._note(await client.get("/v1/items"), 200)
            await asyncio.sleep(0.02)

    def _note(self, reply: Any, success: int) -> None:
        self.answers[reply.request.method, reply.status_code] += 1
        is_refused = reply.status_code == 503 and reply.headers.get("retry-after")
        if reply.status_code != success and not is_refused:
            self.surprises.append(f"{reply.status_code} {reply.text}")

    async def goes_on(self, seconds: float = 10) -> None:
        """Wait until reads and writes are answered as ever."""
        reads, writes = self.answers["GET", 200] + 20, self.answers["POST", 201] + 20
        await until(
            lambda: self.answers["GET", 200] >= reads and self.answers["POST", 201] >= writes,
            seconds,
        )


@asynccontextmanager
async def load_on(client: Api) -> AsyncIterator[Load]:
    load = Load()
    people = [load.write, load.write, load.write, load.read, load.read, load.read]
    tasks = [asyncio.create_task(person(client)) for person in people]
    try:
        await load.goes_on()
        yield load
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [end for end in ends if not isinstance(end, asyncio.CancelledError)] == []
    assert load.surprises == []


async def skus_on(server: Postgres) -> set[str]:
    async with connected(server.url) as connection:
        return {row["sku"] for row in await connection.fetch("SELECT sku FROM items")}
