"""Is it alive, can it answer: for people, load balancers and orchestrators."""

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from pricebook.core.schema_head import needed_head
from pricebook.core.settings import MailSettings
from pricebook.system.service import HealthMonitor

SIGNS_OF_LIFE = ("arq:queue:health-check", "pricebook:jobs:health-check")


@pytest.fixture
async def valkey(settings):
    async with Redis.from_url(settings.redis_url.get_secret_value()) as client:
        yield client


@pytest.fixture
def at_revision(database):
    """Tell the database that its schema is at a revision; put it right afterwards."""

    async def tell(revision):
        async with database.engine.begin() as connection:
            await connection.execute(text("DELETE FROM alembic_version"))
            if revision is not None:
                values = {"revision": revision}
                await connection.execute(
                    text("INSERT INTO alembic_version VALUES (:revision)"), values
                )

    return tell


@pytest.fixture
async def worker_alive(valkey):
    """The signs of life that arq's workers give; test_worker.py has real ones."""
    for sign in SIGNS_OF_LIFE:
        await valkey.set(sign, "works", px=6_000)
    yield
    await valkey.delete(*SIGNS_OF_LIFE)


async def test_ping_says_pong(api):
    reply = await api.get("/ping")
    assert (reply.status_code, reply.text) == (200, "pong")
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"


async def test_all_is_well(make_api, worker_alive):
    # One that has not been asked yet: another may remember how things were a moment ago.
    api = await make_api()
    for path in ("/health", "/health/ready"):
        reply = await api.get(path)
        assert reply.status_code == 200
        assert reply.headers["cache-control"] == "no-store"
        health = reply.json()
        assert health["status"] == "ok"
        names = [part["name"] for part in health["parts"] if part["status"] == "ok"]
        assert names == ["database", "schema", "valkey", "worker", "deliveries", "jobs"]
    assert (await api.get("/health/live")).json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/html", "text/html; charset=utf-8"),
        ("text/*, application/json;q=0.5", "text/html; charset=utf-8"),
        ("text/html;q=0.4, application/json;q=0.5", "application/json"),
        ("text/html;q=0, */*", "application/json"),
        ("text/html;q=nonsense", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8"),
    ],
)
async def test_health_comes_in_the_form_that_is_preferred(accept, media_type, api):
    reply = await api.get("/health", headers={"Accept": accept})
    assert reply.status_code == 200
    assert reply.headers["content-type"] == media_type
    assert reply.headers["vary"] == "Accept"


async def test_a_schema_that_is_behind_fails(database, valkey, at_revision):
    await at_revision(None)
    try:
        health = await HealthMonitor(database, valkey, MailSettings()).check()
    finally:
        await at_revision(needed_head())
    assert health.status == "failing"
    assert "pricebook migrate" in health.parts[1].detail


async def test_a_newer_schema_is_fine_while_a_new_version_is_rolled_out(
    database, valkey, at_revision
):
    await at_revision("from_the_future")
    try:
        health = await HealthMonitor(database, valkey, MailSettings()).check()
    finally:
        await at_revision(needed_head())
    assert health.status == "ok"
    assert "newer" in health.parts[1].detail


async def test_without_valkey_requests_are_answered(database):
    async with Redis.from_url("redis://127.0.0.1:1/0", socket_connect_timeout=0.2) as nobody:
        health = await HealthMonitor(database, nobody, MailSettings()).check()
    assert health.status == "ok"
    assert [(part.name, part.status) for part in health.parts] == [
        ("database", "ok"),
        ("schema", "ok"),
        ("valkey", "failing"),
        ("deliveries", "ok"),
        ("jobs", "ok"),
    ]


async def test_however_many_ask_the_parts_are_asked_once_a_second(database, valkey):
    now = 0.0
    monitor = HealthMonitor(database, valkey, MailSettings(), clock=lambda: now)
    first = await monitor.check()
    assert await monitor.check() is first
    now = 1.0
    assert await monitor.check() is not first


async def test_liveness_asks_nothing(make_api, settings):
    """Not even where there is no database at all; test_database.py has it with one that ends."""
    away = await make_api(
        database_url=type(settings.database_url)("postgresql+asyncpg://127.0.0.1:1/x")
    )
    assert (await away.get("/health/live")).status_code == 200
    ready = await away.get("/health/ready")
    assert ready.status_code == 503
    assert ready.json()["status"] == "failing"
    page = await away.get("/health", headers={"Accept": "text/html"})
    assert page.status_code == 503
    assert 'class="failing"' in page.text
