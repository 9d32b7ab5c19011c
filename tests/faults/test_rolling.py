"""Promise 38: both API processes behind nginx are replaced under load, and no client notices."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from tests.conftest import Api
from tests.processes import ForkedApi
from tests.proxies import Nginx

from pricebook.core.settings import Settings, StreamSettings
from pricebook.users.models import User

ROLLS = 5
REQUESTS_A_SECOND = 200
STREAMS = 20
LONGEST_STOP_SECONDS = 10


class Clients:
    """They ask at a steady pace, whatever becomes of the answers."""

    def __init__(self, client: httpx2.AsyncClient, item_id: str) -> None:
        self.client, self.item = client, f"/v1/items/{item_id}"
        self.statuses: Counter[int | str] = Counter()
        self._asking: set[asyncio.Task[None]] = set()

    async def ask_until(self, enough: asyncio.Event) -> None:
        began, number = time.monotonic(), 0
        while not enough.is_set():
            number += 1
            await asyncio.sleep(began + number / REQUESTS_A_SECOND - time.monotonic())
            asking = asyncio.create_task(self._ask(number))
            self._asking.add(asking)
            asking.add_done_callback(self._asking.discard)
        await asyncio.gather(*self._asking)

    async def _ask(self, number: int) -> None:
        try:
            if number % 10:
                reply = await self.client.get(self.item)
            else:
                reply = await self.client.patch(self.item, json={"price": f"{number}.50"})
        except httpx2.TransportError as error:
            self.statuses[repr(error)] += 1
        else:
            self.statuses[reply.status_code] += 1


@pytest.fixture
def servers(settings: Settings, start: Callable[..., ForkedApi]) -> list[ForkedApi]:
    """Two, whose sockets outlive them, as under a `pricebook serve` that replaces its processes."""
    changes = {"drain_seconds": 0.3, "stop_seconds": 4, "stream": StreamSettings()}
    return [start(ForkedApi, settings.model_copy(update=changes)) for _ in range(2)]


async def replace(server: ForkedApi) -> float:
    """Replace a process as a rollout does, and return how long its stop took."""
    began = time.monotonic()
    server.send(signal.SIGTERM)
    assert await asyncio.to_thread(server.wait, LONGEST_STOP_SECONDS)
    seconds = time.monotonic() - began
    # uvicorn ends in good order, and then by the signal that it was sent.
    assert server.exit_code == -signal.SIGTERM
    server.start()
    async with httpx2.AsyncClient(base_url=server.url, timeout=30) as direct:
        assert (await direct.get("/health/ready")).status_code == 200
    return seconds


async def test_promise_38_five_rolls_at_200_requests_a_second_without_an_error(
    servers: list[ForkedApi],
    api: Api,
    editor: User,
    make_item: Callable,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    item = await make_item()
    nginx = Nginx(tmp_path, [int(server.url.rpartition(":")[2]) for server in servers])
    enough = asyncio.Event()
    with nginx.running():
        async with nginx.client(Authorization=f"Bearer {api.tokens[editor.id]}") as client:
            clients = Clients(client, item.id)
            asking = asyncio.create_task(clients.ask_until(enough))
            try:
                stops = [await replace(server) for _ in range(ROLLS) for server in servers]
            finally:
                enough.set()
                await asking
    with capsys.disabled():
        total = clients.statuses.total()
        print(f"\n{ROLLS} rolls, {total:,} requests: {dict(clients.statuses)}")  # noqa: T201 -- the figures are asked for
        print(f"longest stop {max(stops):.1f} s")  # noqa: T201 -- likewise
    assert set(clients.statuses) == {200}
    assert clients.statuses[200] > ROLLS * REQUESTS_A_SECOND


async def test_promise_38_open_streams_do_not_hold_up_a_stop(
    servers: list[ForkedApi], api: Api, editor: User
) -> None:
    headers = {"Authorization": f"Bearer {api.tokens[editor.id]}"}
    async with (
        httpx2.AsyncClient(base_url=servers[0].url, headers=headers, timeout=30) as client,
        asyncio.TaskGroup() as reading,
    ):

        async def read() -> bytes:
            async with client.stream("GET", "/v1/events/stream") as reply:
                assert reply.status_code == 200
                is_open.release()
                return b"".join([chunk async for chunk in reply.aiter_raw()])

        is_open = asyncio.Semaphore(0)
        streams = [reading.create_task(read()) for _ in range(STREAMS)]
        for _ in range(STREAMS):
            await is_open.acquire()
        assert await replace(servers[0]) < LONGEST_STOP_SECONDS
    # Each is told when to come back, and not all at once.
    hints = {stream.result().rpartition(b"retry: ")[2] for stream in streams}
    assert len(hints) > 1
