"""The application: middleware, routers, problems, and what lives as long as the process."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI
from pydantic import SecretStr
from redis.asyncio import Redis

from pricebook.api import TAGS, UPLOADS, include_routers
from pricebook.auth.service import make_authenticator
from pricebook.core import metrics
from pricebook.core.database import Database, open_database
from pricebook.core.downloads import Downloads
from pricebook.core.files import Files
from pricebook.core.middleware import RequestMiddleware
from pricebook.core.openapi import DocumentedApp
from pricebook.core.primary import watching
from pricebook.core.problems import install_problems
from pricebook.core.queue import JOBS_QUEUE, WORK, Hints
from pricebook.core.rate_limits import RateLimiter
from pricebook.core.replica import ReadCounts, following
from pricebook.core.replica_snapshots import Snapshots
from pricebook.core.route_table import RouteTable
from pricebook.core.rush import Rush
from pricebook.core.sealing import Sealer
from pricebook.core.security import PasswordHasher
from pricebook.core.settings import Settings
from pricebook.core.streaming import Streams
from pricebook.core.tracing import tracing
from pricebook.core.traffic import Traffic
from pricebook.core.uploads import Uploads
from pricebook.core.valkey import connected
from pricebook.events.follower import Follower
from pricebook.jobs.follower import Follower as JobFollower
from pricebook.system.measuring import Measuring
from pricebook.system.service import HealthMonitor

DESCRIPTION = """
Log in with `POST /v1/auth/token`, or make an API key, and send either as `Authorization: Bearer …`.

* **Errors** are `application/problem+json` (RFC 9457). Their `type` is stable; their `request_id`
  stands in the `X-Request-ID` header and in the service's log.
* **Money** is a decimal string, never a float. Times are RFC 3339, in UTC.
* **Lists** answer `{"items": […], "next_cursor": …}`, and `Link: rel="next"` while there is more.
* **`Idempotency-Key`** on a POST makes its repeat harmless: it gets the first answer again.
* **`ETag`** names the version of an item. `If-None-Match` saves reading it again; `If-Match` keeps
  a change from overwriting another's.
* **`RateLimit`** tells how many requests are left; past them comes 429 with `Retry-After`.
"""

_MEASURE_SECONDS = 0.5

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(settings: Settings) -> FastAPI:
    """Make the application; it connects to nothing before its lifespan begins."""
    app = DocumentedApp(
        title="Pricebook",
        version="1",
        summary="One price list that every shop, till, ERP and partner reads.",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        generate_unique_id_function=lambda route: route.name,
        lifespan=_lifespan(settings),
        # `system` serves the document, and a page for it that needs no other server.
        openapi_url=None,
        servers=[{"url": settings.http.root_path}] if settings.http.root_path else None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    app.state.settings = settings
    install_problems(app)
    include_routers(app)
    app.state.route_table = RouteTable(app)
    app.state.traffic = Traffic()
    app.state.rush = Rush(settings.http.max_concurrent_requests, app.state.traffic)
    app.add_middleware(
        RequestMiddleware,
        settings.http,
        access_log=settings.log.access,
        traffic=app.state.traffic,
        rush=app.state.rush,
        uploads=dict.fromkeys(UPLOADS, settings.imports.max_bytes),
        templates=app.state.route_table.templates(),
    )
    return app


def _lifespan(settings: Settings) -> Lifespan:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            tracing(settings.tracing, "pricebook-api", settings.flush_seconds),
            watching(settings),
            open_database(settings, "pricebook-api") as database,
            following(settings, "pricebook-api", database.reads) as replica,
            _valkey(settings) as valkey,
            _limiter(settings, valkey) as limiter,
            _hints(Hints(valkey)) as hints,
            _hints(Hints(valkey, WORK, JOBS_QUEUE)) as job_hints,
        ):
            app.state.database = database
            app.state.replica = replica
            app.state.valkey = valkey
            app.state.limiter = limiter
            app.state.hints = hints
            app.state.job_hints = job_hints
            app.state.files = Files(settings)
            app.state.uploads = Uploads(settings.imports, app.state.files)
            app.state.health = HealthMonitor(database, valkey, settings.mail, replica)
            app.state.measuring = Measuring(database)
            app.state.hasher = PasswordHasher(settings.auth)
            app.state.sealer = Sealer(settings)
            app.state.authenticate = make_authenticator(database, settings)
            async with _streams(app, settings), _downloads(app, settings), _measured(app):
                yield
            await app.state.authenticate.close()
            app.state.hasher.close()

    return lifespan


@asynccontextmanager
async def _valkey(settings: Settings) -> AsyncIterator[Redis]:
    url = settings.redis_url or SecretStr("")
    async with connected(url, socket_timeout=1, socket_connect_timeout=1) as valkey:
        yield valkey


@asynccontextmanager
async def _limiter(settings: Settings, valkey: Redis) -> AsyncIterator[RateLimiter]:
    limiter = RateLimiter(settings.limits, valkey)
    stopping = asyncio.Event()
    sharing = asyncio.create_task(limiter.share(stopping))
    try:
        yield limiter
    finally:
        stopping.set()
        await sharing


@asynccontextmanager
async def _streams(app: FastAPI, settings: Settings) -> AsyncIterator[None]:
    app.state.follower = Follower(app.state.database.reads, settings.stream)
    app.state.streams = Streams(settings.stream, app.state.authenticate.recheck)
    app.state.job_follower = JobFollower(app.state.database.reads)
    long = (app.state.follower.run, app.state.job_follower.run, app.state.streams.tend)
    working = [asyncio.create_task(work()) for work in long]
    try:
        yield
    finally:
        app.state.streams.end_all()
        app.state.follower.stop()
        app.state.job_follower.stop()
        await asyncio.gather(*working)


@asynccontextmanager
async def _downloads(app: FastAPI, settings: Settings) -> AsyncIterator[None]:
    pool = Snapshots(
        settings,
        "pricebook-exports",
        settings.exports.at_once,
        app.state.replica,
        app.state.traffic.is_busy,
    )
    app.state.downloads = Downloads(settings.exports, pool)
    yield
    pool.close()


@asynccontextmanager
async def _measured(app: FastAPI) -> AsyncIterator[None]:
    metrics.note_process("api")
    measuring = asyncio.create_task(_measure(app))
    try:
        yield
    finally:
        measuring.cancel()


async def _measure(app: FastAPI) -> None:
    """Say again and again how things stand."""
    database: Database = app.state.database
    lent: Mapping[str, tuple[Callable[[], int], int]] = {
        "writes": (database.pool.checkedout, database.pool.size()),
        "reads": (lambda: database.reads.in_use, database.reads.size),
        "exports": (lambda: len(app.state.downloads), app.state.settings.exports.at_once),
    }
    read: dict[tuple[str, str], int] = {}
    while True:
        if app.state.replica is not None:
            read = _note_reads(app.state.replica.counts, read)
        for pool, (in_use, limit) in lent.items():
            metrics.measure("database_connections_in_use", in_use(), pool)
            metrics.measure("database_connections_limit", limit, pool)
        metrics.measure("http_requests_in_progress", app.state.traffic.under_way)
        metrics.measure("stream_readers", len(app.state.streams))
        metrics.measure("password_hashes_waiting", app.state.hasher.waiting)
        await asyncio.sleep(_MEASURE_SECONDS)


def _note_reads(
    counts: ReadCounts, before: Mapping[tuple[str, str], int]
) -> dict[tuple[str, str], int]:
    """Count what has been read since, from the replica and from the primary; return the sums."""
    now = {("primary", reason): count for reason, count in counts.primary.items()}
    now["replica", "fresh"] = counts.replica
    for labels, count in now.items():
        metrics.note_reads(*labels, count - before.get(labels, 0))
    return now


@asynccontextmanager
async def _hints(hints: Hints) -> AsyncIterator[Hints]:
    sending = asyncio.create_task(hints.send())
    try:
        yield hints
    finally:
        hints.stop()
        await sending
