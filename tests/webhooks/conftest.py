"""Endpoints, a receiver that hears what they are told, and workers that tell it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import web
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.core.database import Database
from pricebook.core.deliveries import Status
from pricebook.core.dispatch import Dispatcher
from pricebook.core.expansion import Expander
from pricebook.core.outbox import Event, record
from pricebook.core.sealing import Sealer
from pricebook.core.settings import DeliverySettings, Settings, WebhookSettings
from pricebook.items.events import ItemPriceChanged
from pricebook.subscriptions import SUBSCRIPTIONS
from pricebook.webhooks.lane import WebhookLane
from pricebook.webhooks.models import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from pricebook.webhooks.signing import new_secret

PENDING, DELIVERED, DEAD = Status.PENDING, Status.DELIVERED, Status.DEAD
LOOPBACK = tuple(map(ip_network, ("127.0.0.0/8", "::1/128")))
# Long waits: an attempt comes again only when a test says so.
WEBHOOKS = WebhookSettings(
    allowed_networks=LOOPBACK, timeout_seconds=5, retry_delays_seconds=(5, 300, 1_800)
)


@pytest.fixture(scope="session")
def webhook_settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "webhooks": WEBHOOKS,
            "delivery": DeliverySettings(lease_seconds=2),
        }
    )


@pytest.fixture(scope="session")
def sealer(webhook_settings: Settings) -> Sealer:
    return Sealer(webhook_settings)


@dataclass
class Told:
    """A request that the receiver got."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Listener:
    """A receiver: what it was told, and what it answers on each path (204 unless told else)."""

    url: str = ""
    told: list[Told] = field(default_factory=list)
    answers: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = field(
        default_factory=dict
    )

    async def hear(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.told.append(Told(request.path, dict(request.headers), body))
        if answer := self.answers.get(request.path):
            return await answer(request)
        return web.Response(status=204)

    def answer(self, path: str, status: int, **options: Any) -> None:
        """Answer so from now on."""

        async def reply(_request: web.Request) -> web.Response:
            return web.Response(status=status, **options)

        self.answers[path] = reply

    def hang(self, path: str) -> asyncio.Event:
        """Answer nothing before the event that is returned is set."""
        release = asyncio.Event()

        async def wait(_request: web.Request) -> web.Response:
            await release.wait()
            return web.Response(status=204)

        self.answers[path] = wait
        return release

    def on(self, path: str) -> list[Told]:
        return [one for one in self.told if one.path == path]


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    heard = Listener()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", heard.hear)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    heard.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield heard
    await runner.cleanup()


@dataclass(frozen=True)
class Endpoint:
    """An endpoint, and the secret that only its owner has."""

    id: UUID
    secret: str


MakeEndpoint = Callable[..., Awaitable[Endpoint]]


@pytest.fixture
def make_endpoint(session: AsyncSession, sealer: Sealer, listener: Listener) -> MakeEndpoint:
    """Write an endpoint straight into its table; its URL is a path of the listener's."""

    async def make(path: str = "/hook", **fields: Any) -> Endpoint:
        secret = new_secret()
        url = fields.pop("url", listener.url + path)
        endpoint = WebhookEndpoint(url=url, sealed_secret=sealer.seal(secret), **fields)
        session.add(endpoint)
        await session.commit()
        return Endpoint(endpoint.id, secret.get_secret_value())

    return make


def price_changed(**fields: Any) -> ItemPriceChanged:
    values = {
        "item_id": uuid4(),
        "sku": "HAMMER",
        "tags": ["tools"],
        "name": "Hammer",
        "old_price": "12.5000",
        "new_price": "13.5000",
        "old_currency": "EUR",
        "currency": "EUR",
        **fields,
    }
    return ItemPriceChanged(**values)


@pytest.fixture
def happen(session: AsyncSession) -> Callable[..., Awaitable[None]]:
    """Record events, one change of price unless others are given."""

    async def record_all(*events: Event) -> None:
        for event in events or (price_changed(),):
            record(session, event)
        await session.commit()

    return record_all


@pytest.fixture
async def run_worker(
    database: Database, webhook_settings: Settings, sealer: Sealer
) -> AsyncIterator[Callable[..., Dispatcher]]:
    """Run dispatchers with the lane to webhooks until the test ends; settings may differ."""
    started = []

    def run(other_sealer: Sealer | None = None, **webhooks: Any) -> Dispatcher:
        group = webhook_settings.webhooks.model_copy(update=webhooks)
        changed = webhook_settings.model_copy(update={"webhooks": group})
        lane = WebhookLane(changed, other_sealer or sealer)
        dispatcher = Dispatcher(database, SUBSCRIPTIONS, [lane], changed.delivery)
        started.append((dispatcher, asyncio.create_task(dispatcher.run(0.1))))
        return dispatcher

    yield run
    for dispatcher, task in started:
        dispatcher.stop()
        await task


@pytest.fixture
def deliveries(database: Database) -> Callable[..., Awaitable[list[WebhookDelivery]]]:
    """Return the deliveries as they are now, oldest first: all, or an endpoint's."""

    async def read(endpoint: Endpoint | None = None) -> list[WebhookDelivery]:
        chosen = select(WebhookDelivery).order_by(WebhookDelivery.id)
        if endpoint is not None:
            chosen = chosen.where(WebhookDelivery.endpoint_id == endpoint.id)
        async with database.sessions() as fresh:
            return list(await fresh.scalars(chosen))

    return read


@pytest.fixture
def attempts(database: Database) -> Callable[[], Awaitable[list[WebhookAttempt]]]:
    async def read() -> list[WebhookAttempt]:
        async with database.sessions() as fresh:
            return list(await fresh.scalars(select(WebhookAttempt).order_by(WebhookAttempt.id)))

    return read


@pytest.fixture
def state_of(database: Database) -> Callable[[Endpoint], Awaitable[WebhookEndpoint]]:
    async def read(endpoint: Endpoint) -> WebhookEndpoint:
        async with database.sessions() as fresh:
            return await fresh.get_one(WebhookEndpoint, endpoint.id)

    return read


@pytest.fixture
def statuses(deliveries):
    async def read(endpoint=None):
        return [one.status for one in await deliveries(endpoint)]

    return read


@pytest.fixture
def expand(database):
    """Turn all events into deliveries, and send none."""

    async def expand_all():
        while await Expander(database, SUBSCRIPTIONS, 500).expand():
            pass

    return expand_all
