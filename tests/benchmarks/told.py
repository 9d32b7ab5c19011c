"""How soon people and systems hear of a price that has changed, when nothing else is going on."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import httpx2
from tests.benchmarks.deliveries import worker_environment
from tests.benchmarks.findings import Finding, at_most
from tests.benchmarks.servers import Field
from tests.receiver import Receiver, receiving
from tests.sink import Sink, serving

from pricebook.core.database import open_database
from pricebook.core.sealing import Sealer
from pricebook.core.settings import Settings
from pricebook.core.spawn import Child, Service
from pricebook.items.events import ItemPriceChanged
from pricebook.serving import listen
from pricebook.webhooks.models import WebhookEndpoint
from pricebook.webhooks.signing import new_secret

_CHANGES = 200
_WARM_UPS = 10
_TAG = "watched"
_TARGET_MILLISECONDS = 1_000.0
_PATIENCE_SECONDS = 30
_STOP_SECONDS = 20
_TICK_SECONDS = 0.002
# As often as a page that somebody has open might.
_INBOX_TICK_SECONDS = 0.02
_NO_LIMIT = "1000000"

Arrivals = Mapping[str, Callable[[int], Coroutine[None, None, float]]]
"""By the way that it takes: wait for the change of this number, and say when it was there."""


async def measure_told(field: Field, token: str) -> list[Finding]:
    """Change a price again and again; each time wait until it was heard of everywhere."""
    url = f"http://127.0.0.1:{field.pricebook.port}"
    headers = {"Authorization": f"Bearer {token}"}
    sink, receiver = Sink(), Receiver()
    async with (
        serving(sink),
        receiving(receiver, listen("127.0.0.1", 0)) as receiver_url,
        httpx2.AsyncClient(base_url=url, headers=headers) as client,
        _stream(client) as stream,
    ):
        await _add_endpoint(field.settings, f"{receiver_url}/told")
        item_url = await _watched_item(client)

        async def mail(number: int) -> float:
            return await _moment(lambda: len(sink.accepted) >= number)

        async def webhook(number: int) -> float:
            return await _moment(lambda: len(receiver.taken["/told"]) >= number)

        async def streamed(number: int) -> float:
            return await _moment(lambda: stream.count >= number)

        async def inbox(number: int) -> float:
            while True:
                reply = await client.get("/v1/notifications", params={"limit": 1})
                if reply.json()["unread_count"] >= number:
                    return time.perf_counter()
                await asyncio.sleep(_INBOX_TICK_SECONDS)

        with _worker(field.settings, sink.url):
            latencies = await _change_prices(
                client,
                item_url,
                {"mail": mail, "inbox": inbox, "webhook": webhook, "stream": streamed},
            )
    return [_finding(way, found) for way, found in latencies.items()]


async def _add_endpoint(settings: Settings, url: str) -> None:
    secret = Sealer(settings).seal(new_secret())
    async with (
        open_database(settings, "benchmark") as database,
        database.sessions.begin() as adding,
    ):
        adding.add(WebhookEndpoint(url=url, events=[ItemPriceChanged.type], sealed_secret=secret))


async def _watched_item(client: httpx2.AsyncClient) -> str:
    new = {"sku": "TOLD-1", "name": "Hammer", "price": "1", "currency": "EUR", "tags": [_TAG]}
    made = await client.post("/v1/items", json=new)
    made.raise_for_status()
    (await client.put(f"/v1/tags/{_TAG}/watch")).raise_for_status()
    return str(made.headers["location"])


class _Stream:
    """Counts the changes that a stream tells of."""

    def __init__(self) -> None:
        self.count = 0

    async def follow(self, lines: AsyncIterator[str]) -> None:
        async for line in lines:
            self.count += line == f"event: {ItemPriceChanged.type}"


@asynccontextmanager
async def _stream(client: httpx2.AsyncClient) -> AsyncIterator[_Stream]:
    stream = _Stream()
    asked = {"type": ItemPriceChanged.type, "tag": _TAG}
    async with client.stream("GET", "/v1/events/stream", params=asked, timeout=None) as reply:
        reply.raise_for_status()
        following = asyncio.create_task(stream.follow(reply.aiter_lines()))
        yield stream
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _moment(has_come: Callable[[], bool]) -> float:
    while not has_come():  # noqa: ASYNC110 -- a tick is exact enough
        await asyncio.sleep(_TICK_SECONDS)
    return time.perf_counter()


async def _change_prices(
    client: httpx2.AsyncClient, item_url: str, arrivals: Arrivals
) -> dict[str, list[float]]:
    """Return the latencies by the way they took, in milliseconds."""
    latencies: dict[str, list[float]] = {way: [] for way in arrivals}
    for number in range(1, _WARM_UPS + _CHANGES + 1):
        sent_at = time.perf_counter()
        async with asyncio.timeout(_PATIENCE_SECONDS):
            moments = [asyncio.create_task(arrive(number)) for arrive in arrivals.values()]
            changed = await client.patch(item_url, json={"price": f"{number + 1}.00"})
            changed.raise_for_status()
            for way, moment in zip(latencies, await asyncio.gather(*moments), strict=True):
                if number > _WARM_UPS:
                    latencies[way].append(1_000 * (moment - sent_at))
    return latencies


def _finding(way: str, latencies: list[float]) -> Finding:
    ordered = sorted(latencies)
    middle, last = ordered[len(ordered) // 2], ordered[int(0.99 * len(ordered))]
    what = f"p99 from PATCH to {way}, ms, over {len(ordered)} changes; p50 {middle:.0f}"
    if way == "mail":
        what += "; PRICEBOOK_MAIL__AT_ONCE_PER_HOUR lifted"
    return at_most(_TARGET_MILLISECONDS, last, what)


@contextmanager
def _worker(settings: Settings, mail_url: str) -> Iterator[None]:
    env = {
        **worker_environment(settings),
        "PRICEBOOK_MAIL__URL": mail_url,
        "PRICEBOOK_MAIL__AT_ONCE_PER_HOUR": _NO_LIMIT,
    }
    worker = Service("worker", Child((sys.executable, "-m", "pricebook.worker"), env=env))
    worker.launch()
    try:
        yield
    finally:
        worker.ask_to_stop()
        worker.has_stopped(_STOP_SECONDS)
