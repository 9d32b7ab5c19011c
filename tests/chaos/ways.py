"""The ways from a committed write to its receivers that are compared, and the servers they need."""

import asyncio
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arq.connections import ArqRedis
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy import func, select
from tests.chaos import usual_way
from tests.processes import Forked, ForkedWorker
from tests.receiver import ForkedReceiver

from pricebook.core.database import Database
from pricebook.core.deliveries import Status
from pricebook.core.embedded import Postgres, Valkey
from pricebook.core.migrating import migrate
from pricebook.core.outbox import EventRecord
from pricebook.core.queue import Hints
from pricebook.core.sealing import Sealer
from pricebook.core.settings import LogSettings, Settings, WebhookSettings
from pricebook.items.events import ItemCreated
from pricebook.items.models import Item
from pricebook.webhooks.models import WebhookDelivery, WebhookEndpoint
from pricebook.webhooks.signing import new_secret

_DELAYS = (0.2, 0.5, 1, 2, 5, 10)
_QUIET_SECONDS = 10


@dataclass(frozen=True)
class Stage:
    """The servers of one run."""

    settings: Settings
    redis_url: str
    receiver: ForkedReceiver
    folder: Path


@contextmanager
def stage(failing_share: float) -> Iterator[Stage]:
    """Start everything in a folder that is removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="pricebook-chaos-"))
    folder.chmod(0o755)  # root's PostgreSQL runs as another user, who has to pass
    postgres, valkey = Postgres(folder), Valkey(folder)
    receiver = ForkedReceiver(failing_share, folder / "receiver.log")
    try:
        postgres.start()
        valkey.start()
        receiver.start()
        settings = Settings(
            database_url=SecretStr(postgres.url),
            redis_url=SecretStr(valkey.url),
            secret_key=SecretStr("k" * 32),
            webhooks=WebhookSettings(
                allowed_networks=("127.0.0.0/8",), retry_delays_seconds=_DELAYS
            ),
            log=LogSettings(format="json", level="WARNING"),
        )
        migrate(settings)
        yield Stage(settings, valkey.url, receiver, folder)
    finally:
        receiver.close()
        valkey.stop()
        postgres.stop()
        shutil.rmtree(folder)


class Way(ABC):
    """A way from a committed write to its receivers."""

    name: str

    def __init__(self, stage: Stage, database: Database, endpoints: int) -> None:
        self.stage, self.database = stage, database
        self.urls = [f"{stage.receiver.url}/{number}" for number in range(endpoints)]

    @abstractmethod
    def worker(self, number: int) -> Forked:
        """Make a worker process."""

    @abstractmethod
    @asynccontextmanager
    def ready(self) -> AsyncIterator[None]:
        """Have what is needed before anything is written."""

    @abstractmethod
    async def after_commit(self, item: Item) -> None:
        """Do what a writer does once its write is committed."""

    @abstractmethod
    async def is_done(self) -> bool:
        """Whether nothing more will come, once nothing more is written."""

    @abstractmethod
    async def committed(self) -> set[str]:
        """Return the `webhook-id` of everything that was committed."""


class PricebooksWay(Way):
    """Events in the transaction, and a hint that may be lost."""

    name = "Pricebook"

    def worker(self, number: int) -> Forked:
        return ForkedWorker(self.stage.settings, self.stage.folder / f"worker-{number}.log")

    @asynccontextmanager
    async def ready(self) -> AsyncIterator[None]:
        sealer = Sealer(self.stage.settings)
        async with self.database.sessions.begin() as session:
            session.add_all(
                WebhookEndpoint(
                    url=url, events=[ItemCreated.type], sealed_secret=sealer.seal(new_secret())
                )
                for url in self.urls
            )
        async with Redis.from_url(self.stage.redis_url, socket_timeout=1) as valkey:
            self._hints = Hints(valkey)
            sending = asyncio.create_task(self._hints.send())
            yield
            self._hints.stop()
            await sending

    async def after_commit(self, item: Item) -> None:
        await self._hints.give()

    async def is_done(self) -> bool:
        async with self.database.sessions() as session:
            new = select(EventRecord.id).where(EventRecord.expanded_at.is_(None)).exists()
            due = select(WebhookDelivery.id).where(WebhookDelivery.status == Status.PENDING)
            return not await session.scalar(select(new | due.exists()))

    async def committed(self) -> set[str]:
        async with self.database.sessions() as session:
            created = select(EventRecord.id).where(EventRecord.type == ItemCreated.type)
            found = set(map(str, await session.scalars(created)))
            assert len(found) == await session.scalar(select(func.count()).select_from(Item))
            return found


class UsualWay(Way):
    """A job for each receiver, enqueued after the commit."""

    name = "enqueued to arq after the commit, arq's defaults"
    tuning: dict[str, Any] = {}  # noqa: RUF012 -- read only

    def worker(self, number: int) -> Forked:
        log = self.stage.folder / f"worker-{number}.log"
        return Forked(usual_way.be_worker, self.stage.redis_url, self.tuning, log=log)

    @asynccontextmanager
    async def ready(self) -> AsyncIterator[None]:
        self._queue: ArqRedis = await usual_way.open_queue(self.stage.redis_url)
        self._last = (-1, 0.0)
        yield
        await self._queue.aclose()

    async def after_commit(self, item: Item) -> None:
        payload = {"item_id": str(item.id), "sku": item.sku, "name": item.name}
        await usual_way.enqueue(self._queue, self.urls, str(item.id), payload)

    async def is_done(self) -> bool:
        """Whether nothing has come for a while: what is lost leaves no trace."""
        taken, _failed = await asyncio.to_thread(self.stage.receiver.tally)
        requests = sum(sum(ids.values()) for ids in taken.values())
        if requests != self._last[0]:
            self._last = (requests, time.monotonic())
        return time.monotonic() - self._last[1] > _QUIET_SECONDS

    async def committed(self) -> set[str]:
        async with self.database.sessions() as session:
            return set(map(str, await session.scalars(select(Item.id))))


class TunedUsualWay(UsualWay):
    """The same, tuned to keep pace with the writers."""

    name = "enqueued to arq after the commit, max_jobs=100 and poll_delay=0.01"
    tuning = {"max_jobs": 100, "poll_delay": 0.01}  # noqa: RUF012 -- read only


WAYS: dict[str, type[Way]] = {
    "pricebook": PricebooksWay,
    "usual": UsualWay,
    "tuned": TunedUsualWay,
}
