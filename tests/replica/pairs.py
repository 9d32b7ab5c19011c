"""Writers that read at once what they have written, and others who read beside them."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

TAX = {"sku": "", "name": "Hammer", "price": "0", "currency": "EUR"}


@dataclass
class Pairs:
    """What a run of writers and readers found, over several API processes."""

    urls: Sequence[str]
    writer: str
    reader: str
    least: int = 0
    """So many pairs are made, however long that takes."""
    pairs: int = 0
    stale: list[str] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    broken_off: int = 0
    from_replica: int = 0
    others: int = 0
    slowest_seconds: float = 0.0
    written: dict[str, int] = field(default_factory=dict)
    """The version that each item has been answered to have."""

    @property
    def share(self) -> float:
        """Which part of the others' reads was older than what had been answered already."""
        return self.from_replica / max(1, self.others)

    async def make_items(self, count: int) -> None:
        async with self._client(self.writer) as client:
            for number in range(count):
                new = TAX | {"sku": f"PAIR-{number}-{random.getrandbits(40)}"}
                reply = await client.post(f"{self.urls[0]}/v1/items", json=new)
                assert reply.status_code == 201, reply.text
                self.written[reply.json()["id"]] = 1

    def goes_on(self, end: float) -> bool:
        return time.monotonic() < end or self.pairs < self.least

    async def run(self, seconds: float) -> None:
        """Let one writer an item work, and two others read, for so long."""
        end = time.monotonic() + seconds
        ids = list(self.written)
        async with self._client(self.writer) as client, self._client(self.reader) as other:
            await asyncio.gather(
                *(self._write(client, item_id, end) for item_id in ids),
                *(self._look(other, ids, end) for _ in range(2)),
            )

    async def _write(self, client: httpx2.AsyncClient, item_id: str, end: float) -> None:
        path, number = f"/v1/items/{item_id}", 0
        while self.goes_on(end):
            number += 1
            price = f"{number}.0000"
            reply = await self._ask(client, "PATCH", path, json={"price": price})
            self.written[item_id] = reply.json()["version"]
            # By every road: itself, in the list, by its condition; over whatever process.
            read = await self._ask(client, "GET", path)
            known = {"If-None-Match": f'"{reply.json()["version"] - 1}"'}
            again = await self._ask(client, "GET", path, headers=known)
            listed = await self._ask(client, "GET", f"/v1/items?q={reply.json()['sku']}")
            found = [read.json()["price"], listed.json()["items"][0]["price"]]
            if found != [price, price] or again.status_code != 200:
                self.stale.append(f"{found} {again.status_code} instead of {price}")
            self.pairs += 1

    async def _look(self, client: httpx2.AsyncClient, ids: Sequence[str], end: float) -> None:
        while self.goes_on(end):
            item_id = random.choice(ids)
            answered = self.written[item_id]
            reply = await self._ask(client, "GET", f"/v1/items/{item_id}")
            self.others += 1
            self.from_replica += int(reply.json()["version"]) < answered
            await asyncio.sleep(0.002)

    async def _ask(
        self, client: httpx2.AsyncClient, method: str, path: str, **options: Any
    ) -> httpx2.Response:
        """Ask any of the processes; one that has just been killed breaks off, so ask another."""
        while True:
            began = time.monotonic()
            try:
                reply = await client.request(method, random.choice(self.urls) + path, **options)
            except httpx2.TransportError:
                self.broken_off += 1
                await asyncio.sleep(0.02)
                continue
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
            if reply.status_code in {200, 304}:
                return reply
            self.surprises.append(f"{method} {path}: {reply.status_code} {reply.text}")
            await asyncio.sleep(0.02)

    @staticmethod
    def _client(token: str) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=20)
