"""`python -m tests.chaos.lost`: how much is lost while workers die and Valkey forgets.

The same run for Pricebook and for the usual way, which enqueues a job for each receiver after the
commit: writers write at a steady pace, one of two workers is killed every two seconds and replaced
at once, Valkey is emptied every five, and the receivers fail one request in a hundred. It goes on
until Pricebook has delivered everything; the usual way is left in peace once all is written.
"""

import argparse
import asyncio
import itertools
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from redis.asyncio import Redis
from tests.chaos.ways import WAYS, PricebooksWay, Stage, Way, stage
from tests.processes import Forked

from pricebook.core.database import open_database
from pricebook.items.schemas import ItemIn
from pricebook.items.service import create_item

_WORKERS = 2
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
            f"  {self.strangers} came of writes rolled back; {self.duplicates:,} came twice; "
            f"{self.failures:,} requests refused by the receivers"
        )
        yield (
            f"  {self.kills} workers killed, Valkey emptied {self.flushes} times, "
            f"{self.seconds:.0f} s"
        )


def _range(numbers: Sequence[int]) -> str:
    least, most = min(numbers), max(numbers)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


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
        way = kind(stage, database, plan.endpoints)
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
    with stage(plan.failing_share) as made:
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
