"""`python -m tests.chaos.lost`: how much is lost while workers die and Valkey forgets.

The same run for Pricebook and for the usual way, which enqueues a job for each receiver after the
commit: writers write at a steady pace, one of two workers is killed every two seconds and replaced
at once, Valkey is emptied every five, and the receivers fail one request in a hundred.
"""

import argparse
import asyncio
import itertools
import random
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from arq.connections import ArqRedis
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy import func, select
from tests.chaos import usual_way
from tests.processes import Forked, ForkedWorker
from tests.receiver import ForkedReceiver

from pricebook.core.database import Database, open_database
from pricebook.core.deliveries import Status
from pricebook.core.embedded import Postgres, Valkey
from pricebook.core.outbox import EventRecord
from pricebook.core.queue import Hints
from pricebook.core.schema_head import migrate
from pricebook.core.sealing import Sealer
from pricebook.core.settings import LogSettings, Settings, WebhookSettings
from pricebook.items.events import ItemCreated
from pricebook.items.models import Item
from pricebook.items.schemas import ItemIn
from pricebook.items.service import create_item
from pricebook.webhooks.models import WebhookDelivery, WebhookEndpoint
from pricebook.webhooks.signing import new_secret

_WORKERS = 2
_DELAYS = (0.2, 0.5, 1, 2, 5, 10)
_QUIET_SECONDS = 10
_LONGEST_SECONDS = 1_200


@dataclass(frozen=True)
class Plan:
    """What is written, who is told, and what goes wrong meanwhile."""

    events: int = 10_000
    rolled_back: int = 1_000
    endpoints: int = 20
    writers: int = 4
    events_a_second: float = 50
    failing_share: float = 0.01
    kill_seconds: float = 2
    flush_seconds: float = 5


@dataclass(frozen=True)
class Findings:
    """What came of it."""

    way: str
    events: int
    delivered: Sequence[int]
    """Of the committed events, how many each endpoint got."""
    strangers: int
    """Deliveries of what was never committed."""
    duplicates: int
    failures: int
    kills: int
    flushes: int
    seconds: float

    def lines(self) -> Iterator[str]:
        """Say it."""
        total = self.events * len(self.delivered)
        yield self.way
        yield (
            f"  each of {len(self.delivered)} endpoints got {_range(self.delivered)} of "
            f"{self.events:,} events; in all {sum(self.delivered):,} of {total:,}"
        )
        yield (
            f"  {self.strangers} of writes rolled back; {self.duplicates:,} came twice; "
            f"{self.failures:,} requests refused by the receivers"
        )
        yield (
            f"  {self.kills} workers killed, Valkey emptied {self.flushes} times, "
            f"{self.seconds:.0f} s"
        )


def _range(numbers: Sequence[int]) -> str:
    least, most = min(numbers), max(numbers)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


@dataclass(frozen=True)
class Stage:
    """The servers of one run."""

    settings: Settings
    redis_url: str
    receiver: ForkedReceiver
    folder: Path


@contextmanager
def stage(plan: Plan) -> Iterator[Stage]:
    """Start everything in a folder that is removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="pricebook-chaos-"))
    folder.chmod(0o755)  # root's PostgreSQL runs as another user, who has to pass
    postgres, valkey = Postgres(folder), Valkey(folder)
    receiver = ForkedReceiver(plan.failing_share, folder / "receiver.log")
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

    def __init__(self, stage: Stage, database: Database, plan: Plan) -> None:
        self.stage, self.database = stage, database
        self.urls = [f"{stage.receiver.url}/{number}" for number in range(plan.endpoints)]

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


async def write_all(way: Way, plan: Plan) -> None:
    """Let the writers write at their pace; some writes are taken back before their commit."""
    fates = [True] * plan.events + [False] * plan.rolled_back
    random.Random(1).shuffle(fates)
    turns = iter(enumerate(fates))
    began = time.monotonic()

    async def write() -> None:
        for number, is_kept in turns:
            await asyncio.sleep(began + number / plan.events_a_second - time.monotonic())
            new = ItemIn(sku=f"LOST-{number}", name="Hammer", price=Decimal(1), currency="EUR")
            async with way.database.sessions() as session:
                item = await create_item(session, new)
                await session.flush()
                if not is_kept:
                    await session.rollback()
                    continue
                await session.commit()
            await way.after_commit(item)

    await asyncio.gather(*(write() for _ in range(plan.writers)))


class Faults:
    """What goes wrong until it is enough; no worker outlives it."""

    def __init__(self, way: Way, plan: Plan) -> None:
        self._way, self._plan = way, plan
        self._numbers = itertools.count()
        self._workers = [self._start() for _ in range(_WORKERS)]
        self._enough = asyncio.Event()
        self.kills = self.flushes = 0

    def _start(self) -> Forked:
        worker = self._way.worker(next(self._numbers))
        worker.start()
        return worker

    async def go_wrong(self) -> None:
        async with Redis.from_url(self._way.stage.redis_url) as valkey:
            await asyncio.gather(self._kill_now_and_then(), self._flush_now_and_then(valkey))

    async def _kill_now_and_then(self) -> None:
        while await self._passes(self._plan.kill_seconds):
            place = self.kills % _WORKERS
            self._workers[place].kill()
            self._workers[place] = self._start()
            self.kills += 1

    async def _flush_now_and_then(self, valkey: Redis) -> None:
        while await self._passes(self._plan.flush_seconds):
            await valkey.flushall()
            self.flushes += 1

    async def _passes(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._enough.wait()
        except TimeoutError:
            return True
        return False

    def end(self) -> None:
        self._enough.set()

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


async def perform(stage: Stage, plan: Plan, kind: type[Way]) -> Findings:
    """Run it once, on a stage of its own."""
    began = time.monotonic()
    async with open_database(stage.settings, "chaos") as database:
        way = kind(stage, database, plan)
        async with way.ready():
            faults = Faults(way, plan)
            try:
                going_wrong = asyncio.create_task(faults.go_wrong())
                await write_all(way, plan)
                if not isinstance(way, PricebooksWay):
                    # What is still queued would not outlive the next flush: let it be delivered.
                    faults.end()
                await _until_done(way)
                faults.end()
                await going_wrong
            finally:
                faults.close()
        return await _findings(way, plan, faults, time.monotonic() - began)


async def _until_done(way: Way) -> None:
    async with asyncio.timeout(_LONGEST_SECONDS):
        while not await way.is_done():  # noqa: ASYNC110 -- what is waited for happens elsewhere
            await asyncio.sleep(0.5)


async def _findings(way: Way, plan: Plan, faults: Faults, seconds: float) -> Findings:
    committed = await way.committed()
    taken, failures = await asyncio.to_thread(way.stage.receiver.tally)
    by_endpoint = [taken.get(f"/{number}", {}) for number in range(plan.endpoints)]
    return Findings(
        way=way.name,
        events=len(committed),
        delivered=[len(committed & ids.keys()) for ids in by_endpoint],
        strangers=sum(len(ids.keys() - committed) for ids in by_endpoint),
        duplicates=sum(sum(ids.values()) - len(ids) for ids in by_endpoint),
        failures=failures,
        kills=faults.kills,
        flushes=faults.flushes,
        seconds=seconds,
    )


def run(plan: Plan, kind: type[Way]) -> Findings:
    """Run it once, from nothing."""
    with stage(plan) as made:
        return asyncio.run(perform(made, plan, kind))


def main() -> None:
    """Run it for each way that was asked for, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.lost", description=__doc__)
    parser.add_argument("--events", type=int, default=Plan.events)
    parser.add_argument("--events-a-second", type=float, default=Plan.events_a_second)
    parser.add_argument("--ways", choices=WAYS, default=("pricebook", "usual"), nargs="+")
    options = parser.parse_args()
    plan = Plan(
        events=options.events,
        rolled_back=options.events // 10,
        events_a_second=options.events_a_second,
    )
    for name in options.ways:
        for line in run(plan, WAYS[name]).lines():
            print(line, flush=True)  # noqa: T201 -- it is what the command is for


if __name__ == "__main__":
    main()
