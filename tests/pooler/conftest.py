"""An application that reaches its database through PgBouncer, which has less than it asks for."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from tests.conftest import Api, asyncpg_url
from tests.poolers import PgBouncer

CONNECTIONS = 3


@pytest.fixture(scope="session")
def _bouncer(
    urls: dict[str, str], worker_name: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PgBouncer]:
    folder = tmp_path_factory.mktemp("pgbouncer")
    made = PgBouncer.before(urls[f"database_{worker_name}"], folder, CONNECTIONS)
    made.start()
    yield made
    made.end()


@pytest.fixture
def bouncer(_bouncer: PgBouncer) -> PgBouncer:
    return _bouncer


@pytest.fixture
def pooled(bouncer: PgBouncer) -> dict[str, Any]:
    """What differs in the settings of those who go through it."""
    return {
        "database_url": SecretStr(asyncpg_url(bouncer.url)),
        "database": {"pooler": "transaction"},
    }


@pytest.fixture
async def through(
    make_api: Callable[..., Awaitable[Api]], pooled: dict[str, Any], editor: Any
) -> Api:
    return (await make_api(**pooled)).as_(editor)
