"""A collector that keeps what it is sent, and an API and a worker that are traced."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from pydantic import SecretStr
from tests.conftest import Api, until
from tests.contract.conftest import make_things
from tests.sink import Sink, serving
from tests.webhooks.conftest import WEBHOOKS, listener, make_endpoint, sealer, webhook_settings

from pricebook.core.database import Database, open_database
from pricebook.core.dispatch import Dispatcher
from pricebook.core.files import Files
from pricebook.core.sealing import Sealer
from pricebook.core.settings import MailSettings, Settings, TracingSettings
from pricebook.jobs.run import Tools
from pricebook.jobs.runner import Runner
from pricebook.notifications.lane import MailLane
from pricebook.notifications.models import ItemWatch
from pricebook.subscriptions import SUBSCRIPTIONS
from pricebook.webhooks.lane import WebhookLane
from pricebook.worker import TASKS

# Fixtures for the tests here, too.
__all__ = ["listener", "make_endpoint", "make_things", "sealer", "webhook_settings"]


@dataclass(frozen=True)
class Sent:
    """A span as the collector got it."""

    name: str
    trace_id: str
    id: str
    parent_id: str
    kind: str
    said: dict[str, Any]
    links: list[tuple[str, str]]
    is_failed: bool
    service: str

    @property
    def place(self) -> str:
        """What a `traceparent` says of it, besides its flags."""
        return f"00-{self.trace_id}-{self.id}"


@dataclass
class Collector:
    """An OTLP/HTTP receiver."""

    url: str = ""
    spans: list[Sent] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        assert request.headers["Content-Type"] == "application/x-protobuf"
        body = await request.read()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _values(resource.resource.attributes)["service.name"]
            spans = [one for scope in resource.scope_spans for one in scope.spans]
            self.spans += [_sent(one, service) for one in spans]
        return web.Response(body=ExportTraceServiceResponse().SerializeToString())

    def named(self, name: str) -> list[Sent]:
        return [one for one in self.spans if one.name == name]

    def under(self, parent: Sent) -> list[Sent]:
        return [one for one in self.spans if one.parent_id == parent.id]

    async def until(self, name: str, count: int = 1) -> list[Sent]:
        """Wait for so many spans of a name, and return them."""
        await until(lambda: len(self.named(name)) >= count)
        return self.named(name)


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


def _sent(span: Message, service: str) -> Sent:
    return Sent(
        name=span.name,
        trace_id=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=Message.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        said=_values(span.attributes),
        links=[(one.trace_id.hex(), one.span_id.hex()) for one in span.links],
        is_failed=span.status.code == Status.STATUS_CODE_ERROR,
        service=service,
    )


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    taking = Collector()
    application = web.Application(client_max_size=64 * 1024 * 1024)
    application.router.add_post("/v1/traces", taking.take)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    taking.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield taking
    await runner.cleanup()


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with serving(Sink()) as served:
        yield served


@pytest.fixture
def traced_settings(settings: Settings, collector: Collector, sink: Sink) -> Settings:
    return settings.model_copy(
        update={
            "tracing": TracingSettings(url=SecretStr(collector.url)),
            "webhooks": WEBHOOKS.model_copy(update={"retry_delays_seconds": (0.05, 0.05, 300)}),
            "mail": MailSettings(url=SecretStr(sink.url)),
        }
    )


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")


@pytest.fixture
def trace(make_api: Callable[..., Any], collector: Collector, _at_once: None) -> Callable[..., Any]:
    """Begin to trace: start an application that does, with what else is set."""

    async def start(**tracing: Any) -> Api:
        return await make_api(tracing={"url": SecretStr(collector.url), **tracing})

    return start


@pytest.fixture
async def traced_database(traced_settings: Settings) -> AsyncIterator[Callable[[], Any]]:
    """Open a database, once tracing is on."""
    opened = []

    async def open_one() -> Database:
        database = open_database(traced_settings, "tests-traced")
        opened.append(database)
        return await database.__aenter__()

    yield open_one
    for database in opened:
        await database.__aexit__(None, None, None)


@pytest.fixture
async def work(
    traced_settings: Settings, traced_database: Callable[[], Any]
) -> AsyncIterator[Callable[[], Any]]:
    """Run a worker's dispatcher and its runner of jobs until the test ends."""
    running: list[tuple[Any, asyncio.Task[None]]] = []

    async def start() -> None:
        database = await traced_database()
        lanes = [
            WebhookLane(traced_settings, Sealer(traced_settings)),
            MailLane(traced_settings, database),
        ]
        dispatcher = Dispatcher(database, SUBSCRIPTIONS, lanes, traced_settings.delivery)
        tools = Tools(traced_settings, database, Files(traced_settings))
        runner = Runner(database, tools, TASKS)
        running.append((dispatcher, asyncio.create_task(dispatcher.run(0.1))))
        running.append((runner, asyncio.create_task(runner.run())))

    yield start
    for one, task in running:
        one.stop()
        await task


@pytest.fixture
def watch(session: Any) -> Callable[..., Any]:
    async def make(user: Any, item: Any) -> None:
        session.add(ItemWatch(user_id=user.id, item_id=item.id))
        await session.commit()

    return make
