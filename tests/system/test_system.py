"""What the service says about itself, and what it shows to people."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI
from tests.conftest import Api

from pricebook.core.settings import HttpSettings, Settings
from pricebook.main import create_app
from pricebook.system.service import HealthMonitor


@pytest.fixture
async def undocumented(settings: Settings) -> AsyncIterator[Api]:
    changed = settings.model_copy(update={"http": HttpSettings(docs=False)})
    app = create_app(changed)
    async with app.router.lifespan_context(app), Api(app, {}) as client:
        yield client


SchemaAt = Callable[[str | None], AbstractAsyncContextManager[None]]


@pytest.fixture
def schema_at(urls: dict[str, str], worker_name: str) -> SchemaAt:
    """Have the database say that it is at another head, or that it was never migrated."""

    @asynccontextmanager
    async def change(head: str | None) -> AsyncIterator[None]:
        connection = await asyncpg.connect(urls[f"database_{worker_name}"])
        try:
            real = await connection.fetchval("DELETE FROM alembic_version RETURNING version_num")
            if head is not None:
                await connection.execute("INSERT INTO alembic_version VALUES ($1)", head)
            yield
        finally:
            await connection.execute("DELETE FROM alembic_version")
            await connection.execute("INSERT INTO alembic_version VALUES ($1)", real)
            await connection.close()

    return change


async def test_ping(api: Api) -> None:
    reply = await api.get("/ping")
    assert (reply.status_code, reply.text) == (200, "pong")


async def test_a_service_in_order_is_ready(api: Api) -> None:
    reply = await api.get("/health/ready")
    assert reply.status_code == 200
    assert reply.json()["status"] == "ok"
    assert {part["name"] for part in reply.json()["parts"]} >= {"database", "schema", "valkey"}


@pytest.mark.parametrize(
    ("head", "status"),
    [("0001", 200), ("newer than this code", 200), (None, 503)],
)
async def test_readiness_asks_for_a_schema_that_the_code_can_work_with(
    api: Api, app: FastAPI, schema_at: SchemaAt, head: str | None, status: int
) -> None:
    """A newer one is fine: a new version migrates first, and the old code goes on beside it."""
    async with schema_at(head):
        app.state.health = HealthMonitor(app.state.database, app.state.valkey)
        reply = await api.get("/health/ready")
        assert (await api.get("/health/live")).status_code == 200
    app.state.health = HealthMonitor(app.state.database, app.state.valkey)
    assert reply.status_code == status
    failing = [part["name"] for part in reply.json()["parts"] if part["status"] != "ok"]
    assert failing == ([] if status == 200 else ["schema"])


async def test_health_is_a_page_for_people_and_json_for_systems(api: Api) -> None:
    page = await api.get("/health", headers={"Accept": "text/html,*/*;q=0.8"})
    assert page.headers["content-type"].startswith("text/html")
    assert "database" in page.text
    system = await api.get("/health", headers={"Accept": "application/json"})
    assert system.headers["content-type"] == "application/json"
    assert (await api.get("/health")).headers["content-type"] == "application/json"
    assert page.headers["vary"] == "Accept"


async def test_people_who_come_without_a_path_are_led_on(api: Api, undocumented: Api) -> None:
    assert (await api.get("/")).headers["location"] == "/docs"
    assert (await undocumented.get("/")).headers["location"] == "/health"


async def test_the_docs_need_nothing_from_elsewhere_and_no_inline_script(api: Api) -> None:
    page = await api.get("/docs")
    assert page.status_code == 200
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "unsafe-inline" not in page.headers["content-security-policy"].partition("style-src")[0]
    assert re.search(r"<script(?![^>]*\bsrc=)", page.text) is None
    linked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert linked
    for link in linked:
        assert not link.startswith(("http:", "https:", "//"))
        found = await api.get(str(httpx2.URL("http://pricebook.test/docs").join(link)))
        assert found.status_code == 200, link


async def test_the_docs_can_be_switched_off(undocumented: Api) -> None:
    for path in ("/docs", "/openapi.json"):
        reply = await undocumented.get(path)
        assert reply.status_code == 404
        assert reply.headers["content-type"] == "application/problem+json"
