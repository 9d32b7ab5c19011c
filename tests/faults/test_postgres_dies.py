"""PostgreSQL dies and comes back under load: what was answered is there, and all of it is told."""

import asyncio
import os
import signal
import time

import httpx2
from sqlalchemy import select
from tests.faults.conftest import Backlog, add_endpoint, come_back, eventually
from tests.processes import ForkedApi, ForkedWorker

from pricebook.auth.service import open_session
from pricebook.core.database import Database
from pricebook.core.outbox import EventRecord
from pricebook.items.models import Item
from pricebook.users.models import User

WRITERS = 8
# How it dies: by an immediate shutdown, as an operator would; and as by the kernel.
DEATHS = (signal.SIGQUIT, signal.SIGKILL, signal.SIGQUIT, signal.SIGKILL)


async def token_of_an_editor(database: Database) -> str:
    async with database.sessions.begin() as session:
        user = User(email="e@example.com", name="E", role="editor", hashed_password="")
        session.add(user)
        await session.flush()
        return await open_session(session, user, address="127.0.0.1", user_agent="tests")


class Clients:
    """Writers that try again as they are told to, and remember what they were told."""

    def __init__(self) -> None:
        self.answered: set[str] = set()
        self.refused = 0
        self.surprises: list[str] = []
        self.last_success = 0.0
        self.is_enough = False

    async def write(self, client: httpx2.AsyncClient, writer: int) -> None:
        number = 0
        while not self.is_enough:
            number += 1
            sku = f"MORTAL-{writer}-{number}"
            new = {"sku": sku, "name": "Hammer", "price": "1", "currency": "EUR"}
            reply = await client.post("/v1/items", json=new)
            if reply.status_code == 201:
                self.answered.add(sku)
                self.last_success = time.monotonic()
            elif reply.status_code == 503 and reply.headers.get("retry-after"):
                self.refused += 1
                await asyncio.sleep(0.05)
            else:
                self.surprises.append(f"{reply.status_code} {reply.text}")
            await asyncio.sleep(0.01)


async def test_four_deaths_of_postgresql_lose_nothing_that_was_answered(
    mortal, mortal_database, postgres, receive, start
):
    receiver, url = await receive()
    token = await token_of_an_editor(mortal_database)
    async with mortal_database.sessions() as session:
        await add_endpoint(session, mortal, f"{url}/a", "item.created")
    worker, server = start(ForkedWorker, mortal), start(ForkedApi, mortal)
    clients = Clients()

    async def die_and_come_back() -> list[float]:
        recoveries = []
        for death in DEATHS:
            await write_more()
            os.kill(postgres.pid, death)
            await asyncio.to_thread(postgres.has_stopped, 10)
            await asyncio.sleep(0.3)
            back_at = await come_back(postgres)
            await eventually(lambda at=back_at: succeeded_since(at))
            recoveries.append(time.monotonic() - back_at)
        await write_more()
        clients.is_enough = True
        return recoveries

    async def write_more() -> None:
        enough = len(clients.answered) + 50

        async def are_written() -> bool:
            return len(clients.answered) >= enough

        await eventually(are_written)

    async def succeeded_since(moment: float) -> bool:
        return clients.last_success > moment

    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=30) as client:
        recoveries, *_ = await asyncio.gather(
            die_and_come_back(), *(clients.write(client, number) for number in range(WRITERS))
        )
    assert clients.surprises == []
    assert clients.refused >= len(DEATHS)
    assert max(recoveries) < 2

    await eventually(Backlog(mortal_database).is_gone)
    async with mortal_database.sessions() as session:
        items = set(await session.scalars(select(Item.sku)))
        events = await session.execute(
            select(EventRecord.id, EventRecord.payload).where(EventRecord.type == "item.created")
        )
        created = {str(event_id): payload["sku"] for event_id, payload in events}
    assert clients.answered <= items
    assert sorted(created.values()) == sorted(items)
    assert receiver.taken["/a"].keys() == created.keys()
    assert worker.is_alive()
