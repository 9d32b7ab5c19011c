"""Processes that deliver for real, the receivers they deliver to, and what is left to deliver."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from alembic import command
from pydantic import SecretStr
from sqlalchemy import Select, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from tests.conftest import alembic_config, asyncpg_url
from tests.processes import Forked, ForkedWorker
from tests.receiver import Receiver, receiving

from pricebook.core.database import Database, open_database
from pricebook.core.deliveries import Status
from pricebook.core.embedded import Postgres, Valkey
from pricebook.core.outbox import EventRecord, record
from pricebook.core.sealing import Sealer
from pricebook.core.settings import DeliverySettings, LogSettings, Settings, WebhookSettings
from pricebook.items.events import ItemDeleted
from pricebook.serving import listen
from pricebook.webhooks.models import WebhookDelivery, WebhookEndpoint
from pricebook.webhooks.signing import new_secret

SHORT_DELAYS = (0.2, 0.5, 1, 2, 5)


async def eventually(condition: Callable[[], Awaitable[object]], seconds: float = 60) -> float:
    """Wait until it holds, and return how long that took."""
    began = time.monotonic()
    while not await condition():
        assert time.monotonic() < began + seconds, "it did not come about in time"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A Valkey that the test may stop."""
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.stop()


def delivering(settings: Settings, **changes: Any) -> Settings:
    """The settings of processes that deliver to this machine, and soon try again."""
    ours = {
        "secret_key": SecretStr("k" * 32),
        "webhooks": WebhookSettings(
            allowed_networks=("127.0.0.0/8",), retry_delays_seconds=SHORT_DELAYS
        ),
        "log": LogSettings(format="json", level="INFO", access=False),
    }
    return settings.model_copy(update=ours | changes)


@pytest.fixture
def for_delivery(settings: Settings, valkey: Valkey) -> Settings:
    return delivering(settings, redis_url=SecretStr(valkey.url))


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    """One that loses nothing as long as the machine itself lives."""
    server = Postgres(tmp_path, durable=False)
    server.start()
    command.upgrade(alembic_config(asyncpg_url(server.url)), "head")
    yield server
    server.stop()


@pytest.fixture
def mortal(settings: Settings, postgres: Postgres) -> Settings:
    return delivering(settings, database_url=SecretStr(asyncpg_url(postgres.url)))


@pytest.fixture
async def mortal_database(mortal: Settings) -> AsyncIterator[Database]:
    async with open_database(mortal, "tests") as database:
        yield database


async def come_back(postgres: Postgres) -> float:
    """Start it as whoever looks after services would, and return when it was ready."""
    while True:
        # From this thread, with which it would end; but without a wait in it.
        postgres.launch()
        while postgres.is_alive():
            if postgres.is_ready():
                return time.monotonic()
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start processes, which write to a file named for their kind; they are killed at the end."""
    with ExitStack() as started:

        def run(kind: type[Forked], settings: Settings) -> Forked:
            process = kind(settings, tmp_path / f"{kind.__name__}.log")
            started.callback(process.close)
            process.start()
            return process

        yield run


@pytest.fixture
def run_worker(start: Callable[..., Any], for_delivery: Settings) -> Callable[..., ForkedWorker]:
    """Start worker processes, with the changes that are given to the settings."""

    def run(**changes: Any) -> ForkedWorker:
        return start(ForkedWorker, for_delivery.model_copy(update=changes))

    return run


@pytest.fixture
async def receive() -> AsyncIterator[Callable[[], Awaitable[tuple[Receiver, str]]]]:
    """Open receivers; each comes with its URL."""
    async with AsyncExitStack() as opened:

        async def make() -> tuple[Receiver, str]:
            receiver = Receiver()
            url = await opened.enter_async_context(receiving(receiver, listen("127.0.0.1", 0)))
            return receiver, url

        yield make


async def add_endpoint(
    session: AsyncSession, settings: Settings, url: str, event: str = ItemDeleted.type
) -> UUID:
    """Have events of a kind told to `url`."""
    endpoint = WebhookEndpoint(
        url=url, events=[event], sealed_secret=Sealer(settings).seal(new_secret())
    )
    session.add(endpoint)
    await session.commit()
    return endpoint.id


async def add_events(session: AsyncSession, count: int) -> None:
    """Let something happen `count` times, in one transaction."""
    for number in range(count):
        record(session, ItemDeleted(item_id=uuid4(), sku=f"GONE-{number}", tags=[]))
    await session.commit()


class Backlog:
    """What is still to be done, as PostgreSQL has it."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def count(self, query: Select[int]) -> int:
        async with self.database.sessions() as session:
            return await session.scalar(query) or 0

    async def is_gone(self) -> bool:
        """Whether everything that happened is told."""
        return not await self.unexpanded() and not await self.pending()

    async def unexpanded(self) -> int:
        return await self.count(
            select(func.count()).select_from(EventRecord).where(EventRecord.expanded_at.is_(None))
        )

    async def pending(self) -> int:
        return await self.count(
            select(func.count())
            .select_from(WebhookDelivery)
            .where(WebhookDelivery.status == Status.PENDING)
        )

    async def leased(self) -> int:
        return await self.count(
            select(func.count())
            .select_from(WebhookDelivery)
            .where(WebhookDelivery.leased_until.is_not(None))
        )

    async def unfinished(self) -> int:
        """How many deliveries are not delivered, be they pending or dead."""
        return await self.count(
            select(func.count())
            .select_from(WebhookDelivery)
            .where(
                or_(
                    WebhookDelivery.status != Status.DELIVERED,
                    WebhookDelivery.settled_at.is_(None),
                )
            )
        )


@pytest.fixture
def backlog(database: Database) -> Backlog:
    return Backlog(database)


LEASE_SECONDS = DeliverySettings().lease_seconds
