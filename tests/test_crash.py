"""`kill -9` on the API amid writes: what was answered is there, and nothing is half there."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator

import httpx2
import pytest
from sqlalchemy import select
from tests.conftest import Api
from tests.processes import ForkedApi

from pricebook.core.database import Database
from pricebook.core.outbox import EventRecord
from pricebook.core.settings import DatabaseSettings, Settings
from pricebook.items.models import Item
from pricebook.users.models import User

WRITES = 2_000
WRITERS = 4
KILLS = 100


@pytest.fixture
def server(settings: Settings) -> Iterator[ForkedApi]:
    # Few connections are soon made anew.
    few = DatabaseSettings(pool_size=WRITERS, read_pool_size=1)
    running = ForkedApi(settings.model_copy(update={"database": few}))
    running.start()
    yield running
    running.close()


async def test_what_was_answered_survives_kill_9_and_nothing_is_half_there(
    server: ForkedApi, api: Api, editor: User, database: Database
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
