"""A primary and a replica of it, an application that has both, and people who read and write."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from alembic import command
from fastapi import FastAPI
from pydantic import SecretStr
from tests.conftest import Api, alembic_config, asyncpg_url, until
from tests.standby import Standby

from pricebook.auth.schemas import ApiKeyIn
from pricebook.auth.service import create_api_key, open_session
from pricebook.core.database import Database, open_database
from pricebook.core.embedded import Postgres
from pricebook.core.principal import Principal, Role, Scope
from pricebook.core.replica import Replica
from pricebook.core.settings import ReplicaSettings, Settings
from pricebook.main import create_app
from pricebook.users.models import User

HAMMER = {"sku": "HAM-1", "name": "Hammer", "price": "12.50", "currency": "EUR"}


@pytest.fixture(scope="session")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    server = Postgres(tmp_path_factory.mktemp("primary"), durable=False)
    server.start()
    command.upgrade(alembic_config(asyncpg_url(server.url)), "head")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def _standby(primary: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standby]:
    server = Standby(tmp_path_factory.mktemp("standby"), primary)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def standby(_standby: Standby) -> Iterator[Standby]:
    """A replica that runs and streams, whatever the test before did to it."""
    if _standby.is_spoilt:
        _standby.rebuild()
    elif not _standby.is_alive():
        _standby.start()
    _standby.delay("0")
    return _standby


@pytest.fixture(scope="session")
def both(settings: Settings, primary: Postgres, _standby: Standby) -> Settings:
    return settings.model_copy(
        update={
            "database_url": SecretStr(asyncpg_url(primary.url)),
            "database_replica_url": SecretStr(asyncpg_url(_standby.url)),
            "replica": ReplicaSettings(max_lag_seconds=20),
        }
    )


@pytest.fixture(scope="session")
async def _database(both: Settings) -> AsyncIterator[Database]:
    async with open_database(both, "tests") as database:
        yield database


@pytest.fixture
async def primary_database(_database: Database, standby: Standby) -> AsyncIterator[Database]:
    yield _database
    async with _database.engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        await raw.execute("DELETE FROM items; DELETE FROM events; DELETE FROM jobs")


@pytest.fixture(scope="session")
async def tokens(_database: Database) -> dict[str, str]:
    """Credentials: of sessions by their roles, of API keys by the widest of their scopes."""
    found = {}
    async with _database.sessions.begin() as session:
        for role in Role:
            email = f"{role}-{uuid4().hex}@example.com"
            user = User(email=email, name=role, role=role, hashed_password="")
            session.add(user)
            await session.flush()
            found[str(role)] = await open_session(
                session, user, address="127.0.0.1", user_agent="tests"
            )
        person = Principal(user_id=user.id, role=Role.ADMIN, credential_id=user.id)
        for scope in ("items:read", "items:write"):
            new = ApiKeyIn(name="A till", scopes=[Scope.ITEMS_READ, Scope(scope)])
            _, key = await create_api_key(session, person, new)
            found[scope] = key.get_secret_value()
    return found


class Till(Api):
    """A client, and what the process behind it counted."""

    @property
    def replica(self) -> Replica:
        return self.app.state.replica

    def as_(self, name: str) -> "Till":
        return Till(self.app, self.tokens, self.tokens[name])

    async def reads(self, path: str, **options: Any) -> tuple[httpx2.Response, str]:
        """Ask, and return the answer and where it was read."""
        before = dict(self.replica.counts.primary)
        replica = self.replica.counts.replica
        reply = await self.get(path, **options)
        if self.replica.counts.replica > replica:
            return reply, "replica"
        reasons = {
            reason
            for reason, count in self.replica.counts.primary.items()
            if count > before.get(reason, 0)
        }
        return reply, " ".join(sorted(reasons)) or "primary"

    async def is_followed(self) -> None:
        await until(lambda: not self.replica.is_late)


@pytest.fixture
async def serve(
    tokens: dict[str, str], primary_database: Database
) -> AsyncIterator[Callable[[Settings], Awaitable[Till]]]:
    """Start the application of a process with these settings."""
    async with AsyncExitStack() as started:

        async def run(settings: Settings) -> Till:
            application = create_app(settings)
            await started.enter_async_context(application.router.lifespan_context(application))
            return Till(application, tokens)

        yield run


@pytest.fixture(scope="session")
async def _process(both: Settings) -> AsyncIterator[FastAPI]:
    application = create_app(both)
    async with application.router.lifespan_context(application):
        yield application


@pytest.fixture
async def till(_process: FastAPI, tokens: dict[str, str], primary_database: Database) -> Till:
    """One process for all tests: whatever became of its replica, it goes on by itself."""
    client = Till(_process, tokens)
    await client.is_followed()
    client.replica.counts.replica = 0
    client.replica.counts.primary.clear()
    return client
