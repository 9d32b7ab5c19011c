"""`kill -9` on the API amid writes: what was answered is there, and nothing is half there."""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator

import httpx2
import pytest
from pydantic import SecretStr
from sqlalchemy import select
from tests.conftest import Api

from pricebook.core.database import Database
from pricebook.core.outbox import EventRecord
from pricebook.core.settings import Settings
from pricebook.items.models import Item
from pricebook.serving import api_services, listen, url_of
from pricebook.users.models import User

WRITES = 1_000
WRITERS = 8
KILLS = 8


class Server:
    """One API process on a socket that outlives it, as under `pricebook serve`."""

    def __init__(self, settings: Settings) -> None:
        self._listening = listen("127.0.0.1", 0)
        env = {**os.environ, **environment(settings)}
        (self._process,) = api_services(settings, self._listening, env)
        self.url = url_of(self._listening)

    def start(self) -> None:
        self._process.launch()

    def kill(self) -> None:
        os.kill(self._process.pid, signal.SIGKILL)
        assert self._process.has_stopped(10)

    def close(self) -> None:
        self._process.kill()
        self._process.has_stopped(10)
        self._listening.close()


def environment(settings: Settings) -> dict[str, str]:
    urls = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
    return {f"PRICEBOOK_{name}": str(url and _reveal(url)) for name, url in urls.items()}


def _reveal(url: SecretStr) -> str:
    return url.get_secret_value().replace("+asyncpg", "")


@pytest.fixture
def server(settings: Settings) -> Iterator[Server]:
    running = Server(settings)
    running.start()
    yield running
    running.close()


async def test_what_was_answered_survives_kill_9_and_nothing_is_half_there(
    server: Server, api: Api, editor: User, database: Database
) -> None:
    answered: set[str] = set()
    numbers = iter(range(WRITES))
    enough = asyncio.Condition()

    async def write(client: httpx2.AsyncClient) -> None:
        for number in numbers:
            sku = f"CRASH-{number}"
            body = {"sku": sku, "name": sku, "price": "1.00", "currency": "EUR"}
            try:
                reply = await client.post("/v1/items", json=body)
            except httpx2.TransportError:
                continue
            assert reply.status_code == 201, reply.text
            answered.add(sku)
            async with enough:
                enough.notify_all()

    async def kill_now_and_then() -> None:
        moments = sorted(random.sample(range(50, WRITES - 50), KILLS))
        for moment in moments:
            async with enough:
                await enough.wait_for(lambda: len(answered) >= moment - KILLS * WRITERS)  # noqa: B023 -- awaited in the same turn of the loop
            await asyncio.sleep(random.random() / 100)
            server.kill()
            server.start()

    headers = {"Authorization": f"Bearer {api.tokens[editor.id]}"}
    async with httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=30) as client:
        await asyncio.gather(kill_now_and_then(), *(write(client) for _ in range(WRITERS)))

    async with database.sessions() as session:
        items = {sku: id_ for id_, sku in await session.execute(select(Item.id, Item.sku))}
        created = Counter(
            await session.scalars(
                select(EventRecord.subject_id).where(EventRecord.type == "item.created")
            )
        )
    assert WRITES - KILLS * WRITERS <= len(answered) < WRITES
    assert answered <= items.keys()
    assert created == Counter(items.values())
