"""Real servers, one database a worker made by the migrations, and the makers of things."""

import asyncio
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx2
import pytest
import structlog
from alembic import command
from alembic.config import Config
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.auth.service import open_session
from pricebook.core.database import Database
from pricebook.core.database_urls import each_host
from pricebook.core.embedded import Postgres, Valkey
from pricebook.core.outbox import EventRecord
from pricebook.core.security import PasswordHasher
from pricebook.core.settings import (
    FileSettings,
    LimitSettings,
    LogSettings,
    Settings,
    StreamSettings,
)
from pricebook.items.models import Item
from pricebook.main import create_app
from pricebook.tables import metadata
from pricebook.users.models import User

ROOT = Path(__file__).parent.parent
PASSWORD = "correct horse battery staple"
TEMPLATE = "pricebook_template"
_SERVERS: pytest.StashKey[tuple[Postgres, Valkey, Path]] = pytest.StashKey()
_URLS: pytest.StashKey[dict[str, str]] = pytest.StashKey()


def alembic_config(url: str) -> Config:
    config = Config(ROOT / "alembic.ini", toml_file=ROOT / "pyproject.toml")
    config.attributes.update(url=url, quiet=True)
    return config


def asyncpg_url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+asyncpg://")


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers once a run: in the process that hands out the tests, or in the only one."""
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.stdlib.add_log_level, plain])
    if worker := getattr(config, "workerinput", None):
        config.stash[_URLS] = worker["pricebook_urls"]
        return
    if config.option.collectonly or config.option.help:
        return
    # A shell makes what it starts in the background deaf to Ctrl-C, and so all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="pricebook-tests-"))
    folder.chmod(0o755)
    postgres, valkey = Postgres(folder, durable=False), Valkey(folder)
    postgres.start()
    valkey.start()
    config.stash[_SERVERS] = (postgres, valkey, folder)
    postgres.create_database(TEMPLATE)
    command.upgrade(alembic_config(asyncpg_url(postgres.url_of(TEMPLATE))), "head")
    workers = getattr(config.option, "numprocesses", None) or 0
    names = [f"gw{number}" for number in range(workers)] or ["main"]
    for name in names:
        postgres.create_database(f"pricebook_{name}", template=TEMPLATE)
        postgres.create_database(f"scratch_{name}")
    config.stash[_URLS] = {
        **{f"database_{name}": postgres.url_of(f"pricebook_{name}") for name in names},
        **{f"scratch_{name}": postgres.url_of(f"scratch_{name}") for name in names},
        "redis": valkey.url,
    }


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["pricebook_urls"] = node.config.stash[_URLS]


def pytest_unconfigure(config: pytest.Config) -> None:
    if started := config.stash.get(_SERVERS, None):
        postgres, valkey, folder = started
        valkey.stop()
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def urls(request: pytest.FixtureRequest) -> dict[str, str]:
    return request.config.stash[_URLS]


@pytest.fixture(scope="session")
def settings(
    urls: dict[str, str], worker_name: str, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    number = int("".join(filter(str.isdigit, worker_name)) or 0)
    return Settings(
        database_url=SecretStr(urls[f"database_{worker_name}"]),
        redis_url=SecretStr(urls["redis"].removesuffix("/0") + f"/{number}"),
        secret_key=SecretStr("a secret key of the tests that is long enough"),
        limits=LimitSettings(requests=10_000_000, anonymous_requests=10_000_000),
        log=LogSettings(format="json", level="WARNING", access=False),
        # A client that reads an answer to its end gets to the end of a stream.
        stream=StreamSettings(max_age_seconds=0.05),
        drain_seconds=0,
        files=FileSettings(url=(tmp_path_factory.getbasetemp() / "files").as_uri()),
    )


@pytest.fixture(scope="session")
def worker_name(request: pytest.FixtureRequest) -> str:
    worker = getattr(request.config, "workerinput", None)
    return worker["workerid"] if worker else "main"


@pytest.fixture(scope="session")
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    application = create_app(settings)
    async with application.router.lifespan_context(application):
        yield application


@pytest.fixture(scope="session")
def database(app: FastAPI) -> Database:
    return app.state.database


@pytest.fixture(scope="session")
def hasher(app: FastAPI) -> PasswordHasher:
    return app.state.hasher


@pytest.fixture
async def session(database: Database) -> AsyncIterator[AsyncSession]:
    """A session that commits for real; the tables are emptied afterwards."""
    async with database.sessions() as opened:
        yield opened


async def until(condition: Callable[[], Any], seconds: float = 10) -> None:
    """Wait for what happens elsewhere: until the condition, perhaps a coroutine function, holds."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.01)


@pytest.fixture
async def scratch(urls: dict[str, str], worker_name: str) -> str:
    """The URL of an empty database of this worker's own."""
    url = urls[f"scratch_{worker_name}"]
    async with connected(url) as connection:
        await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return url


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


def one_host(settings: Settings) -> str:
    """Return the URL of the settings' database as asyncpg itself takes it."""
    return each_host(settings.database_url.get_secret_value())[0]


EMPTY_ALL = "; ".join(f"DELETE FROM {table.name}" for table in reversed(metadata.sorted_tables))


@pytest.fixture(autouse=True)
async def _empty_tables(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Empty every table after each test that used the database."""
    yield
    if "database" in request.fixturenames:
        database: Database = request.getfixturevalue("database")
        async with database.engine.connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            assert raw is not None
            await raw.execute(EMPTY_ALL)


class Api(httpx2.AsyncClient):
    """A client of the application, anonymous unless `as_` or `with_token` says otherwise."""

    def __init__(self, app: FastAPI, tokens: dict[UUID, str], token: str | None = None) -> None:
        super().__init__(
            transport=httpx2.ASGITransport(app=app, raise_app_exceptions=False),
            base_url="http://pricebook.test",
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )
        self.app = app
        self.tokens = tokens

    def as_(self, user: User) -> "Api":
        return self.with_token(self.tokens[user.id])

    def with_token(self, token: str) -> "Api":
        return Api(self.app, self.tokens, token)


@pytest.fixture
async def api(app: FastAPI, database: Database) -> AsyncIterator[Api]:
    async with Api(app, {}) as client:
        yield client


@pytest.fixture
async def make_api(settings: Settings, api: Api) -> AsyncIterator[Callable[..., Awaitable[Api]]]:
    """Start another process's application, with other settings: `make_api(http={"docs": False})`.

    Whoever is logged in with `api` is so with it too.
    """
    async with AsyncExitStack() as started:

        async def make(**groups: Any) -> Api:
            changed = {
                name: getattr(settings, name).model_copy(update=value)
                if isinstance(value, dict)
                else value
                for name, value in groups.items()
            }
            application = create_app(settings.model_copy(update=changed))
            await started.enter_async_context(application.router.lifespan_context(application))
            return Api(application, api.tokens)

        yield make


MakeUser = Callable[..., Awaitable[User]]
MakeItem = Callable[..., Awaitable[Item]]


@pytest.fixture(scope="session")
async def hashed_password(hasher: PasswordHasher) -> str:
    return await hasher.hash(SecretStr(PASSWORD))


@pytest.fixture
def make_user(session: AsyncSession, api: Api, hashed_password: str) -> MakeUser:
    """Make a user whose password is PASSWORD, and a session for `api.as_(user)`."""

    async def make(role: str = "viewer", **fields: Any) -> User:
        fields.setdefault("email", f"{role}-{uuid4().hex[:8]}@example.com")
        fields.setdefault("name", f"A {role}")
        fields.setdefault("hashed_password", hashed_password)
        user = User(role=role, **fields)
        session.add(user)
        await session.flush()
        api.tokens[user.id] = await open_session(
            session, user, address="127.0.0.1", user_agent="tests"
        )
        await session.commit()
        return user

    return make


@pytest.fixture
async def viewer(make_user: MakeUser) -> User:
    return await make_user("viewer")


@pytest.fixture
async def editor(make_user: MakeUser) -> User:
    return await make_user("editor")


@pytest.fixture
async def admin(make_user: MakeUser) -> User:
    return await make_user("admin")


@pytest.fixture
def make_key(api: Api) -> Callable[..., Awaitable[str]]:
    """Make an API key for a user, and return the key itself."""

    async def make(user: User, *scopes: str) -> str:
        new = {"name": "A till", "scopes": scopes}
        reply = await api.as_(user).post("/v1/api-keys", json=new)
        assert reply.status_code == 201, reply.text
        return reply.json()["key"]

    return make


async def is_shut_out(client: Api) -> bool:
    """Whether the client's credential is refused within the second that is promised."""
    end = asyncio.get_running_loop().time() + 1
    while asyncio.get_running_loop().time() < end:
        if (await client.get("/v1/users/me")).status_code == 401:
            return True
    return False


@pytest.fixture
def make_item(session: AsyncSession) -> MakeItem:
    """Write an item straight into its table."""

    async def make(**fields: Any) -> Item:
        values = {
            "sku": f"SKU-{uuid4().hex[:12]}",
            "name": "Hammer",
            "price": Decimal("12.5000"),
            "currency": "EUR",
            **fields,
        }
        item = Item(**values)
        session.add(item)
        await session.commit()
        return item

    return make


@pytest.fixture
def recorded(database: Database) -> Callable[[], Awaitable[list[EventRecord]]]:
    """Return every committed event, oldest first."""

    async def read() -> list[EventRecord]:
        async with database.sessions() as fresh:
            events = select(EventRecord).order_by(EventRecord.transaction_id, EventRecord.id)
            return list(await fresh.scalars(events))

    return read
