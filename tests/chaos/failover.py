"""Writers that insist on each write, what they were told, and what came of it in the end."""

import asyncio
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import httpx2
from sqlalchemy import select

from pricebook.core.database import Database
from pricebook.core.outbox import EventRecord
from pricebook.core.spawn import Child, ManagedProcess
from pricebook.items.models import Item

EVENTS = ("item.created", "item.price_changed")
_PRICES_AN_ITEM = 20
_PACE_SECONDS = 0.1
_PAUSE_SECONDS = 0.2


class Running(ManagedProcess):
    """A command of Pricebook that runs until it is stopped."""

    def __init__(self, verb: str, env: Mapping[str, str], log: Path) -> None:
        super().__init__()
        self.name, self._env, self.log = verb, env, log

    def child(self) -> Child:
        return Child(
            (sys.executable, "-m", "pricebook.cli", self.name), env=self._env, log=self.log
        )

    def end(self) -> None:
        if self.is_alive():
            self.ask_to_stop()
            if not self.has_stopped(20):
                self.kill()


class Clients:
    """They write and read, and try again what was not possible."""

    def __init__(self, client: httpx2.AsyncClient, writers: int, readers: int) -> None:
        self._client, self._writers, self._readers = client, writers, readers
        self.acknowledged: defaultdict[str, list[Decimal]] = defaultdict(list)
        """Each price that an item was said to have, in order."""
        self.written = 0
        self.statuses: Counter[str] = Counter()
        self.surprises: list[str] = []
        self.longest_seconds = 0.0
        """The longest that a writer insisted on a write; set it to 0 at will."""
        self._back_at = [0.0] * writers
        """When each writer sent the last of its requests that was acknowledged."""
        self._known: list[str] = []
        self._is_enough = False

    async def go_on(self) -> None:
        """Write and read until it is enough."""
        async with asyncio.TaskGroup() as all_of_them:
            for number in range(self._writers):
                all_of_them.create_task(self._write(number))
            for _ in range(self._readers):
                all_of_them.create_task(self._read())

    def stop(self) -> None:
        self._is_enough = True

    @property
    def refused(self) -> int:
        """How often they were told to try again."""
        return self.statuses["503 with Retry-After"]

    def are_back_since(self, moment: float) -> bool:
        """Whether a write that was sent after it has been acknowledged to each writer."""
        return min(self._back_at) > moment

    async def _write(self, writer: int) -> None:
        number = 0
        while not self._is_enough:
            number += 1
            sku = f"FAILOVER-{writer}-{number}"
            new = {"sku": sku, "name": "Hammer", "price": "0.5", "currency": "EUR"}
            key = {"Idempotency-Key": sku}
            made = await self._insist(writer, "POST", "/v1/items", json=new, headers=key)
            self._note(sku, "0.5")
            self._known.append(made["id"])
            for euros in range(1, _PRICES_AN_ITEM):
                if self._is_enough:
                    break
                path, price = f"/v1/items/{made['id']}", f"{euros}.5"
                changed = await self._insist(writer, "PATCH", path, json={"price": price})
                if Decimal(changed["price"]) != Decimal(price):
                    self.surprises.append(f"{sku} was to cost {price}: {changed}")
                self._note(sku, price)

    def _note(self, sku: str, price: str) -> None:
        self.acknowledged[sku].append(Decimal(price))
        self.written += 1

    async def _insist(
        self, writer: int, method: str, path: str, **sent: Mapping[str, str]
    ) -> dict[str, str]:
        await asyncio.sleep(_PACE_SECONDS)
        began = time.monotonic()
        while True:
            sent_at = time.monotonic()
            reply = await self._ask(method, path, **sent)
            if reply is not None:
                self._back_at[writer] = sent_at
                self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)
                answer: dict[str, str] = reply.json()
                return answer

    async def _read(self) -> None:
        while not self._is_enough:
            await asyncio.sleep(_PACE_SECONDS)
            if self._known:
                await self._ask("GET", f"/v1/items/{self._known[-1]}")

    async def _ask(
        self, method: str, path: str, **sent: Mapping[str, str]
    ) -> httpx2.Response | None:
        """Return the answer if it is a good one."""
        reply = await self._client.request(method, path, **sent)
        if reply.is_success:
            self.statuses[f"{method} {reply.status_code}"] += 1
            return reply
        if reply.status_code == 503 and reply.headers.get("retry-after"):
            self.statuses["503 with Retry-After"] += 1
        else:
            self.statuses[str(reply.status_code)] += 1
            self.surprises.append(f"{method} {path}: {reply.status_code} {reply.text}")
        await asyncio.sleep(_PAUSE_SECONDS)
        return None


@dataclass(frozen=True)
class Loss:
    """One time that who led was lost."""

    at_seconds: float
    killed: str
    leads: str
    gap_seconds: float
    whole_after_seconds: float
    written: int
    refused: int

    def __str__(self) -> str:
        return (
            f"  {self.at_seconds:5.0f} s  {self.killed} killed, {self.leads} leads; "
            f"all writers back after {self.gap_seconds:4.1f} s, {self.killed} follows again after "
            f"{self.whole_after_seconds:.0f} s; so far {self.written:,} writes acknowledged, "
            f"{self.refused:,} times 503"
        )


@dataclass
class Kept:
    """What is in the database in the end."""

    prices: dict[str, Decimal] = field(default_factory=dict)
    histories: defaultdict[str, list[Decimal]] = field(default_factory=lambda: defaultdict(list))
    events: set[str] = field(default_factory=set)

    def lost(self, acknowledged: Mapping[str, Sequence[Decimal]]) -> list[str]:
        """Say which item is not what its writer was told, in its price or in its history."""
        return [
            f"{sku}: {self.histories[sku]} for {told}, and now {self.prices.get(sku)}"
            for sku, told in acknowledged.items()
            if self.histories[sku] != told or self.prices.get(sku) != told[-1]
        ]


async def what_is_kept(database: Database) -> Kept:
    """Read prices, and their history as events tell it."""
    kept = Kept()
    async with database.sessions() as session:
        for sku, price in await session.execute(select(Item.sku, Item.price)):
            kept.prices[sku] = price
        events = await session.execute(
            select(EventRecord.id, EventRecord.payload)
            .where(EventRecord.type.in_(EVENTS))
            .order_by(EventRecord.transaction_id, EventRecord.id)
        )
        for event_id, payload in events:
            price = payload.get("new_price", payload.get("price"))
            kept.histories[payload["sku"]].append(Decimal(price))
            kept.events.add(str(event_id))
    return kept
