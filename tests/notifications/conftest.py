"""A worker's dispatcher that sends mail to a sink, and makers of changes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select
from tests.sink import Sink, serving

from pricebook.core.dispatch import Dispatcher
from pricebook.core.expansion import Expander
from pricebook.core.settings import Settings
from pricebook.notifications.lane import MailLane
from pricebook.notifications.models import Mail, Notification
from pricebook.subscriptions import SUBSCRIPTIONS


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with serving(Sink()) as served:
        yield served


@pytest.fixture
def mail_settings(settings: Settings, sink: Sink) -> Settings:
    """Mail to the sink, with delays that a test can wait for."""
    url = SecretStr(sink.url)
    return mail_to(settings, url=url, timeout_seconds=2.0, retry_delays_seconds=(0.1, 0.1))


def mail_to(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update={"mail": settings.mail.model_copy(update=changes)})


Expand = Callable[[], Awaitable[None]]


@pytest.fixture
def expand(database) -> Expand:
    """Turn all that is new in the log into notifications and mails."""

    async def run() -> None:
        expander = Expander(database, SUBSCRIPTIONS, 500)
        while await expander.expand():
            pass

    return run


@pytest.fixture
async def work(database, mail_settings) -> AsyncIterator[Callable[..., Dispatcher]]:
    """Run a worker's dispatcher, with the lane of mail, until the test ends."""
    running = []

    def run(settings: Settings = mail_settings) -> Dispatcher:
        lane = MailLane(settings, database)
        dispatcher = Dispatcher(database, SUBSCRIPTIONS, [lane], settings.delivery)
        running.append((dispatcher, asyncio.create_task(dispatcher.run(0.1))))
        return dispatcher

    yield run
    for dispatcher, task in running:
        dispatcher.stop()
        await task


@pytest.fixture
def mails(database) -> Callable[[], Awaitable[list[Mail]]]:
    async def read() -> list[Mail]:
        async with database.sessions() as fresh:
            return list(await fresh.scalars(select(Mail).order_by(Mail.created_at, Mail.id)))

    return read


@pytest.fixture
def notifications(database) -> Callable[[], Awaitable[list[Notification]]]:
    async def read() -> list[Notification]:
        async with database.sessions() as fresh:
            return list(await fresh.scalars(select(Notification).order_by(Notification.id)))

    return read


@pytest.fixture
def watch(session) -> Callable[..., Awaitable[None]]:
    """Have someone watch an item or a tag."""

    async def make(*watches: Any) -> None:
        session.add_all(watches)
        await session.commit()

    return make


@pytest.fixture
def change_price(api, editor) -> Callable[..., Awaitable[None]]:
    """Change the price of an item, over the API."""

    async def change(item: Any, price: str) -> None:
        reply = await api.as_(editor).patch(f"/v1/items/{item.id}", json={"price": price})
        assert reply.status_code == 200, reply.text

    return change
