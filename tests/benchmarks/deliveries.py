"""Deliveries a second of one worker process, beside the rate of arq's own jobs that do nothing."""

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass
from statistics import median
from uuid import uuid4

from sqlalchemy import delete, func, select
from tests.benchmarks.findings import Finding, at_least, at_most
from tests.benchmarks.servers import ROOT, Field
from tests.receiver import ForkedReceiver

from pricebook.core.database import Database, open_database
from pricebook.core.deliveries import Status
from pricebook.core.expansion import Expander
from pricebook.core.outbox import EventRecord, record
from pricebook.core.sealing import Sealer
from pricebook.core.settings import Settings
from pricebook.core.spawn import Child, Service
from pricebook.items.events import ItemDeleted
from pricebook.subscriptions import SUBSCRIPTIONS
from pricebook.webhooks.models import (
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookMessage,
)
from pricebook.webhooks.signing import new_secret

_ENDPOINTS = 4
_EVENTS = 5_000
_JOBS = 10_000
_ROUNDS = 3
_TARGET = 0.5
_STOP_SECONDS = 20
_WORKER = (sys.executable, "-m", "pricebook.worker")


@dataclass(frozen=True)
class _Round:
    """Rates a second."""

    ours: float
    arq: float


async def measure_deliveries(field: Field) -> list[Finding]:
    """Let the worker and arq take turns; each begins with everything waiting."""
    rounds = []
    receiver = ForkedReceiver()
    receiver.start()
    try:
        async with open_database(field.settings, "benchmark") as database:
            await _add_endpoints(database, field.settings, receiver.url)
            for _ in range(_ROUNDS):
                arq = await asyncio.to_thread(_arq_rate, field.settings)
                rounds.append(_Round(await _our_rate(database, field.settings), arq))
            async with database.sessions.begin() as session:
                await session.execute(delete(WebhookEndpoint))
        taken, failed = await asyncio.to_thread(receiver.tally)
    finally:
        receiver.close()
    requests = sum(sum(ids.values()) for ids in taken.values())
    ours, arq = median(one.ours for one in rounds), median(one.arq for one in rounds)
    return [
        at_least(
            _TARGET,
            median(one.ours / one.arq for one in rounds),
            f"deliveries/s of one worker ({ours:.0f}), times arq's tuned no-op jobs/s ({arq:.0f})",
        ),
        at_most(0, requests + failed - _ROUNDS * _ENDPOINTS * _EVENTS, "requests beyond one each"),
    ]


async def _add_endpoints(database: Database, settings: Settings, url: str) -> None:
    sealer = Sealer(settings)
    async with database.sessions.begin() as session:
        session.add_all(
            WebhookEndpoint(
                url=f"{url}/{number}",
                events=[ItemDeleted.type],
                sealed_secret=sealer.seal(new_secret()),
            )
            for number in range(_ENDPOINTS)
        )


async def _our_rate(database: Database, settings: Settings) -> float:
    await _wait_for_deliveries_to_wait(database)
    worker = Service("worker", Child(_WORKER, env=worker_environment(settings)))
    worker.launch()
    try:
        while await _pending(database):  # noqa: ASYNC110 -- what is waited for happens in PostgreSQL
            await asyncio.sleep(0.2)
    finally:
        worker.ask_to_stop()
        await asyncio.to_thread(worker.has_stopped, _STOP_SECONDS)
    async with database.sessions.begin() as session:
        span = (
            func.max(WebhookDelivery.settled_at)
            - select(func.min(WebhookAttempt.started_at)).scalar_subquery()
        )
        seconds = (await session.execute(select(func.extract("epoch", span)))).scalar_one()
        for table in (WebhookAttempt, WebhookDelivery, WebhookMessage, EventRecord):
            await session.execute(delete(table))
    return _ENDPOINTS * _EVENTS / float(seconds)


async def _wait_for_deliveries_to_wait(database: Database) -> None:
    async with database.sessions.begin() as session:
        for number in range(_EVENTS):
            record(session, ItemDeleted(item_id=uuid4(), sku=f"GONE-{number}", tags=["tools"]))
    expander = Expander(database, SUBSCRIPTIONS, 500)
    while await expander.expand():
        pass


async def _pending(database: Database) -> int:
    async with database.sessions() as session:
        pending = select(func.count()).where(WebhookDelivery.status == Status.PENDING)
        return await session.scalar(pending) or 0


def worker_environment(settings: Settings) -> dict[str, str]:
    """Return what a worker process that delivers to this machine is started with."""
    assert settings.database_url
    assert settings.redis_url
    assert settings.secret_key
    assert settings.files.url
    return {
        **os.environ,
        "PRICEBOOK_DATABASE_URL": settings.database_url.get_secret_value(),
        "PRICEBOOK_REDIS_URL": settings.redis_url.get_secret_value(),
        "PRICEBOOK_SECRET_KEY": settings.secret_key.get_secret_value(),
        "PRICEBOOK_FILES__URL": settings.files.url,
        "PRICEBOOK_WEBHOOKS__ALLOWED_NETWORKS": '["127.0.0.0/8"]',
        "PRICEBOOK_LOG__LEVEL": "ERROR",
    }


def _arq_rate(settings: Settings) -> float:
    assert settings.redis_url
    # In a database of Valkey that nobody else uses.
    url = settings.redis_url.get_secret_value().removesuffix("/0") + "/1"
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.noop_jobs", str(_JOBS)],
        env={**os.environ, "BENCHMARK_REDIS_URL": url},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)
