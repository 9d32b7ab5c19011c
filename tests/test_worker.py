"""The worker process: it keeps house, and outlives outages of Valkey and PostgreSQL."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from arq.connections import ArqRedis, create_pool
from pydantic import SecretStr
from sqlalchemy import func, select
from structlog.testing import capture_logs

from pricebook.core.database import Database
from pricebook.core.embedded import Valkey
from pricebook.core.idempotency import StoredAnswer
from pricebook.core.queue import deserialize, serialize, worker_connection
from pricebook.core.settings import RetentionSettings, Settings
from pricebook.housekeeping import prune, pruners

PRUNERS = pruners(RetentionSettings())
HEALTH_KEY = "arq:queue:health-check"
JOBS_HEALTH_KEY = "pricebook:jobs:health-check"


async def eventually(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.05)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def with_valkey(settings: Settings, valkey: Valkey) -> Settings:
    """The settings, with a Valkey that this test may kill."""
    return settings.model_copy(update={"redis_url": SecretStr(valkey.url)})


@pytest.fixture
async def queue(with_valkey: Settings) -> AsyncIterator[ArqRedis]:
    pool = await create_pool(
        worker_connection(with_valkey)["redis_settings"],
        job_serializer=serialize,
        job_deserializer=deserialize,
    )
    yield pool
    await pool.aclose()


@pytest.fixture
def worker(with_valkey: Settings) -> Iterator[subprocess.Popen[bytes]]:
    assert with_valkey.database_url
    assert with_valkey.redis_url
    env = os.environ | {
        "PRICEBOOK_DATABASE_URL": with_valkey.database_url.get_secret_value(),
        "PRICEBOOK_REDIS_URL": with_valkey.redis_url.get_secret_value(),
        "PRICEBOOK_STOP_SECONDS": "2",
    }
    process = subprocess.Popen([sys.executable, "-m", "pricebook.worker"], env=env)
    yield process
    process.kill()
    process.wait()


async def outdated_answer(database: Database, age: timedelta) -> None:
    async with database.sessions.begin() as session:
        session.add(
            StoredAnswer(
                credential_id=uuid4(),
                key_digest=uuid4().bytes,
                request_digest=b"",
                status=201,
                headers={},
                sealed_body=b"",
                expires_at=datetime.now(UTC) - age,
            )
        )


async def answers(database: Database) -> int:
    async with database.sessions() as session:
        return await session.scalar(select(func.count()).select_from(StoredAnswer)) or 0


async def test_housekeeping_deletes_what_has_expired(database: Database) -> None:
    await outdated_answer(database, timedelta(seconds=1))
    await outdated_answer(database, timedelta(seconds=-60))
    await prune({"database": database, "pruners": PRUNERS})
    assert await answers(database) == 1


async def test_housekeeping_lets_an_outage_of_the_database_pass(settings: Settings) -> None:
    away = settings.model_copy(
        update={"database_url": SecretStr("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")}
    )
    database = Database(away)
    with capture_logs() as lines:
        await prune({"database": database, "pruners": PRUNERS})
    await database.close()
    assert [line["event"] for line in lines] == [
        "nothing pruned, the database is away" for _ in PRUNERS
    ]


async def test_housekeeping_does_not_hide_mistakes(database: Database) -> None:
    async def mistaken(_session: object) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await prune({"database": database, "pruners": (mistaken, *PRUNERS)})


async def test_the_worker_outlives_an_outage_of_valkey(
    worker: subprocess.Popen[bytes], valkey: Valkey, queue: ArqRedis, database: Database
) -> None:
    await eventually(lambda: queue.exists(HEALTH_KEY))
    os.kill(valkey.pid, signal.SIGKILL)
    # Longer than arq by itself would live.
    await asyncio.sleep(2)
    valkey.start()
    await eventually(lambda: queue.exists(HEALTH_KEY))
    await eventually(lambda: queue.exists(JOBS_HEALTH_KEY))
    assert worker.poll() is None
    await outdated_answer(database, timedelta(seconds=1))
    await queue.enqueue_job("prune")

    async def is_pruned() -> bool:
        return await answers(database) == 0

    await eventually(is_pruned)


async def test_the_worker_stops_while_valkey_is_away(
    worker: subprocess.Popen[bytes], valkey: Valkey, queue: ArqRedis
) -> None:
    await eventually(lambda: queue.exists(HEALTH_KEY))
    valkey.stop()
    worker.terminate()
    assert worker.wait(30) == 0


async def test_a_job_of_no_json_form_is_written_by_its_repr() -> None:
    job = deserialize(serialize({"f": "prune", "a": [ValueError("no")]}))
    assert job == {"f": "prune", "a": ["ValueError('no')"]}
